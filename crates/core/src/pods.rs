//! Counts the pods of an `OtelAgent`: injected, current, stale, missed, uncovered; and says who owns them.

mod workloads;

pub use workloads::{RestartAdvice, WhyMissed, WorkloadPods};

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::inject::outline::why_not_outlined;
use crate::inject::{Reason, Recipe, Selection};
use crate::names;
use crate::owners;
use crate::switching::NodeStates;
use otelagent_api::{Mode, PodCounts, Routing};

/// One pod that is neither finished nor a mirror of a static one.
#[derive(Clone, Debug)]
pub struct LivePod<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Labels of its namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its name.
    pub name: &'a str,
    /// The node it runs on, if it has been placed.
    pub node: Option<&'a str>,
    /// Its controller, if it has one.
    pub controller: Option<&'a Controller>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// Whether it is ready, a sidecar included.
    pub ready: bool,
    /// What decides whether a pod like it can be injected, see [`crate::inject::outline`].
    pub outline: &'a Arc<str>,
}

/// A pod's controller, as the pod names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Controller {
    /// Group and version of its kind.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its name, in the pod's namespace.
    pub name: String,
}

/// The owner of pods that a person would restart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadRef {
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Group and version of its kind, as its pods say.
    pub api_version: String,
}

impl fmt::Display for WorkloadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

#[cfg(test)]
impl WorkloadRef {
    /// One of namespace `shop`.
    pub(crate) fn of_shop(kind: &str, name: &str) -> Self {
        let api_version = if kind == "Pod" { "v1" } else { "apps/v1" };
        Self {
            kind: kind.into(),
            namespace: "shop".into(),
            name: name.into(),
            api_version: api_version.into(),
        }
    }
}

/// Where agents are ready, to find pods whose route ends at no agent.
#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Nodes that are Ready. On a node that is down no application sends anything.
    pub nodes: BTreeSet<String>,
    /// By mode, nodes with a ready agent.
    pub ready: BTreeMap<Mode, BTreeSet<String>>,
    /// Modes whose Service may use an agent of another node.
    pub anywhere: BTreeSet<Mode>,
}

impl Coverage {
    /// The Ready nodes, and the mode and node of each ready agent of one `OtelAgent`.
    pub fn of<'a>(
        nodes: &NodeStates,
        agents: impl IntoIterator<Item = (Mode, &'a str)>,
        routing: Routing,
    ) -> Self {
        let ready = nodes.iter().filter(|(_, node)| node.ready);
        let mut coverage = Self {
            nodes: ready.map(|(name, _)| name.clone()).collect(),
            ..Self::default()
        };
        for (mode, node) in agents {
            let ready = coverage.ready.entry(mode).or_default();
            ready.insert(node.to_owned());
        }
        if routing == Routing::Prefer {
            coverage.anywhere.insert(Mode::NodeLocal);
        }
        coverage
    }

    /// Whether a pod that was created with a mode reaches an agent from its node.
    fn covers(&self, mode: Mode, node: &str) -> bool {
        if !mode.on_nodes() || !self.nodes.contains(node) {
            return true;
        }
        self.ready.get(&mode).is_some_and(|ready| {
            ready.contains(node) || self.anywhere.contains(&mode) && !ready.is_empty()
        })
    }
}

/// The counts, and the owners of pods that are not current.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodReport {
    /// The numbers.
    pub counts: PodCounts,
    /// Live pods by mode, terminating ones included: they still use their route.
    pub users: BTreeMap<Mode, usize>,
    /// Of the injected pods, ready ones by mode. A sidecar is as ready as its pod.
    pub ready: BTreeMap<Mode, i32>,
    /// Owners of stale pods, with their number.
    pub stale: BTreeMap<WorkloadRef, usize>,
    /// Of these, owners of pods whose mode is the serving one: only their configuration is older.
    pub outdated: BTreeMap<WorkloadRef, usize>,
    /// Owners of missed pods that no `OtelAgent` injected and that can be injected, with their number.
    pub missed: BTreeMap<WorkloadRef, usize>,
    /// Missed pods whose `OtelAgent` does not exist.
    pub orphaned: PodsOfOthers,
    /// Missed pods that another `OtelAgent` injected, which no longer has precedence.
    pub of_others: PodsOfOthers,
    /// Owners of missed pods that cannot be injected, with their number and the reason of one of them.
    pub uninjectable: BTreeMap<WorkloadRef, (usize, Reason)>,
    /// Owners of stale or uncovered pods whose new pods would not be injected again, with the number of their pods
    /// and the reason of one of them.
    pub unrepeatable: BTreeMap<WorkloadRef, (usize, NotAgain)>,
    /// Owners of uncovered pods, with their number.
    pub uncovered: BTreeMap<WorkloadRef, usize>,
    /// Nodes on which uncovered pods run.
    pub uncovered_nodes: BTreeSet<String>,
    /// The same by the owners of these pods.
    pub uncovered_on: BTreeMap<WorkloadRef, BTreeSet<String>>,
}

/// Why a new pod in the place of an injected one would not be injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAgain {
    /// The `OtelAgent` would leave it alone.
    NotSelected,
    /// It cannot be injected.
    Uninjectable(Reason),
}

impl fmt::Display for NotAgain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSelected => f.write_str("this OtelAgent does not select it any more"),
            Self::Uninjectable(reason) => reason.fmt(f),
        }
    }
}

/// Missed pods that carry the label of another `OtelAgent`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodsOfOthers {
    /// Their owners, with their number.
    pub owners: BTreeMap<WorkloadRef, usize>,
    /// The labels of these `OtelAgent`s.
    pub agents: BTreeSet<String>,
}

impl PodsOfOthers {
    fn add(&mut self, owner: &WorkloadRef, agent: &str, pods: usize) {
        *self.owners.entry(owner.clone()).or_default() += pods;
        self.agents.insert(agent.to_owned());
    }
}

impl PodReport {
    /// Owners of pods that are stale, or missed although they can be injected.
    fn lacking(&self) -> impl Iterator<Item = &WorkloadRef> {
        let missed = [&self.missed, &self.orphaned.owners, &self.of_others.owners];
        let missed = missed.into_iter().flat_map(BTreeMap::keys);
        self.stale.keys().chain(missed)
    }

    /// Owners of pods that a restart is to improve, including those to which it would do no good.
    pub fn to_restart(&self) -> BTreeSet<WorkloadRef> {
        let owners = self.lacking().chain(self.uncovered.keys());
        owners.cloned().collect()
    }

    /// Owners whose restart would be in vain, and why: their new pods would not be injected, or their pods are only
    /// uncovered, on nodes that the agents leave out for a reason in `left_out`.
    pub fn in_vain(&self, left_out: &BTreeMap<String, String>) -> BTreeMap<WorkloadRef, String> {
        let unrepeatable = self.unrepeatable.iter().map(|(owner, (_, why))| {
            let why = format!("its new pods would not be injected: {why}");
            (owner.clone(), why)
        });
        let left_out = self.only_uncovered().filter_map(|owner| {
            let nodes = self.uncovered_on.get(owner)?;
            let why = nodes.iter().map(|node| left_out.get(node));
            let why = why.collect::<Option<Vec<_>>>()?;
            let (node, why) = nodes.first().zip(why.first())?;
            let why = format!(
                "its pods are where no agent runs, and new ones may be, too: node {node}: {why}"
            );
            Some((owner.clone(), why))
        });
        left_out.chain(unrepeatable).collect()
    }

    /// Owners of pods that are only uncovered.
    pub fn only_uncovered(&self) -> impl Iterator<Item = &WorkloadRef> {
        let lacking: BTreeSet<&WorkloadRef> = self.lacking().collect();
        let owners = self.uncovered.keys();
        owners.filter(move |owner| !lacking.contains(owner))
    }
}

/// What is known of an injected pod before the recipe is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Created {
    /// Whether a pod like it is still selected.
    is_selected: bool,
    outline: Arc<str>,
}

/// Numbers of pods that are alike, by their owners.
type ByOwner<T> = BTreeMap<WorkloadRef, BTreeMap<T, usize>>;

/// What is known of a missed pod before the recipe is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Missed {
    injected_by: InjectedBy,
    outline: Arc<str>,
}

/// Which other `OtelAgent` injected a missed pod, by the pod's label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum InjectedBy {
    None,
    Other(String),
    Gone(String),
}

/// The pods of one `OtelAgent`, before it is known which of them are current.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTally {
    /// Everything but what depends on the serving recipe.
    counted: PodReport,
    /// Live injected pods that are not terminating, by mode and recipe.
    created: BTreeMap<(Option<Mode>, Option<String>), ByOwner<Created>>,
    missed: ByOwner<Missed>,
}

impl PodTally {
    /// Live pods by mode, terminating ones included: they still use their route.
    pub fn users(&self) -> &BTreeMap<Mode, usize> {
        &self.counted.users
    }

    /// The counts while new pods get `serving`: the mode and the hash of the active recipe. `recipe` decides
    /// which pods can be injected.
    pub fn report(&self, serving: Option<(Mode, &str)>, recipe: Option<&Recipe>) -> PodReport {
        let mut report = self.counted.clone();
        self.report_injected(serving, &mut report);
        let mut reasons = Uninjectable::by(recipe);
        for (owner, missed) in &self.missed {
            for (missed, pods) in missed {
                let reason = reasons.of(&missed.outline);
                report.add_missed(owner, missed, *pods, reason.as_ref());
            }
        }
        self.report_unrepeatable(&mut reasons, &mut report);
        report
    }

    fn report_injected(&self, serving: Option<(Mode, &str)>, report: &mut PodReport) {
        for ((mode, hash), owners) in &self.created {
            let pods = owners.values().flat_map(BTreeMap::values);
            let pods = number(pods.sum());
            let created_with = mode.zip(hash.as_deref());
            if created_with.is_some() && created_with == serving {
                report.counts.current += pods;
                continue;
            }
            report.counts.stale += pods;
            add(&mut report.stale, owners);
            if serving.is_some_and(|(serving, _)| *mode == Some(serving)) {
                add(&mut report.outdated, owners);
            }
        }
    }

    /// Notes the owners to which a restart would do no good: none of their pods would be injected again.
    fn report_unrepeatable<'a>(&'a self, reasons: &mut Uninjectable<'a>, report: &mut PodReport) {
        let mut repeatable: BTreeSet<&WorkloadRef> = BTreeSet::new();
        let mut unrepeatable: BTreeMap<&WorkloadRef, (usize, NotAgain)> = BTreeMap::new();
        for (owner, pods) in self.created.values().flatten() {
            for (created, pods) in pods {
                let why = if created.is_selected {
                    reasons.of(&created.outline).map(NotAgain::Uninjectable)
                } else {
                    Some(NotAgain::NotSelected)
                };
                match why {
                    None => drop(repeatable.insert(owner)),
                    Some(why) => unrepeatable.entry(owner).or_insert((0, why)).0 += pods,
                }
            }
        }
        let missed = [
            &report.missed,
            &report.orphaned.owners,
            &report.of_others.owners,
        ];
        unrepeatable.retain(|owner, _| {
            let is_behind =
                report.stale.contains_key(*owner) || report.uncovered.contains_key(*owner);
            let is_missed = missed.iter().any(|missed| missed.contains_key(*owner));
            is_behind && !is_missed && !repeatable.contains(owner)
        });
        let unrepeatable = unrepeatable.into_iter();
        report.unrepeatable = unrepeatable
            .map(|(owner, why)| (owner.clone(), why))
            .collect();
    }
}

/// Why pods cannot be injected, by their outlines. Few outlines differ, however many owners there are.
struct Uninjectable<'a> {
    recipe: Option<&'a Recipe>,
    known: BTreeMap<&'a Arc<str>, Option<Reason>>,
}

impl<'a> Uninjectable<'a> {
    fn by(recipe: Option<&'a Recipe>) -> Self {
        Self {
            recipe,
            known: BTreeMap::new(),
        }
    }

    fn of(&mut self, outline: &'a Arc<str>) -> Option<Reason> {
        let recipe = self.recipe;
        let why_not = || why_not_outlined(outline, recipe?);
        self.known.entry(outline).or_insert_with(why_not).clone()
    }
}

impl PodReport {
    fn add_missed(
        &mut self,
        owner: &WorkloadRef,
        missed: &Missed,
        pods: usize,
        why_not: Option<&Reason>,
    ) {
        self.counts.missed += number(pods);
        if matches!(missed.injected_by, InjectedBy::Gone(_)) {
            self.counts.orphaned += number(pods);
        }
        if let Some(reason) = why_not {
            self.counts.uninjectable += number(pods);
            let known = self.uninjectable.entry(owner.clone());
            known.or_insert_with(|| (0, reason.clone())).0 += pods;
            return;
        }
        match &missed.injected_by {
            InjectedBy::None => *self.missed.entry(owner.clone()).or_default() += pods,
            InjectedBy::Other(agent) => self.of_others.add(owner, agent, pods),
            InjectedBy::Gone(agent) => self.orphaned.add(owner, agent, pods),
        }
    }
}

fn number(pods: usize) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

fn add<T>(to: &mut BTreeMap<WorkloadRef, usize>, owners: &ByOwner<T>) {
    for (owner, pods) in owners {
        *to.entry(owner.clone()).or_default() += pods.values().sum::<usize>();
    }
}

/// Counts the pods of one `OtelAgent`, known by `label`.
///
/// `selection` and `exclusions` say which pods should be injected; the caller leaves out system namespaces.
/// `exists` says whether there is an `OtelAgent` with a label that may act on a namespace: without one, what a
/// pod was injected for is gone. Terminating pods use their route but are neither stale nor missed: they need
/// no action.
pub fn count<'a>(
    label: &str,
    selection: Option<&Selection>,
    exclusions: &[Selection],
    coverage: &Coverage,
    exists: impl Fn(&str, &str) -> bool,
    pods: impl IntoIterator<Item = LivePod<'a>>,
) -> PodTally {
    let mut tally = PodTally::default();
    for pod in pods {
        let injected_by = pod.labels.get(names::LABEL_AGENT);
        if injected_by.is_some_and(|agent| agent == label) {
            let is_selected = is_selected(&pod, selection, exclusions);
            count_injected(&mut tally, &pod, coverage, is_selected);
        } else if !pod.terminating && is_selected(&pod, selection, exclusions) {
            let injected_by = match injected_by {
                None => InjectedBy::None,
                Some(agent) if exists(agent, pod.namespace) => InjectedBy::Other(agent.clone()),
                Some(agent) => InjectedBy::Gone(agent.clone()),
            };
            let missed = Missed {
                injected_by,
                outline: pod.outline.clone(),
            };
            let of_owner = tally.missed.entry(owner(&pod)).or_default();
            *of_owner.entry(missed).or_default() += 1;
        }
    }
    tally
}

fn count_injected(tally: &mut PodTally, pod: &LivePod<'_>, coverage: &Coverage, is_selected: bool) {
    let report = &mut tally.counted;
    let mode = pod.labels.get(names::LABEL_MODE);
    let mode = mode.and_then(|mode| Mode::parse(mode));
    if let Some(mode) = mode {
        *report.users.entry(mode).or_default() += 1;
    }
    if pod.terminating {
        return;
    }
    report.counts.injected += 1;
    if let Some(mode) = mode {
        *report.counts.by_mode.entry(mode.to_string()).or_default() += 1;
        *report.ready.entry(mode).or_default() += i32::from(pod.ready);
    }
    if let Some((mode, node)) = mode.zip(pod.node)
        && !coverage.covers(mode, node)
    {
        report.counts.uncovered += 1;
        let owner = owner(pod);
        *report.uncovered.entry(owner.clone()).or_default() += 1;
        report.uncovered_nodes.insert(node.to_owned());
        let nodes = report.uncovered_on.entry(owner).or_default();
        nodes.insert(node.to_owned());
    }
    let recipe = pod.labels.get(names::LABEL_CONFIG).cloned();
    let created = Created {
        is_selected,
        outline: pod.outline.clone(),
    };
    let of_recipe = tally.created.entry((mode, recipe)).or_default();
    let of_owner = of_recipe.entry(owner(pod)).or_default();
    *of_owner.entry(created).or_default() += 1;
}

fn is_selected(pod: &LivePod<'_>, selection: Option<&Selection>, exclusions: &[Selection]) -> bool {
    let matches =
        |selection: &Selection| selection.matches(pod.namespace, pod.namespace_labels, pod.labels);
    selection.is_some_and(matches) && !exclusions.iter().any(matches)
}

fn owner(pod: &LivePod<'_>) -> WorkloadRef {
    owner_of(pod.namespace, pod.name, pod.labels, pod.controller)
}

/// The owner a person knows: the outermost workload, such as the `Deployment` behind a `ReplicaSet`, else the
/// controller, else the pod itself.
pub fn owner_of(
    namespace: &str,
    name: &str,
    labels: &BTreeMap<String, String>,
    controller: Option<&Controller>,
) -> WorkloadRef {
    let owner = |api_version: &str, kind: &str, name: &str| WorkloadRef {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: namespace.into(),
        name: name.into(),
    };
    let Some(controller) = controller else {
        return owner("v1", "Pod", name);
    };
    let Controller {
        api_version,
        kind,
        name,
    } = controller;
    let label = |key: &str| labels.get(key).map(String::as_str);
    // The annotations that may name an owner are not cached; a label says the same.
    match owners::above(kind, name, label, |_| None).first() {
        // What makes a ReplicaSet of another group is no Deployment that can be restarted.
        Some(above) if above.kind == "Deployment" => owner(api_version, above.kind, above.name),
        Some(above) => owner(above.api_version, above.kind, above.name),
        None => owner(api_version, kind, name),
    }
}

#[cfg(test)]
mod tests;
