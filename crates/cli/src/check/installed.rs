//! What an installation consists of.

use k8s_openapi::jiff::Timestamp;
use otelagent_api::{CONDITIONS, OtelAgent, ResourceExt};
use otelagent_core::build::{Engine, engine};
use otelagent_core::status::is_as_wished;
use serde_json::Value;

use super::certificate::ends_of;
use super::crd::lacking;
use super::facts::{Access, Facts};
use super::prepared::first_few;
use super::report::{CheckLine, Lines};

/// The webhook's CA is renewed long before.
const SOON_DAYS: i64 = 14;
/// What mends most of an installation.
const AGAIN: &str = "apply manifests/default again (with Helm, upgrade the release)";

/// The lines about the parts of an installation and what its `OtelAgent`s say. `own` is the CRD of this release.
pub fn installed(facts: &Facts, own: &Value) -> Vec<CheckLine> {
    let mut lines = crd(facts, own);
    lines.extend(operator(facts));
    lines.extend(webhook(facts));
    lines.extend(agents(facts));
    lines
}

fn crd(facts: &Facts, own: &Value) -> Vec<CheckLine> {
    let mut lines = Lines::of("CRD");
    match &facts.crd {
        Access::Absent => lines.failed(
            "the API server knows no OtelAgents",
            "install the CRD: kubectl apply -k crds (with Helm, crds.enabled)",
        ),
        Access::Denied(right) => lines.unknown("the CRD may not be read", right.to_string()),
        Access::Found(crd) => {
            let conditions = crd["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let is_established =
                conditions.any(|one| one["type"] == "Established" && one["status"] == "True");
            if is_established {
                lines.ok("otelagents.otelagent.dev is established");
            } else {
                let next =
                    "kubectl describe crd otelagents.otelagent.dev says why; apply crds/ again";
                lines.failed("otelagents.otelagent.dev is not established", next);
            }
            let fields = lacking(crd, own);
            if !fields.is_empty() {
                let text = format!("it is of an older release and lacks {}", first_few(&fields));
                lines.warning(text, "apply the CRD of this release: kubectl apply -k crds (with Helm, crds.enabled)");
            }
        }
    }
    lines.found
}

fn operator(facts: &Facts) -> Vec<CheckLine> {
    let mut lines = Lines::of("Operator");
    let installation = &facts.snapshot.installation;
    let namespace = &installation.namespace;
    if !installation.is_known {
        let is_deployments =
            |right: &&crate::error::Right| right.resource.starts_with("deployments");
        match facts.snapshot.missing.iter().find(is_deployments) {
            Some(right) => lines.unknown("the operator's Deployment may not be read", right.to_string()),
            None => lines.failed(
                "no Deployment of the operator exists (app.kubernetes.io/name=otelagent, component operator)",
                "install it: kubectl apply -k manifests/default (with Helm, helm install)",
            ),
        }
        return lines.found;
    }
    let (ready, wanted) = installation.replicas.unwrap_or_default();
    let text = format!("{ready} of {wanted} replicas are ready in namespace {namespace}");
    if ready > 0 {
        lines.ok(text);
    } else {
        let next = format!(
            "kubectl -n {namespace} describe deployment -l app.kubernetes.io/component=operator"
        );
        lines.failed(text, next);
    }
    let own = env!("CARGO_PKG_VERSION");
    match installation.version.as_deref() {
        Some(version) if version == own => lines.ok(format!("its version is {version}, as that of this program")),
        Some(version) => lines.warning(
            format!("its version is {version}, and that of this program {own}"),
            "explain, render and diff may differ from what the operator does; use the program of its release",
        ),
        None => {}
    }
    leader(&mut lines, facts);
    surroundings(&mut lines, facts);
    lines.found
}

/// What the operator needs beside itself.
fn surroundings(lines: &mut Lines, facts: &Facts) {
    let installation = &facts.snapshot.installation;
    match &facts.owner {
        Access::Found(()) => lines.ok(format!(
            "ClusterRole {}, which owns its policies, exists",
            installation.owner_role
        )),
        Access::Absent if installation.owner_role.is_empty() => {}
        Access::Absent => lines.failed(
            format!(
                "ClusterRole {}, which owns its policies, does not exist",
                installation.owner_role
            ),
            AGAIN,
        ),
        Access::Denied(right) => lines.unknown(
            "the ClusterRole that owns its policies may not be read",
            right.to_string(),
        ),
    }
    let canary = &installation.canary_namespace;
    match &facts.snapshot.namespaces {
        Some(known) if known.contains_key(canary) => {
            lines.ok(format!("the canary namespace {canary} exists"));
        }
        Some(_) => lines.failed(
            format!("the canary namespace {canary} does not exist"),
            AGAIN,
        ),
        None => {}
    }
}

fn leader(lines: &mut Lines, facts: &Facts) {
    let next = format!(
        "kubectl -n {} logs -l app.kubernetes.io/component=operator says what keeps it",
        facts.snapshot.installation.namespace
    );
    match &facts.holder {
        Access::Found(holder) => {
            let age = holder
                .renewed
                .map(|renewed| facts.now.as_second() - renewed.as_second());
            let is_held =
                !holder.name.is_empty() && age.is_some_and(|age| age <= 2 * holder.seconds);
            if is_held {
                lines.ok(format!("{} leads", holder.name));
            } else {
                lines.failed("no replica holds the Lease, so nothing is reconciled", next);
            }
        }
        // Without leader election there is none.
        Access::Absent => lines.warning("there is no Lease, so no replica has led yet", next),
        Access::Denied(right) => lines.unknown("the Lease may not be read", right.to_string()),
    }
}

fn webhook(facts: &Facts) -> Vec<CheckLine> {
    let mut lines = Lines::of("Webhook");
    let installation = &facts.snapshot.installation;
    let chosen = facts
        .server
        .map(|server| engine(installation.engine, facts.offers_policies, server));
    if !matches!(chosen, Some(Ok(Engine::Webhook))) {
        return lines.found;
    }
    match &facts.webhook {
        Access::Found((ready, wanted)) if *ready > 0 => {
            lines.ok(format!("{ready} of {wanted} replicas are ready"));
        }
        Access::Found((ready, wanted)) => lines.failed(
            format!("{ready} of {wanted} replicas are ready, so new pods are not injected"),
            format!(
                "kubectl -n {} describe deployment -l app.kubernetes.io/component=webhook",
                installation.namespace
            ),
        ),
        Access::Absent => lines.failed(
            "injection needs the webhook on this server, and it is not installed",
            "kubectl apply -k manifests/webhook (with Helm, set webhook.enabled)",
        ),
        Access::Denied(right) => lines.unknown(
            "the webhook's Deployment may not be read",
            right.to_string(),
        ),
    }
    match &facts.trusted {
        Access::Found(pem) => certificates(&mut lines, pem, facts.now),
        Access::Denied(right) => {
            lines.unknown("its certificates may not be read", right.to_string());
        }
        Access::Absent => {}
    }
    lines.found
}

/// The days of the CA certificates that the API server trusts; with several, the last counts.
fn certificates(lines: &mut Lines, pem: &str, now: Timestamp) {
    let Some(ends) = ends_of(pem).into_iter().max() else {
        let text =
            "webhook configurations trust no CA certificate, so the API server calls no webhook";
        lines.failed(
            text,
            "the condition Injected says why (kubectl otelagent status -A)",
        );
        return;
    };
    let days = (ends.as_second() - now.as_second()).div_euclid(24 * 60 * 60);
    let next = "the operator, or what renews the file of --webhook-ca-file, has not renewed it; see condition Injected";
    if days < 0 {
        lines.failed(
            format!("the webhook's CA certificate has ended ({ends})"),
            next,
        );
    } else if days <= SOON_DAYS {
        lines.warning(
            format!("the webhook's CA certificate ends in {days} days"),
            next,
        );
    } else {
        lines.ok(format!(
            "the webhook's CA certificate is valid for {days} days"
        ));
    }
}

fn agents(facts: &Facts) -> Vec<CheckLine> {
    let mut lines = Lines::of("OtelAgents");
    let all = &facts.snapshot.agents;
    if all.is_empty() && matches!(facts.crd, Access::Found(_)) {
        lines.warning(
            "there is no OtelAgent that you may see, so nothing is injected",
            "kubectl apply -f manifests/samples/node-local.yaml, with your collector as export.endpoint",
        );
    }
    for ((namespace, name), agent) in all {
        match &agent.agent {
            Ok(agent) => of_agent(&mut lines, agent),
            Err(unreadable) => {
                let text = format!("{namespace}/{name} cannot be read: {}", unreadable.why);
                lines.failed(
                    text,
                    "use the program of the operator's release, or correct the object",
                );
            }
        }
    }
    lines.found
}

fn of_agent(lines: &mut Lines, agent: &OtelAgent) {
    let (namespace, name) = (agent.namespace().unwrap_or_default(), agent.name_any());
    let next = format!("kubectl otelagent status {name} -n {namespace}");
    let about = format!("{namespace}/{name}");
    let status = agent.status.clone().unwrap_or_default();
    if status.observed_generation.is_none()
        || status.observed_generation != agent.metadata.generation
    {
        lines.failed(
            format!("{about}: the operator has not seen its present spec"),
            next,
        );
        return;
    }
    let known = |type_: &str| CONDITIONS.contains(&type_);
    let conditions = status.conditions.iter().filter(|one| known(&one.type_));
    let wanting: Vec<_> = conditions.filter(|one| !is_as_wished(one)).collect();
    if wanting.is_empty() {
        let counts = status.agents.unwrap_or_default();
        let delivery = status.delivery.map_or(String::new(), |counts| {
            format!(", {} of {} asked deliver", counts.delivering, counts.asked)
        });
        lines.ok(format!(
            "{about}: {} of {} agents are ready{delivery}",
            counts.ready, counts.desired
        ));
    }
    // Two conditions repeat what others say.
    for one in wanting
        .iter()
        .filter(|one| !["Reconciling", "Stalled"].contains(&one.type_.as_str()))
    {
        let text = format!(
            "{about}: {} is {} ({}): {}",
            one.type_, one.status, one.reason, one.message
        );
        let is_movement =
            ["Switching", "Restarting"].contains(&one.type_.as_str()) && one.status == "True";
        if is_movement || one.status == "Unknown" {
            lines.warning(text, next.clone());
        } else {
            lines.failed(text, next.clone());
        }
    }
}
