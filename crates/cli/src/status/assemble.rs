//! From what was read to the answer, by the functions with which the operator decides.

use std::collections::{BTreeMap, BTreeSet};

use otelagent_api::{Mode, OtelAgent, OtelAgentStatus, READY, Resource, Selector};
use otelagent_core::build::{Environment, build, selection, validate};
use otelagent_core::inject::{Namespaces, Recipe, Selection};
use otelagent_core::names;
use otelagent_core::pods::{
    Coverage, LivePod, PodTally, RestartAdvice, WhyMissed, WorkloadPods, WorkloadRef, count,
};
use otelagent_core::read::{Decoded, PartialPod};
use otelagent_core::reconcile::overlap::{KnownAgents, refusal};
use otelagent_core::status::is_as_wished;
use otelagent_core::switching::{
    AgentOnNode, AgentPod, AgentState, AgentWorkload, NodeStates, mode_served, serves,
};

use super::report::{
    AgentPodReport, AgentReport, AgentWorkloadReport, ConditionReport, MissedReport,
    NamespaceReport, NodeReport, StatusReport, WorkloadReport,
};
use crate::overlaps::Overlaps;
use crate::snapshot::{Key, Snapshot};

/// The answer for these `OtelAgent`s.
pub fn assemble(snapshot: &Snapshot, shown: &BTreeSet<Key>) -> StatusReport {
    let environment = snapshot.environment();
    let cluster = ClusterView {
        snapshot,
        environment: &environment,
        known: KnownAgents::of(snapshot.agents.values().map(Resource::meta), &environment),
        overlaps: Overlaps::of(snapshot, &environment),
        no_nodes: NodeStates::new(),
    };
    let agents = snapshot.agents.iter();
    let agents = agents.filter(|(key, _)| shown.contains(*key));
    let items: Vec<AgentReport> = agents
        .map(|(key, agent)| cluster.report(key, agent))
        .collect();
    StatusReport {
        notes: notes(snapshot, &items),
        items,
    }
}

/// What is not shown, and why.
fn notes(snapshot: &Snapshot, items: &[AgentReport]) -> Vec<String> {
    let missing = snapshot.missing.iter();
    let mut notes: Vec<String> = missing.map(|right| format!("not read: {right}")).collect();
    if snapshot.is_interrupted {
        notes.insert(
            0,
            "the connection was interrupted and is tried again; what is shown may be old".into(),
        );
    }
    if !snapshot.installation.is_known {
        notes.push(format!(
            "how the operator is installed is not known, so it is taken to be in namespace {} with its defaults",
            snapshot.installation.namespace
        ));
    }
    if snapshot.namespaces.is_none() {
        notes.push(
            "which namespaces are selected by their labels is not known, so only those are shown whose pods were injected"
                .into(),
        );
    }
    let is_blind = |workload: &WorkloadReport| workload.current.is_none();
    let namespaces = items.iter().flat_map(|item| &item.namespaces);
    let mut workloads = namespaces.flat_map(|namespace| &namespace.workloads);
    if workloads.any(is_blind) {
        notes.push(
            "which workloads are current and which stale is unknown (-): only the active binding says what new pods get"
                .into(),
        );
    }
    notes
}

fn key(agent: &OtelAgent) -> Key {
    let meta = agent.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// What was read, and what follows for all `OtelAgent`s.
struct ClusterView<'a> {
    snapshot: &'a Snapshot,
    environment: &'a Environment,
    known: KnownAgents<'a>,
    overlaps: Overlaps<'a>,
    no_nodes: NodeStates,
}

impl ClusterView<'_> {
    fn report(&self, key: &Key, decoded: &Decoded) -> AgentReport {
        let (namespace, name) = key.clone();
        let agent = match &decoded.agent {
            Ok(agent) => agent,
            Err(unreadable) => {
                let status = unreadable.status.as_ref();
                return AgentReport {
                    namespace,
                    name,
                    unreadable: Some(unreadable.why.clone()),
                    ..of_status(status, decoded.metadata.generation)
                };
            }
        };
        let label = names::agent_label(&namespace, &name);
        let workloads = self.agent_workloads(key, &label);
        let tally = self.pods(agent, key, &label);
        let serving = self.serving(agent, key, &tally);
        let recipe = self.recipe(agent, serving.as_ref().map(|(mode, _)| *mode));
        let serving = serving.as_ref().map(|(mode, hash)| (*mode, hash.as_str()));
        let left_out = self.left_out(&tally, &workloads);
        let pods = tally.workloads(serving, recipe.as_ref(), &left_out);
        let mut agent_workloads: Vec<AgentWorkloadReport> = workloads
            .iter()
            .map(|(mode, workload)| self.workload_report(&name, *mode, workload))
            .collect();
        agent_workloads.extend(sidecars(agent, &tally));
        let is_blind = snapshot_is_blind(self.snapshot, agent);
        AgentReport {
            namespace,
            name,
            wanted: Some(agent.spec.mode),
            upstream: Some(agent.spec.export.endpoint.clone()),
            agent_workloads,
            namespaces: if is_blind {
                Vec::new()
            } else {
                namespaces(&pods)
            },
            ..of_status(agent.status.as_ref(), decoded.metadata.generation)
        }
    }

    fn nodes(&self) -> &NodeStates {
        self.snapshot.nodes.as_ref().unwrap_or(&self.no_nodes)
    }

    /// The agent workloads on nodes, with their pods.
    fn agent_workloads(
        &self,
        (namespace, name): &Key,
        label: &str,
    ) -> BTreeMap<Mode, AgentWorkload> {
        let on_nodes = Mode::ALL.into_iter().filter(|mode| mode.on_nodes());
        let found = on_nodes.filter_map(|mode| {
            let object = names::agent_workload(name, mode.kebab());
            let object = self
                .snapshot
                .daemon_sets
                .get(&(namespace.clone(), object))?;
            let pods = self.snapshot.agents_of(namespace, label);
            let pods = pods.filter(|pod| serves(&pod.labels, label, mode));
            let pods = pods.map(agent_pod).collect();
            Some((mode, AgentWorkload::of(object, pods)))
        });
        found.collect()
    }

    /// The pods that use an `OtelAgent` or should, as the operator counts them.
    fn pods(&self, agent: &OtelAgent, (own, _): &Key, label: &str) -> PodTally {
        let environment = self.environment;
        let is_refused = refusal(agent).is_some();
        let selection = if is_refused {
            let active = self.snapshot.active_of(&key(agent));
            active.and_then(|active| active.selection.clone())
        } else {
            selection(agent)
        };
        let exclusions = self.overlaps.exclusions(agent);
        let (selection, selected) = self.as_far_as_known(selection, label);
        let reaches = |namespace: &str| namespace == own || environment.is_platform(own);
        let is_selected =
            |namespace: &str| selected.as_ref().is_none_or(|of| of.contains(namespace));
        let pods = self.snapshot.pods.iter().filter(|((namespace, _), seen)| {
            !seen.pod.mirror
                && !environment.is_excluded(namespace)
                && reaches(namespace)
                && is_selected(namespace)
        });
        let namespaces: BTreeSet<&str> = pods.clone().map(|((of, _), _)| of.as_str()).collect();
        let labels = namespaces.into_iter();
        let labels: BTreeMap<&str, _> = labels
            .map(|namespace| (namespace, self.snapshot.labels_of(namespace)))
            .collect();
        let live = pods.filter_map(|((namespace, name), seen)| {
            Some(LivePod {
                namespace,
                namespace_labels: labels.get(namespace.as_str())?,
                labels: &seen.pod.labels,
                name,
                node: seen.pod.node.as_deref().filter(|_| seen.pod.placed),
                controller: seen.pod.controller.as_ref(),
                terminating: seen.pod.terminating,
                ready: seen.pod.ready,
                outline: &seen.outline,
            })
        });
        let ready = self.snapshot.agents_of(own, label);
        let ready = ready.filter(|pod| pod.ready && pod.placed);
        let ready = ready.filter_map(|pod| mode_served(&pod.labels).zip(pod.node.as_deref()));
        let coverage = Coverage::of(self.nodes(), ready, agent.spec.node_local.routing);
        let exists = |label: &str, namespace: &str| self.known.reach(label, namespace);
        count(
            label,
            selection.as_ref(),
            &exclusions,
            &coverage,
            exists,
            live,
        )
    }

    /// A selection whose namespaces can be judged. Where the labels of namespaces may not be read, those count as selected
    /// that have pods which this `OtelAgent` injected.
    fn as_far_as_known(
        &self,
        selection: Option<Selection>,
        label: &str,
    ) -> (Option<Selection>, Option<BTreeSet<&str>>) {
        let is_by_labels = selection
            .as_ref()
            .is_some_and(Selection::is_by_namespace_labels);
        if self.snapshot.namespaces.is_some() || !is_by_labels {
            return (selection, None);
        }
        let selection = selection.map(|selection| Selection {
            namespaces: Namespaces::Labelled(Selector::default()),
            ..selection
        });
        let pods = self.snapshot.pods.iter();
        let injected = pods.filter(|(_, seen)| {
            seen.pod
                .labels
                .get(names::LABEL_AGENT)
                .is_some_and(|of| of == label)
        });
        (
            selection,
            Some(injected.map(|((of, _), _)| of.as_str()).collect()),
        )
    }

    /// What new pods get: mode and hash, as the active binding says. Where bindings may not be read, as this program
    /// renders it, if the operator then counts the same.
    fn serving(&self, agent: &OtelAgent, key: &Key, tally: &PodTally) -> Option<(Mode, String)> {
        if self.snapshot.active.is_some() {
            let active = self.snapshot.active_of(key)?;
            return active.mode.zip(active.recipe.clone());
        }
        let status = agent.status.as_ref()?;
        let (mode, counted) = (status.mode?, status.pods.as_ref()?);
        let hash = self.recipe(agent, Some(mode))?.hash();
        let counts = tally.report(Some((mode, &hash)), None).counts;
        let is_same = counts.current == counted.current && counts.stale == counted.stale;
        is_same.then_some((mode, hash))
    }

    /// What a mode injects; of a refused spec only what is the same for all of the mode.
    fn recipe(&self, agent: &OtelAgent, mode: Option<Mode>) -> Option<Recipe> {
        let mode = mode.or(agent.status.as_ref()?.mode)?;
        match validate(agent, self.environment) {
            Ok(valid) => build(&valid, self.environment, [mode])
                .recipe(mode)
                .cloned(),
            Err(_) => Some(Recipe::of_mode(mode)),
        }
    }

    /// Why agents leave out the nodes of uncovered pods.
    fn left_out(
        &self,
        tally: &PodTally,
        workloads: &BTreeMap<Mode, AgentWorkload>,
    ) -> BTreeMap<String, String> {
        let nodes = tally.report(None, None).uncovered_nodes.into_iter();
        let left_out = nodes.filter_map(|node| {
            let mut workloads = workloads.values();
            let why = workloads.find_map(|found| found.leaves_out(self.nodes(), &node))?;
            Some((node, why))
        });
        left_out.collect()
    }

    fn workload_report(
        &self,
        name: &str,
        mode: Mode,
        workload: &AgentWorkload,
    ) -> AgentWorkloadReport {
        let nodes = workload.on_nodes(self.nodes());
        AgentWorkloadReport {
            kind: "DaemonSet",
            name: names::agent_workload(name, mode.kebab()),
            mode,
            desired: workload.desired,
            ready: workload.nodes_served(),
            nodes: nodes
                .iter()
                .map(|node| node_report(node, &workload.template))
                .collect(),
        }
    }
}

/// Whether no pod of an `OtelAgent` may be read, so that an empty list would be no answer.
fn snapshot_is_blind(snapshot: &Snapshot, agent: &OtelAgent) -> bool {
    let is_pods = |right: &crate::error::Right| right.resource == "pods";
    snapshot.pods.is_empty()
        && agent.spec.workloads.is_some()
        && snapshot.missing.iter().any(is_pods)
}

/// What the status says, and whether it says anything of the present spec.
fn of_status(status: Option<&OtelAgentStatus>, generation: Option<i64>) -> AgentReport {
    let status = status.cloned().unwrap_or_default();
    let conditions: Vec<ConditionReport> = status
        .conditions
        .iter()
        .map(|condition| ConditionReport {
            type_: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            since: condition.last_transition_time.0.to_string(),
            is_as_wished: is_as_wished(condition),
        })
        .collect();
    let is_observed = generation.is_some() && status.observed_generation == generation;
    let is_reported = conditions.iter().any(|one| one.type_ == READY);
    AgentReport {
        is_as_wished: is_observed && is_reported && conditions.iter().all(|one| one.is_as_wished),
        is_observed,
        conditions,
        serving: status.mode,
        endpoint: status.endpoint,
        agents: status.agents,
        pods: status.pods,
        delivery: status.delivery,
        restarts: status.restarts,
        ..AgentReport::default()
    }
}

fn agent_pod(pod: &PartialPod) -> AgentPod {
    AgentPod {
        name: pod.metadata.name.clone().unwrap_or_default(),
        node: pod.node.clone(),
        ready: pod.ready && !pod.terminating,
        waits_for: pod.waits_for.clone(),
        template: pod.labels.get(names::LABEL_TEMPLATE).cloned(),
    }
}

fn node_report(on: &AgentOnNode<'_>, template: &str) -> NodeReport {
    let (state, why) = match &on.state {
        AgentState::Missing(why) => ("Missing", why.clone()),
        AgentState::Unready => ("NotReady", None),
        AgentState::Outdated => ("Outdated", None),
        AgentState::NodeDown => ("NodeDown", None),
        AgentState::Ready => ("Ready", None),
        AgentState::LeftOut(why) => ("LeftOut", Some(why.clone())),
    };
    let agents = on.agents.iter().map(|pod| AgentPodReport {
        pod: pod.name.clone(),
        is_ready: pod.ready,
        is_updated: pod.is_of(template),
        waits_for: pod.waits_for.clone(),
    });
    NodeReport {
        name: on.node.to_owned(),
        state,
        why,
        is_as_wished: on.state.is_as_wished(),
        agents: agents.collect(),
    }
}

/// The agents in applications' pods, if there are any or should be.
fn sidecars(agent: &OtelAgent, tally: &PodTally) -> Option<AgentWorkloadReport> {
    let report = tally.report(None, None);
    let serving = agent.status.as_ref().and_then(|status| status.mode);
    let desired = report.counts.by_mode.get(Mode::Sidecar.as_str()).copied();
    (desired.is_some() || serving == Some(Mode::Sidecar)).then(|| AgentWorkloadReport {
        kind: "Sidecar",
        name: String::new(),
        mode: Mode::Sidecar,
        desired: desired.unwrap_or_default(),
        ready: report
            .ready
            .get(&Mode::Sidecar)
            .copied()
            .unwrap_or_default(),
        nodes: Vec::new(),
    })
}

fn namespaces(pods: &BTreeMap<WorkloadRef, WorkloadPods>) -> Vec<NamespaceReport> {
    let mut found: BTreeMap<&str, Vec<WorkloadReport>> = BTreeMap::new();
    for (owner, pods) in pods {
        let of_namespace = found.entry(&owner.namespace).or_default();
        of_namespace.push(workload(owner, pods));
    }
    let found = found.into_iter().map(|(name, mut workloads)| {
        workloads.sort_by_key(|workload| workload.is_as_wished);
        NamespaceReport {
            name: name.to_owned(),
            workloads,
        }
    });
    let mut found: Vec<NamespaceReport> = found.collect();
    found.sort_by_key(NamespaceReport::is_as_wished);
    found
}

fn workload(owner: &WorkloadRef, pods: &WorkloadPods) -> WorkloadReport {
    let modes = pods.by_mode.iter().map(|(mode, pods)| {
        let mode = mode.map_or("unknown", Mode::as_str);
        (mode.to_owned(), *pods)
    });
    let why = pods.missed.iter().map(|(why, pods)| MissedReport {
        pods: *pods,
        is_orphaned: matches!(why, WhyMissed::Orphaned(_)),
        why: why.to_string(),
    });
    let (restart, why_in_vain) = match &pods.restart {
        RestartAdvice::NotNeeded => (None, None),
        RestartAdvice::Helps => (Some("Helps"), None),
        RestartAdvice::MayHelp => (Some("MayHelp"), None),
        RestartAdvice::InVain(why) => (Some("InVain"), Some(why.clone())),
    };
    WorkloadReport {
        kind: owner.kind.clone(),
        name: owner.name.clone(),
        modes: modes.collect(),
        current: pods.current,
        stale: pods.stale(),
        missed: pods.missed.values().sum(),
        orphaned: pods.orphaned,
        uncovered: pods.uncovered,
        why_missed: why.collect(),
        restart,
        why_in_vain,
        is_as_wished: pods.is_as_wished(),
    }
}
