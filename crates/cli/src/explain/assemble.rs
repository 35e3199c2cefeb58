//! From a pod and what was read to the answer, by the functions with which the operator decides.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use otelagent_api::{Mode, OtelAgent, Resource, ResourceExt};
use otelagent_core::build::{Environment, build, is_permitted, over_quota, validate};
use otelagent_core::explain::{self, Check, Edit, checks, renewed};
use otelagent_core::inject::precedence::Candidate;
use otelagent_core::inject::{Injection, Recipe, advice_for, inject};
use otelagent_core::names;
use otelagent_core::read::Labels;
use otelagent_core::reconcile::Active;
use otelagent_core::reconcile::overlap::{candidate, created, refusal};
use serde_json::Value;

use super::report::{
    CandidateReport, EditReport, Explanation, InjectionReport, PodExplanation, RuleReport,
};
use crate::snapshot::{Key, Snapshot};

/// What is to be explained.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Kind and name, for a person.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// The pod: one that runs, or one as a manifest's controller would make it.
    pub pod: Value,
    /// Whether it runs.
    pub is_running: bool,
    /// The template of its controller, if that is known.
    pub template: Option<Value>,
}

/// The answer for these pods.
pub fn assemble(snapshot: &Snapshot, subjects: &[Subject]) -> Explanation {
    let environment = snapshot.environment();
    let explainer = Explainer {
        snapshot,
        environment: &environment,
    };
    let mut notes: Vec<String> = snapshot
        .missing
        .iter()
        .map(|right| format!("not read: {right}"))
        .collect();
    if !snapshot.installation.is_known {
        notes.push(format!(
            "how the operator is installed is not known, so it is taken to be in namespace {} with its defaults",
            snapshot.installation.namespace
        ));
    }
    let items = subjects
        .iter()
        .map(|subject| explainer.explain(subject, &mut notes));
    Explanation {
        items: items.collect(),
        notes,
    }
}

struct Explainer<'a> {
    snapshot: &'a Snapshot,
    environment: &'a Environment,
}

/// An `OtelAgent` that may inject the pod.
struct Considered<'a> {
    agent: &'a OtelAgent,
    key: Key,
    candidate: Option<Candidate>,
}

impl<'a> Explainer<'a> {
    fn explain(&self, subject: &Subject, notes: &mut Vec<String>) -> PodExplanation {
        let namespace = subject.namespace.as_str();
        let labels = labels(&subject.pod);
        let of_namespace = self.snapshot.labels_of(namespace);
        let mut candidates = Vec::new();
        let mut chosen: Option<&Considered<'_>> = None;
        let considered = self.considered(namespace);
        for one in &considered {
            let mut rules = self.rules(one, namespace, &of_namespace, &labels);
            let is_selected = rules.iter().all(|rule| rule.is_met);
            let older = chosen.filter(|_| is_selected);
            if let Some(older) = older {
                let (of, name) = &older.key;
                let text = format!("OtelAgent {of}/{name} is older and selects it, too");
                rules.push(Check::of(false, text).into());
            }
            let selects = is_selected && older.is_none();
            if selects {
                chosen = Some(one);
            }
            candidates.push(CandidateReport {
                namespace: one.key.0.clone(),
                name: one.key.1.clone(),
                mode: self.mode(one),
                selects,
                injects: false,
                rules,
            });
        }
        let mut explained = PodExplanation {
            namespace: namespace.to_owned(),
            subject: subject.name.clone(),
            injected: None,
            candidates,
            ..PodExplanation::default()
        };
        let own = chosen.map(|chosen| self.judge(chosen, subject, notes));
        let recipe = own.as_ref().and_then(|own| own.recipe.as_ref());
        let recipe = recipe.map(|(recipe, _)| recipe);
        let new = if subject.is_running {
            renewed(&subject.pod, subject.template.as_ref(), recipe)
        } else {
            subject.pod.clone()
        };
        if subject.is_running {
            explained.injected = injected(&subject.pod, &new);
        }
        if let Some(own) = own {
            own.apply(&mut explained, subject, &new);
        }
        conclude(&mut explained, subject.is_running);
        explained
    }

    /// The `OtelAgent`s that may select pods of a namespace, the one that takes precedence first.
    fn considered(&self, namespace: &str) -> Vec<Considered<'a>> {
        let agents = self.snapshot.agents.iter();
        let agents = agents.filter_map(|(key, agent)| Some((key, agent.agent.as_ref().ok()?)));
        let agents =
            agents.filter(|((of, _), _)| of == namespace || self.environment.is_platform(of));
        let mut found: Vec<Considered<'a>> = agents
            .map(|(key, agent)| Considered {
                agent,
                key: key.clone(),
                candidate: candidate(agent, self.environment, || {
                    self.snapshot.active_of(key)?.selection.clone()
                }),
            })
            .collect();
        found.sort_by_key(|one| (created(one.agent.meta()), one.key.clone()));
        found
    }

    fn mode(&self, one: &Considered<'_>) -> Option<Mode> {
        let active = self
            .snapshot
            .active_of(&one.key)
            .and_then(|active| active.mode);
        active.or(one.agent.status.as_ref().and_then(|status| status.mode))
    }

    /// The rules by which an `OtelAgent` selects a pod, up to the first that it cannot meet.
    fn rules(
        &self,
        one: &Considered<'_>,
        namespace: &str,
        of_namespace: &Labels,
        labels: &Labels,
    ) -> Vec<RuleReport> {
        let rule = |is_met: bool, text: String| RuleReport { is_met, text };
        if self.environment.is_excluded(namespace) {
            let text = format!("pods of namespace {namespace} are never injected");
            return vec![rule(false, text)];
        }
        if let Some(problem) = over_quota(one.agent, self.environment, self.older(one)) {
            return vec![rule(false, problem.message)];
        }
        let mut rules = Vec::new();
        if let Some(reason) = refusal(one.agent) {
            let text =
                format!("its spec was refused ({reason}), so its last valid selection counts");
            rules.push(rule(one.candidate.is_some(), text));
        } else if !is_permitted(one.agent, self.environment) {
            let text = format!(
                "its spec asks for what only platform namespaces may, and {} is none",
                one.key.0
            );
            rules.push(rule(one.candidate.is_some(), text));
        }
        match &one.candidate {
            Some(candidate) => {
                let found = checks(&candidate.selection, namespace, of_namespace, labels);
                rules.extend(found.into_iter().map(RuleReport::from));
            }
            None if rules.is_empty() => {
                let text = "it selects no pods, because spec.workloads is not set";
                rules.push(rule(false, text.into()));
            }
            None => {}
        }
        rules
    }

    /// How many `OtelAgent`s of its namespace are older.
    fn older(&self, one: &Considered<'_>) -> usize {
        let rank = (created(one.agent.meta()), &one.key.1);
        let others = self.snapshot.agents.iter();
        let others = others.filter(|((of, _), _)| *of == one.key.0);
        others
            .filter(|((_, name), other)| (created(&other.metadata), name) < rank)
            .count()
    }

    /// What the `OtelAgent` that selects a pod would do with it now.
    fn judge(&self, chosen: &Considered<'_>, subject: &Subject, notes: &mut Vec<String>) -> Judged {
        let active = self.snapshot.active_of(&chosen.key);
        let recipe = self
            .mode(chosen)
            .map(|mode| self.recipe(chosen.agent, mode));
        let built = recipe.as_ref().filter(|(_, is_whole)| *is_whole);
        let built = built.map(|(recipe, _)| recipe.hash());
        let wanted = active.and_then(|active| active.recipe.clone());
        let of = format!("OtelAgent {}/{}", chosen.key.0, chosen.key.1);
        match (&built, &wanted) {
            (Some(built), Some(wanted)) if built != wanted => notes.push(format!(
                "the operator has made recipe {wanted} active for {of}, and this program renders {built}: it is of another \
                 version, or a change is under way"
            )),
            (None, _) if recipe.is_some() => notes.push(format!(
                "this program refuses the spec of {of} (kubectl otelagent render says why), so it cannot say what is injected"
            )),
            _ => {}
        }
        let is_unknown = self.snapshot.active.is_none();
        let is_active = active.is_some_and(|active| active.mode.is_some());
        Judged {
            recipe: recipe.filter(|_| is_unknown || is_active),
            is_older: active.is_some_and(|active| is_older(&subject.pod, active)),
            since: active
                .and_then(|active| active.bound_at)
                .map(|at| at.to_string()),
        }
    }

    /// What a mode injects; of a spec that this program refuses only what is the same for all of the mode.
    fn recipe(&self, agent: &OtelAgent, mode: Mode) -> (Recipe, bool) {
        let built = validate(agent, self.environment).ok();
        let built = built.map(|valid| build(&valid, self.environment, [mode]));
        let recipe = built.and_then(|built| built.recipe(mode).cloned());
        if let Some(recipe) = recipe {
            return (recipe, true);
        }
        let namespace = agent.namespace().unwrap_or_default();
        let mut recipe = Recipe::of_mode(mode);
        recipe.agent = names::agent_label(&namespace, &agent.name_any());
        (recipe, false)
    }
}

/// What an `OtelAgent` does with a pod that it selects.
struct Judged {
    /// What it injects, and whether all of that is known; `None` while its injection is not active.
    recipe: Option<(Recipe, bool)>,
    /// Whether the pod was created before the present injection became active.
    is_older: bool,
    /// When that was.
    since: Option<String>,
}

impl Judged {
    fn apply(self, explained: &mut PodExplanation, subject: &Subject, new: &Value) {
        let mut candidates = explained.candidates.iter_mut();
        let Some(candidate) = candidates.find(|one| one.selects) else {
            return;
        };
        let mut rule =
            |is_met: bool, text: String| candidate.rules.push(RuleReport { is_met, text });
        let Some((recipe, is_whole)) = self.recipe else {
            let text = "its injection is not active yet: no agents have been ready (kubectl otelagent status says why)";
            rule(false, text.into());
            return;
        };
        rule(
            true,
            format!("its injection is active, in mode {}", recipe.mode),
        );
        let pod = match inject(new, &subject.namespace, &recipe) {
            Injection::Injected(pod) => pod,
            Injection::Skipped(reason) => {
                rule(false, format!("it cannot be injected: {reason}"));
                return;
            }
        };
        rule(true, "nothing in it keeps it from being injected".into());
        candidate.injects = true;
        let (mut edits, mut differences) = (Vec::new(), Vec::new());
        if is_whole {
            edits = of_edits(explain::edits(new, &pod));
            differences = of_edits(explain::drift(&subject.pod, new, &pod));
        }
        explained.now = Some(InjectionReport {
            agent: recipe.agent.clone(),
            mode: Some(recipe.mode.to_string()),
            recipe: Some(recipe.hash()),
            edits,
        });
        explained.advice = advice_for(new, &recipe);
        if explained.injected.is_some() {
            explained.differences = differences;
        } else if subject.is_running && self.is_older {
            let since = self.since.unwrap_or_default();
            let text = "it was created before this injection became active";
            explained.advice.insert(
                0,
                format!("{text} ({since}); once it is restarted, it is injected"),
            );
        }
    }
}

fn of_edits(edits: Vec<Edit>) -> Vec<EditReport> {
    edits.into_iter().map(Into::into).collect()
}

fn labels(pod: &Value) -> BTreeMap<String, String> {
    serde_json::from_value(pod["metadata"]["labels"].clone()).unwrap_or_default()
}

fn is_older(pod: &Value, active: &Active) -> bool {
    let created = pod["metadata"]["creationTimestamp"].as_str();
    let created: Option<Timestamp> = created.and_then(|text| text.parse().ok());
    created
        .zip(active.bound_at)
        .is_some_and(|(created, bound)| created < bound)
}

/// For whom a running pod was injected, and what was added to it.
fn injected(pod: &Value, new: &Value) -> Option<InjectionReport> {
    let label = |key: &str| pod["metadata"]["labels"][key].as_str().map(str::to_owned);
    Some(InjectionReport {
        agent: label(names::LABEL_AGENT)?,
        mode: label(names::LABEL_MODE),
        recipe: label(names::LABEL_CONFIG),
        edits: of_edits(explain::added(new, pod)),
    })
}

/// What is to be said first, and whether that is as wished.
fn conclude(explained: &mut PodExplanation, is_running: bool) {
    let by = |report: &InjectionReport| match &report.mode {
        Some(mode) => format!("OtelAgent {} in mode {mode}", report.agent),
        None => format!("OtelAgent {}", report.agent),
    };
    let (is_as_wished, summary) = match (&explained.injected, &explained.now) {
        (Some(injected), Some(_)) if explained.differences.is_empty() => (
            true,
            format!("it was injected by {}, as a new one would be", by(injected)),
        ),
        (Some(injected), Some(now)) => (
            false,
            format!(
                "it was injected by {}; a new one would be injected otherwise, by {}",
                by(injected),
                by(now)
            ),
        ),
        (Some(injected), None) => (
            false,
            format!(
                "it was injected by {}; a new one would not be injected",
                by(injected)
            ),
        ),
        (None, Some(now)) if is_running => (
            false,
            format!("it was not injected; a new one would be, by {}", by(now)),
        ),
        (None, Some(now)) => (true, format!("it would be injected by {}", by(now))),
        (None, None) if explained.candidates.iter().any(|one| one.selects) => {
            (false, "it is selected, and would not be injected".into())
        }
        (None, None) => (true, "no OtelAgent selects it".into()),
    };
    explained.is_as_wished = is_as_wished;
    explained.summary = summary;
}
