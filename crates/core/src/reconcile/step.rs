//! What one reconcile does: changes of the cluster, and what the API server must confirm before each.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use otelagent_api::Mode;
use serde_json::Value;

use super::active::Active;
use crate::build::{difference, is_as_wanted};
use crate::inject::Recipe;
use crate::names;
use crate::status::InjectionState;
use crate::switching;

/// Annotation with a hash of the whole intent, which reveals fields that are no longer wanted.
const APPLIED: &str = "otelagent.dev/applied";

/// What one reconcile does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which modes' objects must exist, and which mode serves; `None` for a refused spec.
    pub switch: Option<switching::SwitchPlan>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The state of injection before the steps are executed.
    pub injection: InjectionState,
    /// When to reconcile again even if nothing changes.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// A plan without steps.
    pub(super) fn only(injection: InjectionState) -> Self {
        Self {
            switch: None,
            steps: Vec::new(),
            injection,
            requeue_after: None,
        }
    }

    /// What the API server must confirm before any step is executed.
    pub fn preconditions(&self) -> BTreeSet<Precondition> {
        self.steps.iter().flat_map(Step::preconditions).collect()
    }
}

/// An object as the operator wants it, for server-side apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// The whole object, with the hash of itself as an annotation.
    pub body: Value,
    /// Whether the object with this name is known to belong to this `OtelAgent`. If not, the API server
    /// must confirm that it does not belong to somebody else, because a forced apply would take it over.
    pub is_ours: bool,
    /// If it exists and is to be changed: a hash of what is changed, and to what. The same again means that somebody
    /// else has undone it.
    pub undoes: Option<String>,
}

impl Intent {
    /// Adds the hash of the body to its annotations. `ours` is the object as it is, if it belongs to this
    /// `OtelAgent`.
    pub fn sealed(kind: &'static str, mut body: Value, ours: Option<&Value>) -> Self {
        let digest = names::hash(&body.to_string(), 16);
        let undoes = ours.and_then(|live| change(&digest, live, &body));
        body["metadata"]["annotations"][APPLIED] = Value::String(digest);
        Self {
            kind,
            name: body["metadata"]["name"].as_str().unwrap_or_default().into(),
            body,
            is_ours: ours.is_some(),
            undoes,
        }
    }

    /// What is not as wanted although it has just been written, in the terms of [`Self::undoes`]: the admission of
    /// others has changed it, so writing it again would change nothing.
    pub fn remains(&self, written: &Value) -> Option<String> {
        if is_as_wanted(written, &self.body) {
            return None;
        }
        let digest = self.body["metadata"]["annotations"][APPLIED].as_str();
        change(digest.unwrap_or_default(), written, &self.body)
    }
}

/// A hash of what an object has in place of what is wanted, and of what is wanted.
fn change(digest: &str, live: &Value, body: &Value) -> Option<String> {
    let change = difference(live, body)?;
    Some(names::hash(&format!("{digest} {change}"), 16))
}

/// A cluster-scoped object whose name contains that of the `OtelAgent`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdmissionObject {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<String>,
    /// Whether its label has the uid of this `OtelAgent`.
    pub is_ours: bool,
    /// The object, without its managers.
    pub object: Value,
}

/// A fact from the caches that the API server must confirm, because a watch may lag, and a removal or a new
/// route for pods cannot be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precondition {
    /// The spec has not changed since the plan.
    SpecUnchanged,
    /// The active binding has not changed since the observation.
    ActiveUnchanged,
    /// The agent workload of a mode exists as observed, and serves at least as many nodes.
    WorkloadReady(Mode),
    /// No live pod uses a mode.
    Unused(Mode),
}

/// What the API server said instead of confirming a precondition; planning starts again with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// The agent workload of a mode is not ready.
    NotReady(Mode),
    /// Whether any live pod uses a mode.
    Used(Mode, bool),
}

/// One change of the cluster. Every step can be repeated, and a crash between two steps changes nothing: the
/// next reconcile observes and plans again.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Applies an object of the `OtelAgent`'s own namespace.
    Apply(Intent),
    /// Has changed configuration mounted now, where an agent can take it over.
    Mount(Mount),
    /// A mode serves from here on. Writes nothing, but has the preconditions for sending pods there.
    CutOver(Mode),
    /// Applies a policy that no binding refers to yet.
    WritePolicy(Intent),
    /// Verifies with dry-run pods in the canary namespace that the engine does what the recipe says.
    Verify(Box<Verification>),
    /// Moves the active binding, and applies the policy that warns about pods without injection.
    Activate(Box<Activation>),
    /// Asks the API server by dry run whether a pod created now is injected.
    Confirm(Confirmation),
    /// Removes older policies and the other engine's objects.
    Retire(Retirement),
    /// Removes injection, bindings first.
    Withdraw(Vec<AdmissionObject>),
    /// Removes the objects of a mode, Service first.
    Remove(Removal),
}

/// See [`Step::Mount`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Name of the `ConfigMap`, without whose write there is nothing to mount.
    pub config_map: String,
    /// The agents' pods.
    pub pods: Vec<String>,
    /// Fingerprint of the configuration.
    pub configuration: String,
}

/// See [`Step::Verify`].
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// The binding for the canary's pods.
    pub canary: Intent,
    /// Pods that together take every branch of the recipe.
    pub probes: Vec<Value>,
    /// The expected result.
    pub recipe: Recipe,
}

/// See [`Step::Activate`].
#[derive(Clone, Debug, PartialEq)]
pub struct Activation {
    /// The binding, without the time of binding.
    pub binding: Value,
    /// Its kind.
    pub kind: &'static str,
    /// The object with its name as it is, if it belongs to this `OtelAgent`.
    pub live: Option<Value>,
    /// What is active afterwards; `bound_at` is empty if the binding moves.
    pub active: Active,
    /// Objects to apply after the binding, in order.
    pub warnings: Vec<Intent>,
}

impl Activation {
    /// Whether the active policy changes.
    pub fn moves(&self) -> bool {
        self.active.bound_at.is_none()
    }

    /// The binding with the time of its application, and what is active then.
    pub fn at(&self, now: Timestamp) -> (Intent, Active) {
        let active = Active {
            bound_at: self.active.bound_at.or(Some(now)),
            ..self.active.clone()
        };
        let mut body = self.binding.clone();
        let moment = active.bound_at.map(|at| at.to_string());
        body["metadata"]["annotations"][names::ANNOTATION_BOUND_AT] = moment.into();
        (Intent::sealed(self.kind, body, self.live.as_ref()), active)
    }
}

/// See [`Step::Confirm`].
#[derive(Clone, Debug, PartialEq)]
pub struct Confirmation {
    /// The dry-run pod.
    pub probe: Value,
    /// The expected result.
    pub expected: Expectation,
}

/// What a pod created now must get.
#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    /// Everything this recipe says.
    Recipe(Box<Recipe>),
    /// A recipe with this hash. If the current spec is refused, nothing else is known of the last valid
    /// one.
    Hash(String),
}

/// See [`Step::Retire`].
#[derive(Clone, Debug, PartialEq)]
pub struct Retirement {
    /// Bindings of the other engine, then policies that are no longer bound.
    pub objects: Vec<AdmissionObject>,
    /// When the other engine is removed: a pod that shows whether the current engine injects alone.
    pub alone: Option<(Value, Box<Recipe>)>,
}

/// See [`Step::Remove`].
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// The mode.
    pub mode: Mode,
    /// Its objects as observed, in the order of removal: kind and object.
    pub objects: Vec<(&'static str, Value)>,
}

/// How long an older policy stays after the binding has moved, for API servers that have not seen the move.
pub const KEEP_OLD: Duration = Duration::from_secs(30);
/// How long both engines act after a change of the engine, of which the second one adds nothing: a control plane that
/// is upgraded has API servers that do not know the new one, and the operator sees only the server that answers it.
pub const KEEP_ENGINE: Duration = Duration::from_hours(24);

impl Step {
    /// What the API server must confirm before any step of the plan is executed.
    pub fn preconditions(&self) -> Vec<Precondition> {
        use Precondition::{ActiveUnchanged, SpecUnchanged, Unused, WorkloadReady};
        match self {
            Self::CutOver(mode) => vec![SpecUnchanged, ActiveUnchanged, WorkloadReady(*mode)],
            // With an old view of the spec or the binding, new pods would get the previous route again.
            Self::Activate(_) => vec![SpecUnchanged, ActiveUnchanged],
            Self::Retire(_) => vec![ActiveUnchanged],
            Self::Withdraw(_) => vec![SpecUnchanged],
            Self::Remove(removal) => vec![SpecUnchanged, ActiveUnchanged, Unused(removal.mode)],
            Self::Apply(_)
            | Self::Mount(_)
            | Self::WritePolicy(_)
            | Self::Verify(_)
            | Self::Confirm(_) => Vec::new(),
        }
    }
}
