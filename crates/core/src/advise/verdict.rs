//! Judges each mode by the rules, and recommends one.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeSet;

use otelagent_api::{OtelAgent, ResourceExt};

use super::cost::{Cost, Requests};
use super::facts::{ClusterFact, ClusterFacts};
use super::needs::Needs;
use super::rules::{Effect, Judged, ModeReason, RULES};
use crate::build::{Environment, Problem, ServerVersion, build, validate};
use crate::mode_option::ModeOption;

/// The advice for one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Advised {
    /// Every mode, in the order of [`ModeOption::ALL`].
    pub options: Vec<OptionAdvice>,
    /// Unknown facts that would matter to a mode that is possible.
    pub unknown: BTreeSet<ClusterFact>,
}

/// The advice on one mode.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionAdvice {
    /// The mode.
    pub option: ModeOption,
    /// Whether to use it.
    pub verdict: ModeVerdict,
    /// What the rules say of it, in their order; nothing without an effect.
    pub reasons: Vec<(Effect, ModeReason)>,
    /// Why the operator would refuse the manifest whatever the cluster is like.
    pub problems: Vec<Problem>,
    /// What its agents would reserve, if the numbers of nodes and pods are known.
    pub cost: Option<Cost>,
    /// The object to apply.
    pub manifest: OtelAgent,
}

/// Whether to use a mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeVerdict {
    /// The best one here.
    Recommended,
    /// It works.
    Possible,
    /// It does not work.
    NotPossible,
}

impl Advised {
    /// The recommended mode; `None` if none is possible.
    pub fn recommended(&self) -> Option<&OptionAdvice> {
        let mut options = self.options.iter();
        options.find(|option| option.verdict == ModeVerdict::Recommended)
    }
}

impl OptionAdvice {
    /// The reasons with an effect.
    pub fn with_effect(&self, effect: Effect) -> impl Iterator<Item = ModeReason> {
        let reasons = self.reasons.iter();
        reasons.filter_map(move |(own, reason)| (*own == effect).then_some(*reason))
    }

    fn is_possible(&self) -> bool {
        self.verdict != ModeVerdict::NotPossible
    }
}

/// Advises a mode for a cluster. `draft` has everything but the mode: where agents send, which pods are selected, which
/// resources agents get. Of `environment` its server and its platform namespaces do not matter: these are facts.
///
/// Of the modes that nothing prevents, the one that most wishes call for is recommended, and of several the first in
/// the order of [`ModeOption::ALL`].
pub fn advise(facts: &ClusterFacts, draft: &OtelAgent, environment: &Environment) -> Advised {
    let facts = &ClusterFacts {
        host_metadata: facts.host_metadata.or(draft.spec.host_metadata),
        ..facts.clone()
    };
    let trials = ModeOption::ALL.map(|option| Trial::new(option, facts, draft, environment));
    let cost = |option: ModeOption| trials.iter().find(|trial| trial.option == option)?.cost;
    let sidecars = cost(ModeOption::Sidecar)
        .zip(cost(ModeOption::NodeLocalRequire))
        .map(|(sidecars, agents)| sidecars.compare(&agents));
    let judged = trials.map(|trial| trial.judge(facts, sidecars));
    let mut unknown = BTreeSet::new();
    for (option, lacking) in &judged {
        if option.is_possible() {
            unknown.extend(lacking);
        }
    }
    let mut options: Vec<OptionAdvice> = judged.into_iter().map(|(option, _)| option).collect();
    let possible = options.iter_mut().filter(|option| option.is_possible());
    let best = possible.min_by_key(|option| Reverse(option.with_effect(Effect::CallsFor).count()));
    if let Some(best) = best {
        best.verdict = ModeVerdict::Recommended;
    }
    Advised { options, unknown }
}

/// An installation in which no mode is refused for what the rules judge by facts.
fn without_limits(
    option: ModeOption,
    facts: &ClusterFacts,
    draft: &OtelAgent,
    environment: &Environment,
) -> Environment {
    let mut environment = environment.clone();
    environment.server = ServerVersion {
        major: 1,
        minor: u32::MAX,
    };
    let namespace = draft.namespace().unwrap_or_default();
    if option.mode().on_nodes() || facts.platform_namespace != Some(false) {
        environment.platform_namespaces.insert(namespace);
    } else {
        environment.platform_namespaces.remove(&namespace);
    }
    environment
}

/// A mode as it would be rendered.
struct Trial {
    option: ModeOption,
    manifest: OtelAgent,
    problems: Vec<Problem>,
    needs: Needs,
    cost: Option<Cost>,
}

impl Trial {
    fn new(
        option: ModeOption,
        facts: &ClusterFacts,
        draft: &OtelAgent,
        environment: &Environment,
    ) -> Self {
        let environment = &without_limits(option, facts, draft, environment);
        let mut manifest = draft.clone();
        option.choose(&mut manifest.spec);
        manifest.spec.host_metadata = facts.host_metadata;
        let trial = Self {
            option,
            manifest,
            problems: Vec::new(),
            needs: Needs::default(),
            cost: None,
        };
        let valid = match validate(&trial.manifest, environment) {
            Ok(valid) => valid,
            Err(problems) => return Self { problems, ..trial },
        };
        let mode = option.mode();
        let desired = build(&valid, environment, [mode]);
        let Some(desired) = desired.modes.get(&mode) else {
            return trial;
        };
        let agents = number_of_agents(option, facts);
        Self {
            needs: Needs::of(mode, desired),
            cost: agents.map(|agents| Cost::of(agents, Requests::of(desired))),
            ..trial
        }
    }

    /// The advice, and the facts that it lacks.
    fn judge(
        self,
        facts: &ClusterFacts,
        sidecars: Option<Ordering>,
    ) -> (OptionAdvice, Vec<ClusterFact>) {
        let judged = Judged {
            option: self.option,
            needs: &self.needs,
            facts,
            sidecars,
        };
        let (mut reasons, mut unknown) = (Vec::new(), Vec::new());
        for rule in &RULES {
            match rule.effect(&judged) {
                Some(Effect::Nothing) => {}
                Some(effect) => reasons.push((effect, rule.reason)),
                None => unknown.extend(rule.fact),
            }
        }
        let is_prevented = reasons
            .iter()
            .any(|(effect, _)| *effect == Effect::Prevents);
        let option = OptionAdvice {
            option: self.option,
            verdict: if is_prevented || !self.problems.is_empty() {
                ModeVerdict::NotPossible
            } else {
                ModeVerdict::Possible
            },
            reasons,
            problems: self.problems,
            cost: self.cost,
            manifest: self.manifest,
        };
        (option, unknown)
    }
}

/// How many agents a mode would have: one for each node that runs them, or one for each selected pod.
fn number_of_agents(option: ModeOption, facts: &ClusterFacts) -> Option<usize> {
    if option.mode().on_nodes() {
        let without = facts.nodes_without_agents.unwrap_or_default();
        Some(facts.nodes?.saturating_sub(without))
    } else {
        Some(facts.pods_per_node?.total)
    }
}
