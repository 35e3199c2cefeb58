//! Asks the API server directly, past the caches: whether preconditions hold, and what becomes of a pod.
//!
//! A watch can lag as long as its connection lives, and a replica's caches may be old when it becomes the
//! leader. These reads name no resource version, so the API server answers with the current state
//! (KEP-2340). The holder of the lease is the only writer, so the answer stays true.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ApiResource, DynamicObject, ListParams, PartialObjectMeta, PostParams};
use kube::{Api, ResourceExt};
use otelagent_api::{Mode, OtelAgent};
use otelagent_core::inject::difference::{Answer, Judgement, compare, judge, judge_hash};
use otelagent_core::inject::kinds::WEBHOOK_CONFIGURATION;
use otelagent_core::inject::{Recipe, canary};
use otelagent_core::names;
use otelagent_core::read::PartialPod;
use otelagent_core::reconcile::{Active, Correction, Plan, Precondition, binding_kind};
use serde_json::{Value, json};

use super::context::{Context, Reconciliation};
use super::error::{ControllerError, Result};
use crate::runtime::client::next_page;

/// How many attempts a verification has: a new policy takes up to a second to take effect.
const ATTEMPTS: u32 = 20;
/// The pause between two attempts.
const PAUSE: Duration = Duration::from_millis(250);
/// The time limit of a verification: each attempt is slow if a webhook does not answer.
const LONGEST: Duration = Duration::from_secs(15);

/// Pods of a page of a list: all agents of a large cluster at once took a hundred mebibytes.
const PAGE: u32 = 500;

/// What shows the limits of namespaces. These only warn, so without them everything else goes on, as without events.
const LIMITS: [&str; 2] = ["limitranges", "resourcequotas"];

/// Checks that the operator sees what an `OtelAgent` of this namespace depends on. Returns what it may not do of that
/// which shows the limits of namespaces.
///
/// # Errors
/// [`ControllerError::RightsMissing`] or [`ControllerError::PlatformRightsMissing`] if the API server refuses to show
/// it, [`ControllerError::StaleView`] until the caches are filled.
pub(super) async fn check_rights(context: &Context, namespace: &str) -> Result<Option<String>> {
    let refusals = &context.stores.refusals;
    let mut lacking = Vec::new();
    for watched in refusals.concerning(namespace) {
        let (kind, plural) = (&watched.resource.kind, &watched.resource.plural);
        if kind == WEBHOOK_CONFIGURATION && !context.is_watched(kind) {
            continue;
        }
        let verb = watched.refused_verb(&context.client).await;
        let verb = verb.map_err(ControllerError::api(format!("list {plural}")))?;
        let what = match (verb, &watched.namespace) {
            (None, _) => {
                refusals.permitted(&watched);
                continue;
            }
            (Some(verb), None) => format!("{verb} {plural}"),
            (Some(verb), Some(within)) => format!("{verb} {plural} in namespace {within}"),
        };
        if LIMITS.contains(&plural.as_str()) {
            lacking.push(what);
        } else if plural == "events" {
            // They only explain.
        } else if let Some(namespace) = watched.namespace {
            return Err(ControllerError::PlatformRightsMissing { what, namespace });
        } else {
            return Err(ControllerError::RightsMissing { what });
        }
    }
    match context.stores.unfilled(namespace) {
        Some(kind) => Err(ControllerError::StaleView(kind)),
        None => Ok((!lacking.is_empty()).then(|| lacking.join(" and "))),
    }
}

impl Reconciliation<'_> {
    /// Checks all preconditions of a plan's steps. The corrections say what is true instead.
    ///
    /// # Errors
    /// [`ControllerError::StaleView`] if the spec or the binding has changed: these caches are too old to
    /// decide by.
    pub(super) async fn confirm(self, plan: &Plan) -> Result<Vec<Correction>> {
        let mut corrections = Vec::new();
        for precondition in plan.preconditions() {
            match precondition {
                Precondition::SpecUnchanged => self.spec_unchanged().await?,
                Precondition::ActiveUnchanged => self.active_unchanged().await?,
                Precondition::WorkloadReady(mode) => {
                    if !self.workload_ready(mode).await? {
                        corrections.push(Correction::NotReady(mode));
                    }
                }
                Precondition::Unused(mode) => {
                    let is_used = self.is_used(mode).await?;
                    corrections.push(Correction::Used(mode, is_used));
                }
            }
        }
        Ok(corrections)
    }

    async fn spec_unchanged(self) -> Result<()> {
        let agent = self.observation.agent;
        let namespace = agent.namespace().unwrap_or_default();
        let api: Api<OtelAgent> = Api::namespaced(self.context.client.clone(), &namespace);
        let found = api.get_metadata_opt(&agent.name_any()).await;
        let found = found.map_err(ControllerError::api("read the spec's generation"))?;
        let is_same = found.is_some_and(|live| {
            live.metadata.uid == agent.metadata.uid
                && live.metadata.generation == agent.metadata.generation
                && live.metadata.deletion_timestamp.is_none()
        });
        let stale = ControllerError::StaleView("OtelAgent");
        is_same.then_some(()).ok_or(stale)
    }

    async fn active_unchanged(self) -> Result<()> {
        let Ok(chosen) = self.context.engine else {
            return Ok(());
        };
        let kind = binding_kind(self.observation.active.engine(chosen));
        let is_same = self
            .active(kind)
            .await?
            .is_none_or(|active| active == self.observation.active);
        is_same
            .then_some(())
            .ok_or(ControllerError::StaleView(kind))
    }

    /// The binding as the API server has it now. `None` if there can be none: the operator may not read a kind that
    /// it does not watch, whose right comes with the manifests that make the operator create such objects. Of a kind
    /// that it watches, a refusal says nothing: a server that has not read its roles yet refuses everything.
    async fn active(self, kind: &'static str) -> Result<Option<Active>> {
        let api = self.context.admission(kind);
        let namespace = self.observation.agent.namespace().unwrap_or_default();
        let name = names::cluster_object(&namespace, &self.observation.agent.name_any(), None);
        // The labels of the watch: without them the API server would speak of what the caches cannot see.
        let query = ListParams::default()
            .fields(&format!("metadata.name={name}"))
            .labels(&names::managed_selector())
            .limit(1);
        let found = match api.list(&query).await {
            Err(kube::Error::Api(status))
                if status.is_not_found()
                    || status.is_forbidden() && !self.context.is_watched(kind) =>
            {
                return Ok(None);
            }
            found => found.map_err(ControllerError::api("read the active binding"))?,
        };
        let uid = self.observation.agent.uid().unwrap_or_default();
        let own = found.items.iter().find(|binding| {
            let owner = binding.labels().get(names::LABEL_OWNER_UID);
            owner.is_some_and(|owner| *owner == uid)
        });
        let own = own.and_then(|binding| serde_json::to_value(binding).ok());
        Ok(Some(
            own.map(|binding| Active::of(&binding)).unwrap_or_default(),
        ))
    }

    /// Whether a mode's agent workload exists as in the caches, and serves at least as many nodes. Always
    /// true in mode Sidecar.
    async fn workload_ready(self, mode: Mode) -> Result<bool> {
        if !mode.on_nodes() {
            return Ok(true);
        }
        let Some(cached) = self.observation.workloads.get(&mode) else {
            return Ok(false);
        };
        let metadata = &cached.object["metadata"];
        let namespace = self.observation.agent.namespace().unwrap_or_default();
        let api = Api::<DaemonSet>::namespaced(self.context.client.clone(), &namespace);
        let name = metadata["name"].as_str().unwrap_or_default();
        let live = api.get_opt(name).await;
        let live = live.map_err(ControllerError::api("read an agent workload"))?;
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
        // The DaemonSet controller counts with a delay, and only nodes that should have an agent.
        Ok(self.nodes_served(mode).await? >= served)
    }

    /// Nodes with a ready agent of a mode.
    async fn nodes_served(self, mode: Mode) -> Result<i32> {
        let namespace = self.observation.agent.namespace().unwrap_or_default();
        let api = Api::<PartialPod>::namespaced(self.context.client.clone(), &namespace);
        let (owner, workload) = (names::LABEL_OWNER, names::LABEL_WORKLOAD);
        let selector = format!("{owner}={},{workload}={mode}", self.observation.label());
        let mut query = ListParams::default().labels(&selector).limit(PAGE);
        let mut nodes = BTreeSet::new();
        loop {
            let page = api.list(&query).await;
            let page = page.map_err(ControllerError::api("count the ready agents"))?;
            let ready = page.items.into_iter();
            let ready = ready.filter(|pod| pod.ready && pod.placed && !pod.terminating);
            nodes.extend(ready.filter_map(|pod| pod.node));
            if !next_page(&mut query, &page.metadata) {
                return Ok(i32::try_from(nodes.len()).unwrap_or(i32::MAX));
            }
        }
    }

    /// Whether any live pod uses a mode.
    pub(super) async fn is_used(self, mode: Mode) -> Result<bool> {
        let api = Api::<PartialObjectMeta<Pod>>::all(self.context.client.clone());
        let (agent, of_mode) = (names::LABEL_AGENT, names::LABEL_MODE);
        let query = ListParams::default()
            .labels(&format!(
                "{agent}={},{of_mode}={mode}",
                self.observation.label()
            ))
            .fields("status.phase!=Succeeded,status.phase!=Failed")
            .limit(1);
        let found = api.list(&query).await;
        let found = found.map_err(ControllerError::api("count the users of an old route"))?;
        Ok(!found.items.is_empty())
    }
}

impl Context {
    /// Creates pods by dry run until all are as the recipe says, or the time is up.
    pub(super) async fn verify(&self, pods: &[Value], recipe: &Recipe) -> Result<Judgement> {
        let begun = Instant::now();
        // What others make of each pod; asked for only if the pod is not as it would be without them.
        let mut plain: Vec<Option<Answer>> = vec![None; pods.len()];
        let mut attempts = 0;
        loop {
            attempts += 1;
            let judgement = self.try_once(pods, &mut plain, recipe).await?;
            let is_wrong = matches!(judgement, Judgement::Wrong(_));
            if !is_wrong || attempts == ATTEMPTS || begun.elapsed() > LONGEST {
                return Ok(judgement);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_once(
        &self,
        pods: &[Value],
        plain: &mut [Option<Answer>],
        recipe: &Recipe,
    ) -> Result<Judgement> {
        let namespace = &self.canary_namespace;
        for (pod, plain) in pods.iter().zip(plain) {
            let answer = self.dry_run(pod).await?;
            if answer
                .as_ref()
                .is_ok_and(|answer| compare(pod, answer, recipe, namespace).is_ok())
            {
                continue;
            }
            let plain = match plain {
                Some(plain) => plain,
                none => none.insert(self.dry_run(&canary::unlabelled(pod)).await?),
            };
            let judgement = judge(pod, plain, &answer, recipe, namespace);
            if judgement != Judgement::AsExpected {
                return Ok(judgement);
            }
        }
        Ok(Judgement::AsExpected)
    }

    /// Whether a pod created now gets the recipe with this hash.
    pub(super) async fn gets_recipe(&self, probe: &Value, hash: &str) -> Result<Judgement> {
        let answer = self.dry_run(probe).await?;
        let plain = match &answer {
            Ok(_) => answer.clone(),
            Err(_) => self.dry_run(&canary::unlabelled(probe)).await?,
        };
        Ok(judge_hash(hash, &plain, &answer))
    }

    /// Creates a pod of the canary namespace by dry run.
    async fn dry_run(&self, pod: &Value) -> Result<Answer> {
        let resource = ApiResource::erase::<Pod>(&());
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.canary_namespace, &resource);
        let parameters = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let pod: DynamicObject = match serde_json::from_value(pod.clone()) {
            Ok(pod) => pod,
            Err(error) => return Ok(Err(error.to_string())),
        };
        match api.create(&parameters, &pod).await {
            Ok(answer) => Ok(Ok(json!(answer))),
            Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
            Err(error) => Err(ControllerError::api("create a canary pod by dry run")(
                error,
            )),
        }
    }
}
