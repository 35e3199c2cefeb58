//! Counts the pods of an `OtelAgent`: injected, current, stale, missed, uncovered; and says who owns them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::inject::Selection;
use crate::names;
use otelagent_api::{Mode, PodCounts};

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
    /// Owners of missed pods, with their number.
    pub missed: BTreeMap<WorkloadRef, usize>,
    /// Owners of uncovered pods, with their number.
    pub uncovered: BTreeMap<WorkloadRef, usize>,
    /// Nodes on which uncovered pods run.
    pub uncovered_nodes: BTreeSet<String>,
}

/// The pods of one `OtelAgent`, before it is known which of them are current.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTally {
    /// Everything but what depends on the serving recipe.
    counted: PodReport,
    /// Live injected pods that are not terminating, by mode and recipe, with their owners.
    created: BTreeMap<(Option<Mode>, Option<String>), BTreeMap<WorkloadRef, usize>>,
}

impl PodTally {
    /// Live pods by mode, terminating ones included: they still use their route.
    pub fn users(&self) -> &BTreeMap<Mode, usize> {
        &self.counted.users
    }

    /// The counts while new pods get `serving`: the mode and the hash of the active recipe.
    pub fn report(&self, serving: Option<(Mode, &str)>) -> PodReport {
        let mut report = self.counted.clone();
        for ((mode, recipe), owners) in &self.created {
            let pods = owners.values().sum::<usize>();
            let pods = i32::try_from(pods).unwrap_or(i32::MAX);
            let created_with = mode.zip(recipe.as_deref());
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
        report
    }
}

fn add(to: &mut BTreeMap<WorkloadRef, usize>, owners: &BTreeMap<WorkloadRef, usize>) {
    for (owner, pods) in owners {
        *to.entry(owner.clone()).or_default() += pods;
    }
}

/// Counts the pods of one `OtelAgent`, known by `label`.
///
/// `selection` and `exclusions` say which pods should be injected; the caller leaves out system namespaces.
/// Terminating pods use their route but are neither stale nor missed: they need no action.
pub fn count<'a>(
    label: &str,
    selection: Option<&Selection>,
    exclusions: &[Selection],
    coverage: &Coverage,
    pods: impl IntoIterator<Item = LivePod<'a>>,
) -> PodTally {
    let mut tally = PodTally::default();
    for pod in pods {
        let injected_by = pod.labels.get(names::LABEL_AGENT);
        if injected_by.is_some_and(|agent| agent == label) {
            count_injected(&mut tally, &pod, coverage);
        } else if injected_by.is_none()
            && !pod.terminating
            && is_selected(&pod, selection, exclusions)
        {
            tally.counted.counts.missed += 1;
            *tally.counted.missed.entry(owner(&pod)).or_default() += 1;
        }
    }
    tally
}

fn count_injected(tally: &mut PodTally, pod: &LivePod<'_>, coverage: &Coverage) {
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
        *report.uncovered.entry(owner(pod)).or_default() += 1;
        report.uncovered_nodes.insert(node.to_owned());
    }
    let recipe = pod.labels.get(names::LABEL_CONFIG).cloned();
    let created = tally.created.entry((mode, recipe)).or_default();
    *created.entry(owner(pod)).or_default() += 1;
}

fn is_selected(pod: &LivePod<'_>, selection: Option<&Selection>, exclusions: &[Selection]) -> bool {
    let matches =
        |selection: &Selection| selection.matches(pod.namespace, pod.namespace_labels, pod.labels);
    selection.is_some_and(matches) && !exclusions.iter().any(matches)
}

/// The owner a person knows: the `Deployment` behind a `ReplicaSet`, else the controller, else the pod
/// itself.
fn owner(pod: &LivePod<'_>) -> WorkloadRef {
    let owner = |api_version: &str, kind: &str, name: &str| WorkloadRef {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: pod.namespace.into(),
        name: name.into(),
    };
    let Some(controller) = pod.controller else {
        return owner("v1", "Pod", pod.name);
    };
    let hash = pod.labels.get("pod-template-hash");
    let deployment = hash.and_then(|hash| controller.name.strip_suffix(&format!("-{hash}")));
    match deployment {
        Some(name) if controller.kind == "ReplicaSet" => {
            owner(&controller.api_version, "Deployment", name)
        }
        _ => owner(&controller.api_version, &controller.kind, &controller.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inject::Namespaces;
    use otelagent_api::Selector;

    fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        let owned = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        owned.into()
    }

    /// Labels of a pod that this agent injected.
    fn created(mode: &'static str, recipe: &'static str) -> [(&'static str, &'static str); 3] {
        [
            (names::LABEL_AGENT, "a.b"),
            (names::LABEL_MODE, mode),
            (names::LABEL_CONFIG, recipe),
        ]
    }

    fn controller(kind: &str, name: &str) -> Controller {
        Controller {
            kind: kind.into(),
            name: name.into(),
            api_version: "apps/v1".into(),
        }
    }

    static NONE: BTreeMap<String, String> = BTreeMap::new();

    fn pod<'a>(
        labels: &'a BTreeMap<String, String>,
        controller: Option<&'a Controller>,
    ) -> LivePod<'a> {
        LivePod {
            namespace: "shop",
            namespace_labels: &NONE,
            labels,
            name: "cart-7d4b9-x",
            node: Some("n1"),
            controller,
            terminating: false,
            ready: true,
        }
    }

    fn count_one<const N: usize>(pod_labels: [(&str, &str); N], terminating: bool) -> PodReport {
        let pod_labels = labels(pod_labels);
        let deployment = controller("Deployment", "cart");
        let pod = LivePod {
            terminating,
            ..pod(&pod_labels, Some(&deployment))
        };
        let all = Selection {
            namespaces: Namespaces::Labelled(Selector::default()),
            pods: Selector::default(),
        };
        let coverage = covered_on("n1", &[Mode::HostPort, Mode::NodeLocal]);
        let tally = count("a.b", Some(&all), &[], &coverage, [pod]);
        tally.report(Some((Mode::HostPort, "r2")))
    }

    #[test]
    fn pod_with_the_serving_mode_and_recipe_is_current() {
        let counts = count_one(created("HostPort", "r2"), false).counts;
        assert_eq!(
            (counts.injected, counts.current, counts.stale, counts.missed),
            (1, 1, 0, 0)
        );
    }

    #[test]
    fn pod_with_an_older_mode_or_recipe_is_stale() {
        for (mode, recipe) in [("NodeLocal", "r2"), ("HostPort", "r1")] {
            let report = count_one(created(mode, recipe), false);
            let counts = (report.counts.current, report.counts.stale);
            assert_eq!(counts, (0, 1), "{mode} {recipe}");
            let owner = WorkloadRef::of_shop("Deployment", "cart");
            assert_eq!(report.stale, BTreeMap::from([(owner, 1)]));
        }
    }

    #[test]
    fn selected_pod_without_label_is_missed_unless_opted_out_or_terminating() {
        assert_eq!(count_one([], false).counts.missed, 1);
        let opted_out = (names::LABEL_INJECT, "false");
        assert_eq!(count_one([opted_out], false).counts.missed, 0);
        assert_eq!(count_one([], true).counts.missed, 0);
        let of_another = (names::LABEL_AGENT, "other");
        assert_eq!(count_one([of_another], false).counts.missed, 0);
    }

    #[test]
    fn owner_is_the_deployment_behind_the_replica_set() {
        let hashed = labels([("pod-template-hash", "7d4b9")]);
        let name = |controller: Option<&Controller>| owner(&pod(&hashed, controller)).to_string();
        let replica_set = controller("ReplicaSet", "cart-7d4b9");
        assert_eq!(name(Some(&replica_set)), "Deployment shop/cart");
        let stateful_set = controller("StatefulSet", "db");
        assert_eq!(name(Some(&stateful_set)), "StatefulSet shop/db");
        assert_eq!(name(None), "Pod shop/cart-7d4b9-x");
    }

    /// Agents of these modes are ready on one of two Ready nodes.
    fn covered_on(node: &str, modes: &[Mode]) -> Coverage {
        let ready = BTreeSet::from([node.to_owned()]);
        Coverage {
            nodes: ["n1", "n2"].map(str::to_owned).into(),
            ready: modes.iter().map(|mode| (*mode, ready.clone())).collect(),
            anywhere: BTreeSet::new(),
        }
    }

    #[test]
    fn pod_is_uncovered_where_no_agent_of_its_own_mode_is_ready() {
        let coverage = covered_on("n1", &[Mode::HostPort, Mode::NodeLocal]);
        assert!(coverage.covers(Mode::HostPort, "n1"));
        assert!(!coverage.covers(Mode::HostPort, "n2"), "on another node");
        assert!(!coverage.covers(Mode::HostNetwork, "n1"), "of another mode");
        assert!(coverage.covers(Mode::Sidecar, "n2"), "it has its own");
        assert!(coverage.covers(Mode::HostPort, "n3"), "down: no pod sends");
    }

    #[test]
    fn any_nodes_agent_covers_pods_when_the_service_may_leave_the_node() {
        let mut coverage = covered_on("n1", &[Mode::NodeLocal]);
        coverage.anywhere.insert(Mode::NodeLocal);
        assert!(coverage.covers(Mode::NodeLocal, "n2"));
        coverage.ready.clear();
        assert!(!coverage.covers(Mode::NodeLocal, "n2"));
    }

    #[test]
    fn uncovered_pod_counts_as_current_or_stale_too() {
        let injected = labels(created("HostPort", "r2"));
        let set = controller("StatefulSet", "db");
        let pods = [Some("n1"), Some("n2"), None].map(|node| LivePod {
            node,
            ..pod(&injected, Some(&set))
        });
        let coverage = covered_on("n1", &[Mode::HostPort]);
        let tally = count("a.b", None, &[], &coverage, pods);
        let report = tally.report(Some((Mode::HostPort, "r2")));
        assert_eq!((report.counts.current, report.counts.uncovered), (3, 1));
        let owner = WorkloadRef::of_shop("StatefulSet", "db");
        assert_eq!(report.uncovered, BTreeMap::from([(owner, 1)]));
        assert_eq!(report.uncovered_nodes, BTreeSet::from(["n2".to_owned()]));
    }

    #[test]
    fn stale_pods_of_the_serving_mode_are_outdated() {
        assert_eq!(
            count_one(created("HostPort", "r1"), false).outdated.len(),
            1
        );
        assert_eq!(
            count_one(created("NodeLocal", "r1"), false).outdated.len(),
            0
        );
    }

    #[test]
    fn terminating_pod_still_uses_its_route() {
        let report = count_one(created("NodeLocal", "r1"), true);
        assert_eq!(report.users, BTreeMap::from([(Mode::NodeLocal, 1)]));
        assert_eq!(report.counts.injected, 0);
    }
}
