//! Asks the API server itself, past the caches: for what a step presupposes, and what becomes of a pod.
//!
//! A watch can fall behind for as long as its connection lives, and a replica's caches may have been filled
//! long before it leads. These reads name no version, so the API server answers as of now (KEP-2340). The
//! holder of the lease is the only writer, so what is read stays true.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::inject::{Recipe, canary};
use otelagent_core::names;
use otelagent_core::reconcile::{Active, Correction, Observation, Precondition, binding_kind};
use serde_json::Value;

use super::context::Context;
use super::error::ControllerError;
use super::observe::read_active;
use crate::cache::{NodePlacement, PartialPod, admission_resource};

/// How often a verification is tried before it counts as failed: a policy takes up to a second to arrive.
const ATTEMPTS: u32 = 20;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest verification: a webhook that does not answer makes every attempt slow.
const LONGEST: Duration = Duration::from_secs(15);

/// What became of a pod that was created by dry run.
pub(crate) enum Answer {
    /// The pod as the API server would store it.
    Pod(Value),
    /// The API server's refusal.
    Refused(String),
}

/// Asks for one precondition. A correction says what is true instead.
///
/// # Errors
/// [`ControllerError::StaleView`] where the spec or the binding is another one: nothing may be decided by
/// these caches.
pub(crate) async fn confirm(
    context: &Context,
    observation: &Observation<'_>,
    precondition: Precondition,
) -> Result<Option<Correction>, ControllerError> {
    match precondition {
        Precondition::SpecUnchanged => spec_unchanged(context, observation.agent).await?,
        Precondition::ActiveUnchanged => active_unchanged(context, observation).await?,
        Precondition::WorkloadReady(mode) => {
            let is_ready = workload_ready(context, observation, mode).await?;
            return Ok((!is_ready).then_some(Correction::NotReady(mode)));
        }
        Precondition::Unused(mode) => {
            let is_used = is_used(context, observation, mode).await?;
            return Ok(Some(Correction::Used(mode, is_used)));
        }
    }
    Ok(None)
}

async fn spec_unchanged(context: &Context, agent: &OtelAgent) -> Result<(), ControllerError> {
    let namespace = agent.namespace().unwrap_or_default();
    let api: Api<OtelAgent> = Api::namespaced(context.client.clone(), &namespace);
    let found = api
        .get_metadata_opt(&agent.name_any())
        .await
        .map_err(ControllerError::api("read the spec's generation"))?;
    let is_same = found.is_some_and(|live| {
        live.metadata.uid == agent.metadata.uid
            && live.metadata.generation == agent.metadata.generation
            && live.metadata.deletion_timestamp.is_none()
    });
    let stale = ControllerError::StaleView("OtelAgent");
    is_same.then_some(()).ok_or(stale)
}

async fn active_unchanged(
    context: &Context,
    observation: &Observation<'_>,
) -> Result<(), ControllerError> {
    let Ok(chosen) = context.engine else {
        return Ok(());
    };
    let kind = binding_kind(observation.active.engine(chosen));
    if active(context, observation, kind).await? == observation.active {
        Ok(())
    } else {
        Err(ControllerError::StaleView(kind))
    }
}

/// What the API server says now of the binding. A kind that may not be read has nothing active: the right
/// comes with the manifests that install what makes such objects.
async fn active(
    context: &Context,
    observation: &Observation<'_>,
    kind: &'static str,
) -> Result<Active, ControllerError> {
    let resource = admission_resource(kind);
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &resource);
    let namespace = observation.agent.namespace().unwrap_or_default();
    let name = names::cluster_object(&namespace, &observation.agent.name_any(), None);
    let query = ListParams::default()
        .fields(&format!("metadata.name={name}"))
        .limit(1);
    let found = match api.list(&query).await {
        Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_not_found() => {
            return Ok(Active::default());
        }
        found => found.map_err(ControllerError::api("read the active binding"))?,
    };
    let uid = observation.agent.uid().unwrap_or_default();
    let own = found.items.iter().find(|binding| {
        let owner = binding.labels().get(names::LABEL_OWNER_UID);
        owner.is_some_and(|owner| *owner == uid)
    });
    let own = own.and_then(|binding| serde_json::to_value(binding).ok());
    Ok(own.map(|binding| read_active(&binding)).unwrap_or_default())
}

/// Whether a mode's agent workload exists as the caches have it, with no fewer nodes served. Always so in
/// mode Sidecar.
async fn workload_ready(
    context: &Context,
    observation: &Observation<'_>,
    mode: Mode,
) -> Result<bool, ControllerError> {
    if !mode.on_nodes() {
        return Ok(true);
    }
    let Some(cached) = observation.workloads.get(&mode) else {
        return Ok(false);
    };
    let metadata = &cached.object["metadata"];
    let namespace = observation.agent.namespace().unwrap_or_default();
    let api = Api::<DaemonSet>::namespaced(context.client.clone(), &namespace);
    let name = metadata["name"].as_str().unwrap_or_default();
    let live = api
        .get_opt(name)
        .await
        .map_err(ControllerError::api("read an agent workload"))?;
    let is_same = live.as_ref().is_some_and(|live| {
        live.metadata.uid.as_deref() == metadata["uid"].as_str()
            && live.metadata.generation == metadata["generation"].as_i64()
            && live.metadata.deletion_timestamp.is_none()
    });
    let served = cached.workload.nodes_served().max(1);
    let counted = live.and_then(|live| live.status);
    if !is_same || counted.is_some_and(|status| status.number_ready >= served) {
        return Ok(is_same);
    }
    // The DaemonSet controller counts late, and only nodes that still want an agent.
    Ok(nodes_served(context, observation, mode).await? >= served)
}

/// Nodes with a ready agent of a mode.
async fn nodes_served(
    context: &Context,
    observation: &Observation<'_>,
    mode: Mode,
) -> Result<i32, ControllerError> {
    let namespace = observation.agent.namespace().unwrap_or_default();
    let api = Api::<PartialPod>::namespaced(context.client.clone(), &namespace);
    let (owner, workload) = (names::LABEL_OWNER, names::LABEL_WORKLOAD);
    let selector = format!("{owner}={},{workload}={mode}", observation.label());
    let found = api
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(ControllerError::api("count the ready agents"))?;
    let pods = found.items.iter();
    let ready = pods.filter(|pod| pod.ready && !pod.terminating);
    let nodes: BTreeSet<&str> = ready
        .filter_map(|pod| match &pod.node {
            Some(NodePlacement::On(node)) => Some(node.as_str()),
            _ => None,
        })
        .collect();
    Ok(i32::try_from(nodes.len()).unwrap_or(i32::MAX))
}

/// Whether some live pod uses a mode.
pub(crate) async fn is_used(
    context: &Context,
    observation: &Observation<'_>,
    mode: Mode,
) -> Result<bool, ControllerError> {
    let api = Api::<PartialObjectMeta<Pod>>::all(context.client.clone());
    let (agent, of_mode) = (names::LABEL_AGENT, names::LABEL_MODE);
    let query = ListParams::default()
        .labels(&format!("{agent}={},{of_mode}={mode}", observation.label()))
        .fields("status.phase!=Succeeded,status.phase!=Failed")
        .limit(1);
    let found = api
        .list(&query)
        .await
        .map_err(ControllerError::api("count the users of an old route"))?;
    Ok(!found.items.is_empty())
}

/// Creates pods by dry run until all come out as the recipe says, or time is up; then what was seen last
/// instead.
pub(crate) async fn verify(
    context: &Context,
    pods: &[Value],
    recipe: &Recipe,
) -> Result<Result<(), String>, ControllerError> {
    let begun = Instant::now();
    let mut outcome = try_once(context, pods, recipe).await?;
    for _ in 1..ATTEMPTS {
        if outcome.is_ok() || begun.elapsed() > LONGEST {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        outcome = try_once(context, pods, recipe).await?;
    }
    Ok(outcome)
}

async fn try_once(
    context: &Context,
    pods: &[Value],
    recipe: &Recipe,
) -> Result<Result<(), String>, ControllerError> {
    for pod in pods {
        let answer = match dry_run(context, pod).await? {
            Answer::Pod(pod) => pod,
            Answer::Refused(why) => return Ok(Err(why)),
        };
        if let Err(mismatch) = canary::compare(pod, &answer, recipe, &context.canary_namespace) {
            return Ok(Err(mismatch.to_string()));
        }
    }
    Ok(Ok(()))
}

/// Creates a pod of the canary namespace by dry run.
async fn dry_run(context: &Context, pod: &Value) -> Result<Answer, ControllerError> {
    let resource = ApiResource::erase::<Pod>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &context.canary_namespace, &resource);
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod: DynamicObject = match serde_json::from_value(pod.clone()) {
        Ok(pod) => pod,
        Err(error) => return Ok(Answer::Refused(error.to_string())),
    };
    match api.create(&parameters, &pod).await {
        Ok(answer) => Ok(Answer::Pod(
            serde_json::to_value(answer).unwrap_or_default(),
        )),
        Err(kube::Error::Api(status)) => Ok(Answer::Refused(status.message.clone())),
        Err(error) => {
            let action = "create a canary pod by dry run";
            Err(ControllerError::api(action)(error))
        }
    }
}

/// Hash of the recipe that a pod created now is given, or what happens to it instead.
pub(crate) async fn given_now(context: &Context, probe: &Value) -> Result<String, ControllerError> {
    Ok(match dry_run(context, probe).await? {
        Answer::Refused(why) => why,
        Answer::Pod(pod) => {
            let recipe = pod["metadata"]["labels"][names::LABEL_CONFIG].as_str();
            recipe.unwrap_or("nothing").to_owned()
        }
    })
}
