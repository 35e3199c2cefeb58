//! Putting injection in force: prove it in the canary namespace, move the binding, ask again.
//!
//! A badly rendered policy would break the creation of every selected pod, whatever its failure policy.
//! So a policy acts first on dry-run pods of the canary namespace only, and the real binding moves when
//! the server's answer equals the pure function's (design §4). The entries of the webhook go the same
//! way, so that none stands before the webhook has answered.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use serde_json::Value;

use super::context::Context;
use super::engine;
use super::error::ControllerError;
use super::observe::{self, InForce};
use super::stores::{ADMISSION_KINDS, POLICY, WARNING, WARNING_BINDING, admission_resource};
use super::{apply, fresh, rivals};
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::{Engine, ValidAgent, topology};
use otelagent_core::inject::policy::{PolicyInput, Rendered};
use otelagent_core::inject::precedence;
use otelagent_core::inject::{Recipe, Selection, canary};
use otelagent_core::names;
use otelagent_core::status::InjectionState;
use otelagent_core::switching::remaining;

/// How often a proof is tried before it counts as failed: a policy takes up to a second to arrive.
const ATTEMPTS: u32 = 20;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// Longest proof: a webhook that does not answer makes every attempt slow.
const PROOF: Duration = Duration::from_secs(15);
/// How long an older policy stays after its binding moved on, for API servers that have not seen it; as
/// long both engines act after a change of the engine, which is harmless, since the second adds nothing.
const KEEP_OLD: Duration = Duration::from_secs(30);

/// What stands before a pass.
#[derive(Default)]
pub(crate) struct Standing {
    /// What the binding says.
    pub(crate) in_force: InForce,
    /// Pods that older `OtelAgent`s select and this one must leave alone.
    pub(crate) exclusions: Vec<Selection>,
    /// Those `OtelAgent`s, as `namespace/name`.
    pub(crate) winners: Vec<String>,
    /// What the next recipe would be put in force for: a generation of the spec, or an upgrade.
    pub(crate) because: String,
}

/// What stands after a pass.
pub(crate) struct Ensured {
    pub(crate) state: InjectionState,
    pub(crate) in_force: InForce,
    /// When to look again, if an older policy has still to go.
    pub(crate) look_again: Option<Duration>,
}

/// Reads the binding and the rivals of one `OtelAgent`.
pub(crate) fn standing(context: &Context, agent: &OtelAgent) -> Standing {
    let winners = rivals::winners(context, agent);
    Standing {
        exclusions: precedence::exclusions(&winners),
        winners: winners
            .iter()
            .map(|winner| format!("{}/{}", winner.namespace, winner.name))
            .collect(),
        ..standing_alone(context, agent)
    }
}

/// The same without looking at any other.
pub(crate) fn standing_alone(context: &Context, agent: &OtelAgent) -> Standing {
    let name = names::cluster_object(
        &agent.namespace().unwrap_or_default(),
        &agent.name_any(),
        None,
    );
    let uid = agent.uid().unwrap_or_default();
    let own = binding(context, &name, |binding| belongs(binding, &uid));
    let in_force = own
        .map(|binding| observe::in_force(&binding))
        .unwrap_or_default();
    Standing {
        because: because(agent, &in_force, &context.environment.operator_version),
        in_force,
        ..Standing::default()
    }
}

/// What a change of the recipe would be due to: where the spec is as it was, another version of the
/// operator.
fn because(agent: &OtelAgent, in_force: &InForce, version: &str) -> String {
    let generation = agent.metadata.generation;
    let was_seen = agent
        .status
        .as_ref()
        .is_some_and(|status| status.observed_generation == generation);
    match in_force.written_by.as_deref() {
        Some(before) if was_seen && before != version => {
            format!("the upgrade of the operator from {before} to {version}")
        }
        _ => format!("generation {} of its spec", generation.unwrap_or_default()),
    }
}

/// Puts the recipe of `serving` in force, or takes injection away where no workloads are selected.
pub(crate) async fn ensure(
    context: &Context,
    agent: &OtelAgent,
    valid: &ValidAgent,
    standing: &Standing,
    serving: Option<Mode>,
) -> Result<Ensured, ControllerError> {
    let unchanged = |state| Ensured {
        state,
        in_force: standing.in_force.clone(),
        look_again: None,
    };
    let Some(selection) = &valid.selection else {
        withdraw(context, agent, valid).await?;
        return Ok(Ensured {
            state: InjectionState::NotWanted,
            in_force: InForce::default(),
            look_again: None,
        });
    };
    let engine = match &context.engine {
        Ok(engine) => *engine,
        Err(message) => {
            return Ok(unchanged(InjectionState::Failed {
                reason: "ServerTooOld",
                message: message.clone(),
            }));
        }
    };
    if let Some(state) = engine::obstacle(context, engine).await? {
        return Ok(unchanged(state));
    }
    let Some(mode) = serving else {
        return Ok(unchanged(InjectionState::WaitingForAgents));
    };
    let recipe = topology(mode).recipe(valid, &context.environment);
    let input = input(context, valid, selection, &recipe, standing);
    let rendered = engine::render(context, engine, input).await?;
    if let Some(policy) = &rendered.policy {
        write(context, valid, POLICY, policy.clone()).await?;
    }
    if standing.in_force.policy.as_ref() != Some(&rendered.name)
        && let Err(refusal) = prove(context, valid, engine, &rendered, &recipe).await?
    {
        let message = format!(
            "a new policy failed its proof and was not bound; the previous one stays: {refusal}"
        );
        return Ok(unchanged(InjectionState::Failed {
            reason: "ProofFailed",
            message,
        }));
    }
    let in_force = bind(context, valid, engine, &rendered, &recipe, standing).await?;
    let state = show(context, valid, engine, &rendered, &recipe, &in_force).await?;
    let look_again = if state == InjectionState::InForce {
        sweep_own(context, valid, engine, &rendered, &recipe, &in_force).await?
    } else {
        None
    };
    Ok(Ensured {
        state,
        in_force,
        look_again,
    })
}

/// What stands for injection: of the engine that is used, or, until that has been put in force, of the
/// other one.
pub(crate) fn binding(
    context: &Context,
    name: &str,
    is_ours: impl Fn(&DynamicObject) -> bool,
) -> Option<Arc<DynamicObject>> {
    let preferred = context.engine.clone().unwrap_or(Engine::Policy);
    [preferred, engine::other(preferred)]
        .into_iter()
        .filter_map(|engine| cached(context, engine::binding_kind(engine), name))
        .find(|object| is_ours(object))
}

fn input(
    context: &Context,
    valid: &ValidAgent,
    selection: &Selection,
    recipe: &Recipe,
    standing: &Standing,
) -> PolicyInput {
    let workloads = valid.spec.workloads.clone().unwrap_or_default();
    PolicyInput {
        namespace: valid.namespace.clone(),
        name: valid.name.clone(),
        uid: valid.uid.clone(),
        recipe: recipe.clone(),
        selection: selection.clone(),
        exclusions: standing.exclusions.clone(),
        excluded_namespaces: context
            .environment
            .excluded_namespaces()
            .map(Into::into)
            .collect(),
        canary_namespace: context.canary_namespace.clone(),
        on_failure: workloads.on_injection_failure,
        owner_reference: context.installation.clone(),
    }
}

/// Shows on dry-run pods of the canary namespace that the engine does what the function says. The
/// inner error says what it did instead.
async fn prove(
    context: &Context,
    valid: &ValidAgent,
    engine: Engine,
    rendered: &Rendered,
    recipe: &Recipe,
) -> Result<Result<(), String>, ControllerError> {
    let kind = engine::binding_kind(engine);
    let written = write(context, valid, kind, rendered.canary.clone()).await?;
    let pods = canary::probe_pods(recipe, &rendered.hash);
    let proof = probe(context, &pods, recipe).await?;
    let name = rendered.canary["metadata"]["name"]
        .as_str()
        .unwrap_or_default();
    // The cache may not know yet what was written a moment ago.
    let known = || cached(context, kind, name).and_then(|binding| binding.uid());
    let uid = written.and_then(|binding| binding.uid()).or_else(known);
    remove(context, kind, name, uid).await?;
    if let Err(refusal) = &proof {
        tracing::warn!(
            namespace = valid.namespace,
            name = valid.name,
            refusal,
            "policy failed its proof"
        );
    }
    Ok(proof)
}

/// Creates pods by dry-run until all come out as the function says, or time is up. The inner error is
/// what was seen last instead.
async fn probe(
    context: &Context,
    pods: &[Value],
    recipe: &Recipe,
) -> Result<Result<(), String>, ControllerError> {
    let begun = std::time::Instant::now();
    let mut outcome = try_probes(context, pods, recipe).await?;
    for _ in 1..ATTEMPTS {
        if outcome.is_ok() || begun.elapsed() > PROOF {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        outcome = try_probes(context, pods, recipe).await?;
    }
    Ok(outcome)
}

async fn try_probes(
    context: &Context,
    pods: &[Value],
    recipe: &Recipe,
) -> Result<Result<(), String>, ControllerError> {
    for pod in pods {
        let answer = match dry_run(context, pod).await? {
            Ok(answer) => answer,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Err(mismatch) = canary::compare(pod, &answer, recipe, &context.canary_namespace) {
            return Ok(Err(mismatch.to_string()));
        }
    }
    Ok(Ok(()))
}

/// Creates a pod of the canary namespace by dry-run. The server's refusal is an answer, not an error.
async fn dry_run(context: &Context, pod: &Value) -> Result<Result<Value, String>, ControllerError> {
    let resource = ApiResource::erase::<Pod>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(context.client.clone(), &context.canary_namespace, &resource);
    let parameters = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pod: DynamicObject = match serde_json::from_value(pod.clone()) {
        Ok(pod) => pod,
        Err(error) => return Ok(Err(error.to_string())),
    };
    match api.create(&parameters, &pod).await {
        Ok(answer) => Ok(Ok(serde_json::to_value(answer).unwrap_or_default())),
        Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
        Err(error) => Err(ControllerError::api("create a canary pod by dry-run")(
            error,
        )),
    }
}

/// Moves the real binding, then lets selected pods that come out uninjected be warned about.
async fn bind(
    context: &Context,
    valid: &ValidAgent,
    engine: Engine,
    rendered: &Rendered,
    recipe: &Recipe,
    standing: &Standing,
) -> Result<InForce, ControllerError> {
    let name = rendered.name.clone();
    let moved = standing.in_force.policy.as_deref() != Some(name.as_str());
    let bound_at = standing
        .in_force
        .bound_at
        .filter(|_| !moved)
        .unwrap_or_else(Context::now);
    let because = standing
        .in_force
        .because
        .clone()
        .filter(|_| !moved)
        .unwrap_or_else(|| standing.because.clone());
    let version = context.environment.operator_version.clone();
    let mut binding = rendered.binding.clone();
    binding["metadata"]["annotations"][names::ANNOTATION_BECAUSE] = because.clone().into();
    binding["metadata"]["annotations"][names::ANNOTATION_OPERATOR] = version.clone().into();
    binding["metadata"]["annotations"][names::ANNOTATION_RECIPE] = Value::String(recipe.hash());
    binding["metadata"]["annotations"][names::ANNOTATION_BOUND_AT] =
        Value::String(bound_at.to_string());
    write(context, valid, engine::binding_kind(engine), binding).await?;
    if moved {
        context.remember_probe(&valid.uid, None);
        tracing::info!(namespace = valid.namespace, name = valid.name, mode = %recipe.mode, policy = name, "serving");
    }
    let [warning, warning_binding] = rendered.warnings.clone();
    write(context, valid, WARNING, warning).await?;
    write(context, valid, WARNING_BINDING, warning_binding).await?;
    Ok(InForce {
        mode: Some(recipe.mode),
        recipe: Some(recipe.hash()),
        selection: valid.selection.clone(),
        policy: Some(name),
        bound_at: Some(bound_at),
        because: Some(because),
        written_by: Some(version),
    })
}

/// Asks the server, through the real binding, whether a pod created now is injected. While the other
/// engine still stands, which may have failed, only the new one is asked.
async fn show(
    context: &Context,
    valid: &ValidAgent,
    engine: Engine,
    rendered: &Rendered,
    recipe: &Recipe,
    in_force: &InForce,
) -> Result<InjectionState, ControllerError> {
    let state = format!("{in_force:?}");
    if context.was_probed(&valid.uid, &state) {
        return Ok(InjectionState::InForce);
    }
    let others = engine::binding_kind(engine::other(engine));
    let pods = if owned(context, others, valid).is_empty() {
        [canary::in_force_pod(&recipe.agent)]
    } else {
        [canary::engine_pod(&rendered.hash)]
    };
    let Err(refusal) = probe(context, &pods, recipe).await? else {
        context.remember_probe(&valid.uid, Some(state));
        return Ok(InjectionState::InForce);
    };
    let message = format!("a pod created by dry-run was not injected: {refusal}");
    Ok(InjectionState::Failed {
        reason: "NotInForce",
        message,
    })
}

/// As [`show`], for an object whose present spec is refused: its last good recipe is known by its hash
/// only, which is what an injected pod carries.
pub(crate) async fn show_standing(
    context: &Context,
    agent: &OtelAgent,
    in_force: &InForce,
) -> Result<InjectionState, ControllerError> {
    let (uid, state) = (agent.uid().unwrap_or_default(), format!("{in_force:?}"));
    if context.was_probed(&uid, &state) {
        return Ok(InjectionState::InForce);
    }
    let label = names::agent_label(&agent.namespace().unwrap_or_default(), &agent.name_any());
    let seen = given_now(context, &label).await?;
    if in_force.recipe.as_ref() == Some(&seen) {
        context.remember_probe(&uid, Some(state));
        return Ok(InjectionState::InForce);
    }
    let message = format!("a pod created by dry-run was not injected as it should be: {seen}");
    Ok(InjectionState::Failed {
        reason: "NotInForce",
        message,
    })
}

/// Hash of the recipe that a pod created now is given, or what happens to it instead; asked of the server.
pub(crate) async fn given_now(context: &Context, agent: &str) -> Result<String, ControllerError> {
    let answer = dry_run(context, &canary::in_force_pod(agent)).await?;
    Ok(answer.map_or_else(
        |refusal| refusal,
        |pod| {
            let recipe = pod["metadata"]["labels"][names::LABEL_CONFIG].as_str();
            recipe.unwrap_or("nothing").to_owned()
        },
    ))
}

/// Takes injection away: binding first, so that no binding ever points to nothing.
async fn withdraw(
    context: &Context,
    agent: &OtelAgent,
    valid: &ValidAgent,
) -> Result<(), ControllerError> {
    let all = ADMISSION_KINDS.map(|kind| (kind, owned(context, kind, valid)));
    if all.iter().any(|(_, objects)| !objects.is_empty()) {
        fresh::spec(context, agent).await?;
    }
    for (kind, objects) in all {
        for object in objects {
            remove(context, kind, &object.name_any(), object.uid()).await?;
        }
    }
    Ok(())
}

/// Removes what the binding has left, policies and the objects of the other engine, once every API
/// server must have seen it; how long until then, if there is any.
async fn sweep_own(
    context: &Context,
    valid: &ValidAgent,
    engine: Engine,
    rendered: &Rendered,
    recipe: &Recipe,
    in_force: &InForce,
) -> Result<Option<Duration>, ControllerError> {
    let since = in_force.bound_at.unwrap_or(Timestamp::MAX);
    let others = engine::binding_kind(engine::other(engine));
    let bindings = owned(context, others, valid);
    let mut policies = owned(context, POLICY, valid);
    policies.retain(|object| Some(object.name_any()) != in_force.policy);
    if bindings.is_empty() && policies.is_empty() {
        return Ok(None);
    }
    if let Some(wait) = remaining(since, Context::now(), KEEP_OLD) {
        return Ok(Some(wait));
    }
    let live = fresh::in_force(context, valid, in_force).await?;
    if (&live.policy, live.bound_at) != (&in_force.policy, in_force.bound_at) {
        return Err(ControllerError::StaleView(engine::binding_kind(engine)));
    }
    if !bindings.is_empty() {
        // So far either engine could have injected; this asks the new one alone.
        let asking = [canary::engine_pod(&rendered.hash)];
        if let Err(refusal) = probe(context, &asking, recipe).await? {
            tracing::warn!(
                namespace = valid.namespace,
                name = valid.name,
                refusal,
                "the engine before stays: the new one does not inject by itself"
            );
            return Ok(Some(KEEP_OLD));
        }
        context.remember_probe(&valid.uid, None);
    }
    for (kind, objects) in [(others, bindings), (POLICY, policies)] {
        for object in objects {
            remove(context, kind, &object.name_any(), object.uid()).await?;
        }
    }
    Ok(None)
}

async fn write(
    context: &Context,
    valid: &ValidAgent,
    kind: &'static str,
    intent: Value,
) -> Result<Option<DynamicObject>, ControllerError> {
    let name = intent["metadata"]["name"].as_str().unwrap_or_default();
    let live =
        cached(context, kind, name).and_then(|object| serde_json::to_value(object.as_ref()).ok());
    let written = apply::cluster_object(
        &context.client,
        &valid.owner(),
        (kind, &admission_resource(kind)),
        intent,
        live.as_ref(),
    )
    .await?;
    if written.is_some() {
        context.metrics.wrote(kind, "apply");
    }
    Ok(written)
}

/// Removes exactly the object of this uid; without one it has been seen to be gone.
pub(crate) async fn remove(
    context: &Context,
    kind: &'static str,
    name: &str,
    uid: Option<String>,
) -> Result<(), ControllerError> {
    if uid.is_none() {
        return Ok(());
    }
    let api: Api<DynamicObject> = Api::all_with(context.client.clone(), &admission_resource(kind));
    apply::delete_named(&api, name, uid, None).await?;
    context.metrics.wrote(kind, "delete");
    Ok(())
}

fn cached(context: &Context, kind: &str, name: &str) -> Option<Arc<DynamicObject>> {
    let resource = admission_resource(kind);
    context
        .stores
        .admission
        .get(kind)?
        .get(&ObjectRef::new_with(name, resource))
}

/// Objects of a kind that carry an owner's uid and its name: a copy under another name is its maker's.
fn owned(context: &Context, kind: &str, valid: &ValidAgent) -> Vec<Arc<DynamicObject>> {
    let Some(store) = context.stores.admission.get(kind) else {
        return Vec::new();
    };
    let own = (valid.namespace.clone(), valid.name.clone());
    store.state_filter(|object| {
        let named = names::owner_of_cluster_object(&object.name_any());
        belongs(object, &valid.uid) && named.as_ref() == Some(&own)
    })
}

fn belongs(object: &DynamicObject, uid: &str) -> bool {
    object
        .labels()
        .get(names::LABEL_OWNER_UID)
        .is_some_and(|owner| owner == uid)
}
