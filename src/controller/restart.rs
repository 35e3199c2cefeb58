//! Restarting workloads (`workloads.restart: Rolling`): reads the owners that pods name, asks the pure
//! room, writes what it decides.
//!
//! Nothing is watched for it: workloads are read only while there is something to restart, a few at a
//! time. What goes wrong here is told and never keeps the rest of a pass from being carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::Value;

use super::context::Context;
use super::error::ControllerError;
use crate::desired::ValidAgent;
use crate::names;
use crate::process::in_full;
use crate::restart::{
    Budget, KINDS, Observed, Verdict, Workload, decide, is_restartable, patch, purpose, release,
};
use crate::status::{Facts, Failure, InjectionState, Owner, Restarts};

/// Workloads that are looked at in one pass.
const LOOK_AT: usize = 50;
/// Between two looks at the workloads of one `OtelAgent`, at least.
const PACE: Duration = Duration::from_secs(2);
/// When to look again while something rolls, and while something waits.
const WHILE_RUNNING: Duration = Duration::from_secs(5);
const WHILE_WAITING: Duration = Duration::from_secs(30);

/// What is remembered between looks to spare requests; forgetting it changes nothing but their number.
#[derive(Default)]
pub(crate) struct Memory {
    looked_at: Option<std::time::Instant>,
    /// Whether it is known that no restart is under way.
    idle: bool,
    /// The candidate looked at last, so that all get their turn.
    last: Option<Owner>,
    known: BTreeMap<Owner, Verdict>,
}

/// A workload with its object, which a change of it is based on.
struct Seen {
    workload: Workload,
    object: Value,
}

/// Restarts what may be restarted now, and says what is so of the rest.
pub(crate) async fn carry_out(
    context: &Context,
    valid: &ValidAgent,
    facts: &Facts,
    recipe: Option<&str>,
) -> Restarts {
    let pods = &facts.pods;
    let owners = [&pods.stale, &pods.missed, &pods.uncovered];
    let candidates: BTreeSet<Owner> = owners
        .iter()
        .flat_map(|owners| owners.keys().cloned())
        .collect();
    let recipe = match (hold(valid, facts), recipe) {
        (None, Some(recipe)) => recipe,
        (held, _) => {
            let why = held.unwrap_or("nothing is served yet");
            let waits = |owner| (owner, Verdict::Waits(why.to_owned()));
            return Restarts {
                verdicts: candidates.into_iter().map(waits).collect(),
                failure: None,
            };
        }
    };
    match attempt(context, valid, candidates, recipe).await {
        Ok(verdicts) => Restarts {
            verdicts,
            failure: None,
        },
        Err(error) => Restarts {
            verdicts: BTreeMap::new(),
            failure: Some(Failure {
                reason: error.reason(),
                message: in_full(&error),
            }),
        },
    }
}

/// When to look again.
pub(crate) fn next_look(restarts: &Restarts) -> Option<Duration> {
    let any = |test: fn(&Verdict) -> bool| restarts.verdicts.values().any(test);
    if any(|verdict| *verdict == Verdict::Running) {
        Some(WHILE_RUNNING)
    } else if restarts.failure.is_some() || any(|verdict| matches!(verdict, Verdict::Waits(_))) {
        Some(WHILE_WAITING)
    } else {
        None
    }
}

/// Why nothing is restarted at all now: new pods would not be any better.
fn hold(valid: &ValidAgent, facts: &Facts) -> Option<&'static str> {
    let serves = facts.serving.as_ref().map(|(mode, _)| *mode);
    let ready = facts
        .serving_vehicle
        .as_ref()
        .is_none_or(crate::switching::VehicleState::is_ready_everywhere);
    if facts.injection != InjectionState::InForce {
        Some("injection is not in force")
    } else if serves != Some(valid.wanted()) {
        Some("the wanted mode does not serve yet")
    } else if !ready {
        Some("agents are not ready on every node")
    } else {
        None
    }
}

async fn attempt(
    context: &Context,
    valid: &ValidAgent,
    candidates: BTreeSet<Owner>,
    recipe: &str,
) -> Result<BTreeMap<Owner, Verdict>, ControllerError> {
    let (idle, known, last) = context.with_restarts(&valid.uid, |memory| {
        let too_soon = memory.looked_at.is_some_and(|at| at.elapsed() < PACE);
        if !too_soon {
            memory.looked_at = Some(std::time::Instant::now());
        }
        let known = memory.known.clone();
        (
            memory.idle && candidates.is_empty() || too_soon,
            known,
            memory.last.clone(),
        )
    });
    if idle {
        let still = |owner: &Owner, verdict: &Verdict| {
            candidates.contains(owner) || *verdict == Verdict::Running
        };
        return Ok(known
            .into_iter()
            .filter(|(owner, verdict)| still(owner, verdict))
            .collect());
    }
    let mut budgets = BTreeMap::new();
    let marked = marked(context, valid, &mut budgets).await?;
    let seen = look_at(context, &candidates, last.as_ref(), &mut budgets).await?;
    let observed = Observed {
        candidates,
        marked: marked.iter().map(|seen| seen.workload.clone()).collect(),
        seen: seen.iter().map(|seen| seen.workload.clone()).collect(),
        known,
        purpose: purpose(&valid.label(), recipe),
        at_a_time: valid.at_a_time(),
    };
    let mut decision = decide(&observed);
    for owner in &decision.release {
        if let Some(found) = marked.iter().find(|seen| seen.workload.owner == *owner) {
            write(context, owner, &release(&found.object), "release").await?;
        }
    }
    for owner in std::mem::take(&mut decision.restart) {
        let Some(found) = seen.iter().find(|seen| seen.workload.owner == owner) else {
            continue;
        };
        let now = Context::now().to_string();
        let change = patch(&found.object, &valid.label(), &observed.purpose, &now);
        if !write(context, &owner, &change, "restart").await? {
            let waits = Verdict::Waits("it has just changed".into());
            decision.verdicts.insert(owner, waits);
        }
    }
    let running = |verdict: &Verdict| *verdict == Verdict::Running;
    context.with_restarts(&valid.uid, |memory| {
        memory.idle = !decision.verdicts.values().any(running);
        memory.last = seen.last().map(|seen| seen.workload.owner.clone());
        memory.known.clone_from(&decision.verdicts);
    });
    Ok(decision.verdicts)
}

type Budgets = BTreeMap<String, Vec<Budget>>;

/// Workloads that bear the mark of a restart for this object.
async fn marked(
    context: &Context,
    valid: &ValidAgent,
    budgets: &mut Budgets,
) -> Result<Vec<Seen>, ControllerError> {
    let query =
        ListParams::default().labels(&format!("{}={}", names::LABEL_RESTARTING, valid.label()));
    let mut found = Vec::new();
    for (kind, _) in KINDS {
        let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource(kind));
        let list = api
            .list(&query)
            .await
            .map_err(ControllerError::api(format!("list restarted {kind}s")))?;
        for object in list.items {
            found.push(read(context, kind, &object, budgets).await?);
        }
    }
    Ok(found)
}

/// Some of the candidates as they are now, beginning after the one that was looked at last.
async fn look_at(
    context: &Context,
    candidates: &BTreeSet<Owner>,
    last: Option<&Owner>,
    budgets: &mut Budgets,
) -> Result<Vec<Seen>, ControllerError> {
    let restartable = || candidates.iter().filter(|owner| is_restartable(owner));
    let (after, before): (Vec<&Owner>, Vec<&Owner>) =
        restartable().partition(|owner| last.is_none_or(|last| *owner > last));
    let mut seen = Vec::new();
    for owner in after.into_iter().chain(before).take(LOOK_AT) {
        let api: Api<DynamicObject> = Api::namespaced_with(
            context.client.clone(),
            &owner.namespace,
            &resource(&owner.kind),
        );
        let found = api
            .get_opt(&owner.name)
            .await
            .map_err(ControllerError::api(format!("read {owner}")))?;
        if let Some(object) = found {
            seen.push(read(context, &owner.kind, &object, budgets).await?);
        }
    }
    Ok(seen)
}

async fn read(
    context: &Context,
    kind: &str,
    object: &DynamicObject,
    budgets: &mut Budgets,
) -> Result<Seen, ControllerError> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    if !budgets.contains_key(&namespace) {
        let api: Api<DynamicObject> = Api::namespaced_with(
            context.client.clone(),
            &namespace,
            &ApiResource::erase::<PodDisruptionBudget>(&()),
        );
        let list = api
            .list(&ListParams::default())
            .await
            .map_err(ControllerError::api(format!(
                "list the PodDisruptionBudgets of {namespace}"
            )))?;
        let values = list
            .items
            .iter()
            .filter_map(|item| serde_json::to_value(item).ok());
        let all = values.filter_map(|value| Budget::read(&value)).collect();
        budgets.insert(namespace.clone(), all);
    }
    let object = serde_json::to_value(object).unwrap_or_default();
    let budgets = budgets.get(&namespace).map_or(&[][..], Vec::as_slice);
    Ok(Seen {
        workload: Workload::read(kind, &object, budgets),
        object,
    })
}

/// Writes a change of a workload; false where it was changed by another meanwhile, or is gone.
async fn write(
    context: &Context,
    owner: &Owner,
    change: &Value,
    what: &'static str,
) -> Result<bool, ControllerError> {
    let api: Api<DynamicObject> = Api::namespaced_with(
        context.client.clone(),
        &owner.namespace,
        &resource(&owner.kind),
    );
    let parameters = PatchParams {
        field_manager: Some(names::RESTART_MANAGER.into()),
        ..PatchParams::default()
    };
    match api
        .patch(&owner.name, &parameters, &Patch::Merge(change))
        .await
    {
        Ok(_) => {
            context.metrics.wrote("Workload", what);
            tracing::info!(%owner, what, "workload");
            Ok(true)
        }
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(error) => Err(ControllerError::api(format!("{what} {owner}"))(error)),
    }
}

fn resource(kind: &str) -> ApiResource {
    let plural = KINDS.iter().find(|(known, _)| *known == kind);
    ApiResource {
        group: "apps".into(),
        version: "v1".into(),
        api_version: "apps/v1".into(),
        kind: kind.into(),
        plural: plural.map_or_else(String::new, |(_, plural)| (*plural).to_owned()),
    }
}
