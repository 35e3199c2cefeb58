//! The pods that use, or should use, the agent.

use std::collections::BTreeMap;

use otelagent_api::Mode;
use otelagent_core::names;
use serde_json::Value;

use super::agents::on_nodes;
use super::checker::{Allowed, StatusChecker};
use super::quotes;
use super::read::{is_finished, is_terminating, items, label, text};
use super::selection::Claim;
use super::view::{ClusterView, controller, distinct};

/// Live pods by what they are to the checked `OtelAgent`.
pub(super) struct Pods<'a> {
    pub(super) injected: Vec<&'a Value>,
    /// Injected pods that are being deleted: no longer live, and users of their route until they are gone.
    pub(super) ending: Vec<&'a Value>,
    pub(super) missed: Vec<&'a Value>,
    /// Pods that the documentation lets the operator count as missed or not: where a refused spec may leave another
    /// selection active.
    pub(super) perhaps_missed: Vec<&'a Value>,
}

/// Whether the documentation lets a mode inject a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Injectable {
    Yes,
    No,
    /// It depends on the recipe.
    Perhaps,
}

impl<'a> Pods<'a> {
    /// Missed pods that a restart would inject.
    pub(super) fn repairable<'b>(
        &'b self,
        view: &'b ClusterView,
    ) -> impl Iterator<Item = &'a Value> + 'b {
        let missed = self.missed.iter().copied();
        missed.filter(|pod| view.injectable(pod) == Injectable::Yes)
    }
}

impl ClusterView {
    pub(super) fn sorted_pods(&self) -> Pods<'_> {
        let mut pods = Pods {
            injected: Vec::new(),
            ending: Vec::new(),
            missed: Vec::new(),
            perhaps_missed: Vec::new(),
        };
        for pod in self.pods.iter().filter(|pod| !is_finished(pod)) {
            if self.is_injected(pod) {
                if is_terminating(pod) {
                    pods.ending.push(pod);
                } else {
                    pods.injected.push(pod);
                }
                continue;
            }
            if is_terminating(pod) {
                continue;
            }
            if self.is_agent(pod) {
                continue;
            }
            match self.claim(pod) {
                Claim::NotOurs => {}
                Claim::Ours if label(pod, names::LABEL_OWNER).is_none() => {
                    pods.missed.push(pod);
                }
                Claim::Ours | Claim::Open => pods.perhaps_missed.push(pod),
            }
        }
        pods
    }

    /// Whether a pod could be injected in the serving mode, by the tables of docs/pods.md.
    pub(super) fn injectable(&self, pod: &Value) -> Injectable {
        let spec = &pod["spec"];
        let mode = self.agent["status"]["mode"].as_str();
        let mode = mode.unwrap_or_else(|| self.wanted());
        let is_windows = text(spec, "/os/name") == "windows"
            || spec["nodeSelector"]["kubernetes.io/os"] == "windows";
        let collector = &pod["metadata"]["annotations"]["sidecar.opentelemetry.io/inject"];
        let has_collector = !matches!(collector.as_str(), None | Some("" | "false"));
        let on_host = spec["hostNetwork"] == true;
        let resolves = match text(spec, "/dnsPolicy") {
            "Default" => false,
            "None" => items(&spec["dnsConfig"]["searches"]).next().is_some(),
            "" | "ClusterFirst" => !on_host,
            _ => true,
        };
        let certain = is_windows
            || has_collector
            || mode == "NodeLocal" && !resolves
            || mode == "Sidecar" && (on_host || !spec["resources"].is_null());
        let containers = items(&spec["containers"]).chain(items(&spec["initContainers"]));
        let mut containers = containers.chain(items(&spec["volumes"]));
        let may_clash = containers
            .any(|item| !item["ports"].is_null() || text(item, "/name").starts_with("otelagent"));
        match (certain, mode == "Sidecar" && (may_clash || !resolves)) {
            (true, _) => Injectable::No,
            (false, true) => Injectable::Perhaps,
            (false, false) => Injectable::Yes,
        }
    }

    /// Injected pods on a node where no agent of their mode is ready. A sidecar is in its pod and on no node.
    pub(super) fn uncovered(&self) -> Vec<&Value> {
        let covered: BTreeMap<&str, Vec<&str>> = Mode::ALL
            .map(|mode| (mode.as_str(), self.covered_nodes(mode.as_str())))
            .into();
        let injected = self.sorted_pods().injected.into_iter();
        injected
            .filter(|pod| {
                let node = text(pod, "/spec/nodeName");
                let mode = label(pod, names::LABEL_MODE).unwrap_or_default();
                let is_covered = covered.get(mode).is_some_and(|nodes| nodes.contains(&node));
                on_nodes(mode) && !node.is_empty() && !is_covered
            })
            .collect()
    }
}

impl StatusChecker<'_> {
    /// Checks every count of pods.
    pub(super) fn pods(&mut self) {
        let pods = self.view.sorted_pods();
        let injected = pods.injected.len();
        self.count(
            "pods.injected",
            Allowed::exactly(injected),
            quotes::PODS_INJECTED,
        );
        let missed = pods.missed.len();
        let missed = Allowed::between(missed, missed + pods.perhaps_missed.len());
        self.count("pods.missed", missed, quotes::PODS_MISSED);
        self.orphaned_and_uninjectable(&pods);
        let uncovered = Allowed::exactly(self.view.uncovered().len());
        self.count("pods.uncovered", uncovered, quotes::PODS_UNCOVERED);
        self.current_and_stale(&pods.injected);
        self.by_mode(&pods.injected);
    }

    fn orphaned_and_uninjectable(&mut self, pods: &Pods<'_>) {
        let view = self.view;
        let orphans = view.orphaned();
        let is_orphaned = |pod: &Value| orphans.iter().any(|orphan| std::ptr::eq(*orphan, pod));
        let certain = pods.missed.iter().filter(|pod| is_orphaned(pod)).count();
        // Whether an OtelAgent that exists may act on the pod's namespace, no object says.
        let marked = |pod: &&&Value| label(pod, names::LABEL_AGENT).is_some();
        let most = pods
            .missed
            .iter()
            .chain(&pods.perhaps_missed)
            .filter(marked)
            .count();
        let orphaned = Allowed::between(certain, most);
        self.count("pods.orphaned", orphaned, quotes::PODS_ORPHANED);
        let of = |kind| {
            pods.missed
                .iter()
                .filter(move |pod| view.injectable(pod) == kind)
                .count()
        };
        let least = of(Injectable::No);
        let most = least + of(Injectable::Perhaps) + pods.perhaps_missed.len();
        let uninjectable = Allowed::between(least, most);
        self.count("pods.uninjectable", uninjectable, quotes::PODS_UNINJECTABLE);
    }

    fn current_and_stale(&mut self, injected: &[&Value]) {
        let stale = injected.iter().filter(|pod| self.is_stale(pod)).count();
        let (current, stale) = match (self.mode(), self.view.configuration()) {
            (Some(_), None) => {
                // Nothing says which configuration is the serving one; the two counts still make up all.
                let current = self.number("pods.current").unwrap_or_default();
                (
                    Allowed::between(0, injected.len()),
                    Allowed::exactly(injected.len().saturating_sub(current)),
                )
            }
            _ => (
                Allowed::exactly(injected.len() - stale),
                Allowed::exactly(stale),
            ),
        };
        self.count("pods.current", current, quotes::PODS_CURRENT);
        self.count("pods.stale", stale, quotes::PODS_STALE);
    }

    /// Whether an injected pod has another mode than the serving one, or another configuration.
    pub(super) fn is_stale(&self, pod: &Value) -> bool {
        self.mode().is_none()
            || label(pod, names::LABEL_MODE) != self.mode()
            || label(pod, names::LABEL_CONFIG) != self.view.configuration()
    }

    fn by_mode(&mut self, injected: &[&Value]) {
        let mut modes: Vec<&str> = Mode::ALL.map(Mode::as_str).into();
        let said = self.field("pods.byMode").as_object().into_iter().flatten();
        modes.extend(said.map(|(mode, _)| mode.as_str()));
        for mode in distinct(modes.into_iter()) {
            let pods = injected
                .iter()
                .filter(|pod| label(pod, names::LABEL_MODE) == Some(mode))
                .count();
            let field = format!("pods.byMode.{mode}");
            let found = self.field(&field);
            let holds = found.as_u64().unwrap_or_default() == pods as u64;
            self.require(holds, &field, pods.to_string(), quotes::PODS_BY_MODE);
        }
    }
}

/// Names by which a condition can name the workload of a pod: that of its controller, that of the controller above it
/// (whose name the controller's begins with), and the pod's own.
pub(super) fn workload_names(pod: &Value) -> Vec<String> {
    let owner = text(controller(pod), "/name");
    let mut names = vec![text(pod, "/metadata/name").to_owned()];
    if !owner.is_empty() {
        names.push(owner.to_owned());
        names.extend(owner.rsplit_once('-').map(|(above, _)| above.to_owned()));
    }
    names
}
