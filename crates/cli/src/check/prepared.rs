//! What a cluster needs before an installation.

use std::collections::BTreeSet;

use otelagent_api::Ports;
use otelagent_core::build::{Choice, Engine, NodePorts, engine};
use otelagent_core::names;

use super::facts::{Access, Facts};
use super::report::{CheckLine, Lines};

/// The label of a node with its operating system, and with its architecture.
const OS: &str = "kubernetes.io/os";
const ARCH: &str = "kubernetes.io/arch";
/// How many pods, nodes or rights are named.
const NAMED: usize = 3;

/// The lines about the server, its nodes and their ports, and the user's rights.
pub fn prepared(facts: &Facts, choice: Choice) -> Vec<CheckLine> {
    let mut lines = server(facts, choice);
    lines.extend(nodes(facts));
    lines.extend(ports(facts));
    lines.extend(rights(facts));
    lines
}

fn server(facts: &Facts, choice: Choice) -> Vec<CheckLine> {
    let mut lines = Lines::of("Kubernetes");
    let Some(server) = facts.server else {
        lines.unknown(
            "the version of the API server is no number",
            "look at kubectl version; otelagent needs 1.33 or newer",
        );
        return lines.found;
    };
    match engine(choice, facts.offers_policies, server) {
        Ok(Engine::Policy) => {
            lines.ok(format!("the API server is {server}"));
            lines.ok("it injects by itself, with admission policies; no webhook is needed");
        }
        Ok(Engine::Webhook) => {
            lines.ok(format!("the API server is {server}"));
            lines
                .ok("injection needs the webhook: manifests/webhook, or with Helm webhook.enabled");
        }
        Err(why) => lines.failed(why, "upgrade the cluster, or use the engine that it has"),
    }
    lines.found
}

fn nodes(facts: &Facts) -> Vec<CheckLine> {
    let mut lines = Lines::of("Nodes");
    let nodes = match &facts.nodes {
        Access::Found(nodes) => nodes,
        Access::Denied(right) => {
            lines.unknown("nodes could not be read", right.to_string());
            return lines.found;
        }
        Access::Absent => return lines.found,
    };
    let is = |labels: &std::collections::BTreeMap<String, String>, key: &str, values: &[&str]| {
        labels
            .get(key)
            .is_some_and(|value| values.contains(&value.as_str()))
    };
    let linux: Vec<_> = nodes
        .iter()
        .filter(|(labels, _)| is(labels, OS, &["linux"]))
        .collect();
    let text = format!("{} of {} nodes run Linux", linux.len(), nodes.len());
    if linux.is_empty() {
        lines.failed(text, "agents run on Linux; add Linux nodes");
    } else {
        lines.ok(text);
    }
    let without = linux
        .iter()
        .filter(|(labels, _)| is(labels, ARCH, &names::ARCHITECTURES_WITHOUT_IMAGE));
    let without = without.count();
    if without > 0 {
        lines.warning(
            format!("there is no image of the agent for the architecture of {without} of them"),
            "set agent.nodeSelector so that agents leave them out, or agent.image",
        );
    }
    let versions: BTreeSet<&str> = linux.iter().map(|(_, version)| version.as_str()).collect();
    if !versions.is_empty() {
        let versions: Vec<&str> = versions.into_iter().collect();
        lines.ok(format!("their kubelets are {}", versions.join(", ")));
    }
    lines.found
}

/// Ports that agents of modes on the nodes' addresses take.
fn ports(facts: &Facts) -> Vec<CheckLine> {
    let mut lines = Lines::of("Ports of the nodes");
    let agents = facts.snapshot.agents.values();
    let agents = agents.filter_map(|agent| agent.agent.as_ref().ok());
    let wanted = agents.filter_map(|agent| NodePorts::wanted(&agent.spec));
    let mut wanted: BTreeSet<u16> = wanted.flat_map(|ports| ports.ports).collect();
    let is_asked = !wanted.is_empty();
    if !is_asked {
        let Ports { grpc, http, .. } = Ports::default();
        wanted.extend([grpc, http]);
    }
    let shown: Vec<String> = wanted.iter().map(u16::to_string).collect();
    let shown = shown.join(", ");
    match &facts.ports {
        Access::Found(pods) => {
            let others = pods.iter().filter(|pod| !pod.is_agent);
            let others: Vec<String> = others
                .filter_map(|pod| {
                    let taken = pod.ports.intersection(&wanted).next()?;
                    Some(format!(
                        "{taken} by pod {}/{} on node {}",
                        pod.namespace, pod.name, pod.node
                    ))
                })
                .collect();
            if others.is_empty() {
                lines.ok(format!("no pod of others takes {shown} of a node"));
            } else {
                let text = format!("ports of nodes are taken: {}", first_few(&others));
                let next = "choose other spec.ports, a mode without ports of nodes (NodeLocal, Sidecar), or move these pods";
                if is_asked {
                    lines.failed(text, next);
                } else {
                    lines.warning(
                        text,
                        format!("for modes HostPort and HostNetwork only: {next}"),
                    );
                }
            }
        }
        Access::Denied(right) => {
            let text = format!("whether pods of others take {shown} of a node is not known");
            lines.unknown(text, right.to_string());
        }
        Access::Absent => {}
    }
    lines.found
}

fn rights(facts: &Facts) -> Vec<CheckLine> {
    let mut lines = Lines::of("Your rights");
    let lacking = facts.rights.iter().filter(|needed| !needed.is_granted);
    let lacking: Vec<_> = lacking.collect();
    if lacking.is_empty() && !facts.rights.is_empty() {
        lines.ok(format!(
            "all {} rights that are needed are yours",
            facts.rights.len()
        ));
    }
    for needed in lacking {
        let right = &needed.right;
        let place = right
            .namespace
            .as_ref()
            .map_or("the whole cluster".into(), |of| format!("namespace {of}"));
        lines.warning(
            format!("you may not {} {} in {place}", right.verb, right.resource),
            format!(
                "ask for a role with this right, as {} makes it, and for a binding to it",
                right.remedy()
            ),
        );
    }
    lines.found
}

/// The first few, and how many more there are.
pub(super) fn first_few(all: &[String]) -> String {
    let named = all[..all.len().min(NAMED)].join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}
