//! Conditions, as far as the documentation decides them.

use otelagent_core::names;
use serde_json::Value;

use super::agents::on_nodes;
use super::checker::StatusChecker;
use super::pods::{Injectable, workload_names};
use super::quotes;
use super::read::{is_ready, items, label, text};
use super::view::distinct;

const ALWAYS: [&str; 5] = ["Accepted", "Ready", "Switching", "Injected", "Delivering"];

const SOMETIMES: [&str; 3] = ["Restarting", "Reconciling", "Stalled"];

/// How many `OtelAgent`s of a namespace that is no platform namespace the operator uses.
const QUOTA: usize = 20;

impl StatusChecker<'_> {
    /// Checks every condition but `Restarting`.
    pub(super) fn conditions(&mut self) {
        self.form();
        self.accepted();
        self.ready();
        self.switching();
        self.progress();
        self.injected();
        self.names();
    }

    fn form(&mut self) {
        let all: Vec<&Value> = items(self.field("conditions")).collect();
        let kinds = distinct(all.iter().map(|condition| text(condition, "/type")));
        let is_known = |kind: &&str| ALWAYS.contains(kind) || SOMETIMES.contains(kind);
        let holds = kinds.len() == all.len()
            && kinds.iter().all(is_known)
            && ALWAYS.iter().all(|kind| kinds.contains(kind));
        self.require(
            holds,
            "conditions",
            "each documented condition once",
            quotes::CONDITIONS,
        );
        let generation = &self.view.agent["metadata"]["generation"];
        for kind in kinds {
            let condition = self.condition(kind);
            let is_formed = ["True", "False", "Unknown"].contains(&text(condition, "/status"))
                && ["/reason", "/message"]
                    .iter()
                    .all(|part| !text(condition, part).is_empty());
            self.require_condition(
                is_formed,
                kind,
                "a status, a reason and a message",
                quotes::CONDITION,
            );
            let is_present = condition["observedGeneration"] == *generation;
            self.require_condition(
                is_present,
                kind,
                format!("of generation {generation}"),
                quotes::CONDITION_OF_GENERATION,
            );
        }
    }

    fn accepted(&mut self) {
        if self.has_reason("Accepted", "TooManyInNamespace") {
            let key = |agent: &Value| {
                ["creationTimestamp", "name"].map(|key| {
                    agent["metadata"][key]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned()
                })
            };
            let agent = &self.view.agent;
            let older = self.view.agents.iter().filter(|other| {
                other["metadata"]["namespace"] == agent["metadata"]["namespace"]
                    && key(other) < key(agent)
            });
            let holds = older.count() >= QUOTA && self.is("Accepted", "False");
            self.require_condition(holds, "Accepted", "another reason", quotes::OVER_QUOTA);
        }
    }

    fn ready(&mut self) {
        let unserved = self.unserved();
        let holds = unserved.is_none() || !self.is("Ready", "True");
        self.require_condition(
            holds,
            "Ready",
            format!("not True: {}", unserved.as_deref().unwrap_or_default()),
            quotes::READY,
        );
        let is_certain =
            unserved.is_none() && self.is("Accepted", "True") && !self.may_be_unserved();
        self.require_condition(
            !is_certain || self.is("Ready", "True"),
            "Ready",
            "True",
            quotes::READY,
        );
    }

    /// Why a pod created now is certainly not served.
    fn unserved(&self) -> Option<String> {
        let view = self.view;
        let Some(mode) = self.mode() else {
            return Some("no mode serves".into());
        };
        let selects = view.agent["spec"]["workloads"].is_object();
        let not_injected = view.no_injection();
        if selects && self.is("Accepted", "True") && not_injected.is_some() {
            return not_injected.map(Into::into);
        }
        if !on_nodes(mode) {
            return None;
        }
        let Some(set) = view.daemon_set(mode) else {
            return Some("the serving mode has no DaemonSet".into());
        };
        if mode == "NodeLocal" && view.service().is_none() {
            return Some("the serving mode has no Service".into());
        }
        let desired = set["status"]["desiredNumberScheduled"]
            .as_u64()
            .unwrap_or_default();
        let desired = usize::try_from(desired).unwrap_or_default();
        if desired > 0 && view.covered_nodes(mode).is_empty() {
            return Some("no agent of the serving mode is ready".into());
        }
        let (silent, tolerated) = (view.silent_nodes(mode), view.tolerated_nodes(desired));
        (silent.len() > tolerated)
            .then(|| format!("no agent is ready on {silent:?}, and maxUnready is {tolerated}"))
    }

    /// Whether the documentation leaves open that a pod created now is served, such as where the scheduler may put it
    /// on a node that the agents leave out.
    fn may_be_unserved(&self) -> bool {
        let view = self.view;
        let mode = self.mode().unwrap_or_default();
        let all_agents = ["ready", "updated"]
            .iter()
            .all(|count| self.field(&format!("agents.{count}")) == self.field("agents.desired"));
        let covered = view.covered_nodes(mode);
        let mut up = view.nodes.iter().filter(|node| is_ready(node));
        let is_everywhere =
            !covered.is_empty() && up.all(|node| covered.contains(&text(node, "/metadata/name")));
        on_nodes(mode) && !(all_agents && is_everywhere)
            || view.has_taken_name()
            || self.is("Injected", "False") && view.sorted_pods().missed.is_empty()
    }

    fn switching(&mut self) {
        if !self.is("Accepted", "True") {
            return;
        }
        let view = self.view;
        let wanted = view.wanted();
        let pods = view.sorted_pods();
        let users = pods.injected.iter().chain(&pods.ending);
        let is_older =
            |pod: &Value| label(pod, names::LABEL_MODE).is_some_and(|mode| mode != wanted);
        let users = users.filter(|pod| is_older(pod));
        let older: Vec<&str> = users
            .filter_map(|pod| label(pod, names::LABEL_MODE))
            .collect();
        let existing = view
            .own_daemon_sets()
            .filter_map(|set| label(set, names::LABEL_WORKLOAD));
        let routes = distinct(
            older
                .iter()
                .copied()
                .chain(existing.filter(|mode| *mode != wanted)),
        );
        let serves = self.mode() == Some(wanted);
        let moves = !serves || !routes.is_empty();
        let expected = if moves {
            format!("True: {wanted} is wanted, {routes:?} exist or are used")
        } else {
            format!("not True: only {wanted} exists and is used")
        };
        let holds = self.is("Switching", "True") == moves;
        self.require_condition(holds, "Switching", expected, quotes::SWITCHING);
        if serves && !older.is_empty() && distinct(older.iter().copied()).len() == 1 {
            let reported = numbers(text(self.condition("Switching"), "/message"));
            let live = pods.injected.iter().filter(|pod| is_older(pod)).count();
            let holds = (live..=older.len()).any(|holders| reported.contains(&holders));
            let expected = format!("a message that says {}", older.len());
            self.require_condition(holds, "Switching", expected, quotes::USERS);
        }
    }

    /// What kstatus reads.
    fn progress(&mut self) {
        let is_refused = !self.is("Accepted", "True");
        let holds = self.is("Stalled", "True") == is_refused
            && (is_refused || self.condition("Stalled").is_null());
        let expected = "True while the spec is refused, else absent";
        self.require_condition(holds, "Stalled", expected, quotes::STALLED);
        let is_underway = !is_refused && self.mode() != Some(self.view.wanted());
        let reconciling = self.condition("Reconciling");
        let holds = (!is_underway || self.is("Reconciling", "True"))
            && (reconciling.is_null() || self.is("Reconciling", "True") && !is_refused);
        let expected = format!("True: {is_underway}, else absent");
        self.require_condition(holds, "Reconciling", expected, quotes::RECONCILING);
    }

    fn injected(&mut self) {
        let view = self.view;
        let pods = view.sorted_pods();
        let selects = view.agent["spec"]["workloads"].is_object();
        let is_nothing = selects && view.selected_namespaces(&view.agent).is_empty();
        // While a spec is refused, what ran before it goes on, with what that selects.
        let is_accepted = self.is("Accepted", "True");
        let problem = match (view.no_injection(), pods.repairable(view).count()) {
            (Some(why), _) if selects => Some(why.to_owned()),
            (_, missed) if missed > 0 => Some(format!("{missed} pods were missed")),
            _ if is_nothing && is_accepted => Some("it selects no namespace".to_owned()),
            _ => None,
        };
        let expected = format!("not True: {}", problem.as_deref().unwrap_or_default());
        let holds = problem.is_none() || !self.is("Injected", "True");
        self.require_condition(holds, "Injected", expected, quotes::INJECTED);
        let has_limits = self.has_limits();
        let is_certain = selects
            && is_accepted
            && problem.is_none()
            && pods.perhaps_missed.is_empty()
            && pods
                .missed
                .iter()
                .all(|pod| view.injectable(pod) == Injectable::No)
            && !has_limits
            && !view.may_overlap();
        let holds = !is_certain || self.is("Injected", "True");
        self.require_condition(holds, "Injected", "True", quotes::INJECTED);
        if self.has_reason("Injected", "OlderConfiguration") {
            let stale = pods.injected.iter().any(|pod| self.is_stale(pod));
            let holds = stale && self.is("Injected", "True");
            self.require_condition(holds, "Injected", "another reason", quotes::OLDER);
        }
        if self.has_reason("Injected", "PodsNotInjectable") {
            let missed = pods.missed.iter().chain(&pods.perhaps_missed).next();
            let holds = missed.is_some() && self.is("Injected", "True");
            self.require_condition(holds, "Injected", "another reason", quotes::NO_ALARM);
        }
        if self.has_reason("Injected", "SelectsNothing") {
            let holds = (is_nothing || !is_accepted) && self.is("Injected", "False");
            self.require_condition(holds, "Injected", "another reason", quotes::NOTHING);
        }
        let is_refusal = self.has_reason("Injected", "PodsRefused");
        let holds = !is_refusal || has_limits && self.is("Injected", "False");
        self.require_condition(holds, "Injected", "another reason", quotes::REFUSED);
    }

    /// Whether a limit range or a quota may keep a sidecar out of a selected namespace.
    fn has_limits(&self) -> bool {
        let view = self.view;
        let selected = view.selected_namespaces(&view.agent);
        let is_sidecar = [self.mode().unwrap_or_default(), view.wanted()].contains(&"Sidecar");
        let mut namespaces = view
            .limits
            .iter()
            .map(|object| text(object, "/metadata/namespace"));
        is_sidecar && namespaces.any(|namespace| selected.contains(&namespace))
    }

    /// Pods that are behind are named by the workload that owns them.
    fn names(&mut self) {
        let pods = self.view.sorted_pods();
        let stale: Vec<&Value> = pods
            .injected
            .iter()
            .filter(|pod| self.is_stale(pod))
            .copied()
            .collect();
        let message = |kind: &str| text(self.condition(kind), "/message").to_owned();
        let of_injected = message("Injected");
        let of_all: String = ALWAYS.map(message).join("\n");
        let is_configured = self.view.configuration().is_some();
        let uncovered = self.view.uncovered();
        for (what, behind, said, why) in [
            ("missed", &pods.missed, &of_injected, quotes::MISSED),
            ("stale", &stale, &of_all, quotes::OWNERS),
            ("uncovered", &uncovered, &of_all, quotes::OWNERS),
        ] {
            if behind.is_empty() || what == "stale" && !is_configured {
                continue;
            }
            let is_named = behind
                .iter()
                .any(|pod| workload_names(pod).iter().any(|name| said.contains(name)));
            let expected = format!("an owner of the {what} pods");
            self.require_condition(is_named, "Injected", expected, why);
        }
    }
}

/// The whole numbers of a text.
fn numbers(text: &str) -> Vec<usize> {
    text.split(|char: char| !char.is_ascii_digit())
        .filter_map(|word| word.parse().ok())
        .collect()
}
