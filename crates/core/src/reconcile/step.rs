//! What one reconcile does: changes of the cluster, and what the API server must confirm before each.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use otelagent_api::Mode;
use serde_json::Value;

use super::active::Active;
use crate::inject::Recipe;
use crate::names;
use crate::status::InjectionState;
use crate::switching;

/// Annotation with a hash over the whole intent: a field that is no longer wanted shows only there.
const APPLIED: &str = "otelagent.dev/applied";

/// What one reconcile does.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which modes' objects must exist, and which mode serves; `None` for a refused spec.
    pub switch: Option<switching::Plan>,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// What is known of injection before the steps are executed.
    pub injection: InjectionState,
    /// When to reconcile again though nothing may have changed.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// Nothing but what is known of injection.
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
    /// Whether the object that bears the name is known to be this `OtelAgent`'s. Where it is not, the API
    /// server must confirm that nobody else made it, since an apply with force takes it over.
    pub is_ours: bool,
}

impl Intent {
    /// Adds the hash of the body to its annotations.
    pub fn sealed(kind: &'static str, mut body: Value, is_ours: bool) -> Self {
        let digest = names::hash(&body.to_string(), 16);
        body["metadata"]["annotations"][APPLIED] = Value::String(digest);
        Self {
            kind,
            name: body["metadata"]["name"].as_str().unwrap_or_default().into(),
            body,
            is_ours,
        }
    }
}

/// A cluster-scoped object that bears the `OtelAgent`'s name.
#[derive(Clone, Debug, PartialEq)]
pub struct AdmissionObject {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<String>,
    /// Whether it carries the uid of this `OtelAgent`. A copy under another name is its maker's.
    pub is_ours: bool,
    /// The object, without its managers.
    pub object: Value,
}

/// What the caches suggest and only the API server can confirm: a watch may lag, and what takes away or sends
/// pods elsewhere cannot be put right afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precondition {
    /// The spec is the one that was planned for.
    SpecUnchanged,
    /// The active binding is the one that was observed.
    ActiveUnchanged,
    /// The agent workload of a mode exists as it was observed, with no fewer nodes served.
    WorkloadReady(Mode),
    /// No live pod uses a mode.
    Unused(Mode),
}

/// What the API server said instead of confirming a precondition; planning starts again with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// The agent workload of a mode is not ready.
    NotReady(Mode),
    /// Whether some live pod uses a mode.
    Used(Mode, bool),
}

/// One change of the cluster. Every step can be repeated, and a crash between two steps changes nothing: the
/// next reconcile observes and plans anew.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Applies an object of the `OtelAgent`'s own namespace.
    Apply(Intent),
    /// From here on a mode serves. Writes nothing; carries what must be true before pods are sent there.
    CutOver(Mode),
    /// Applies a policy that nothing binds yet.
    WritePolicy(Intent),
    /// Shows on dry-run pods of the canary namespace that the engine does what the recipe says.
    Verify(Box<Verification>),
    /// Moves the active binding, and tells whoever creates a pod that it was not injected.
    Activate(Box<Activation>),
    /// Asks the API server whether a pod created now is injected.
    Confirm(Confirmation),
    /// Removes older policies and the other engine's objects.
    Retire(Retirement),
    /// Takes injection away, bindings first.
    Withdraw(Vec<AdmissionObject>),
    /// Removes the objects of a mode, Service first.
    Remove(Removal),
}

/// See [`Step::Verify`].
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// What lets the engine act on the canary's pods.
    pub canary: Intent,
    /// Pods that together take every branch of the recipe.
    pub probes: Vec<Value>,
    /// What must come of them.
    pub recipe: Recipe,
}

/// See [`Step::Activate`].
#[derive(Clone, Debug, PartialEq)]
pub struct Activation {
    /// The binding, without the moment at which it is bound.
    pub binding: Value,
    /// Its kind.
    pub kind: &'static str,
    /// Whether the object of its name is ours.
    pub is_ours: bool,
    /// What is active afterwards; `bound_at` is empty where the binding moves.
    pub active: Active,
    /// Objects that follow, in order.
    pub warnings: Vec<Intent>,
}

impl Activation {
    /// Whether another policy becomes the active one.
    pub fn moves(&self) -> bool {
        self.active.bound_at.is_none()
    }

    /// The binding as it is applied at a moment, and what is active then.
    pub fn at(&self, now: Timestamp) -> (Intent, Active) {
        let active = Active {
            bound_at: self.active.bound_at.or(Some(now)),
            ..self.active.clone()
        };
        let mut body = self.binding.clone();
        let moment = active.bound_at.map(|at| at.to_string());
        body["metadata"]["annotations"][names::ANNOTATION_BOUND_AT] = moment.into();
        (Intent::sealed(self.kind, body, self.is_ours), active)
    }
}

/// See [`Step::Confirm`].
#[derive(Clone, Debug, PartialEq)]
pub struct Confirmation {
    /// The pod that is created by dry run.
    pub probe: Value,
    /// What must come of it.
    pub expected: Expectation,
}

/// What a pod created now must be given.
#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    /// Everything this recipe says.
    Recipe(Box<Recipe>),
    /// A recipe with this hash: all that is known of the last good one where the present spec is refused.
    Hash(String),
}

/// See [`Step::Retire`].
#[derive(Clone, Debug, PartialEq)]
pub struct Retirement {
    /// Bindings of the other engine, then policies that are no longer bound.
    pub objects: Vec<AdmissionObject>,
    /// Where the other engine goes: a pod that shows that the present one injects by itself.
    pub alone: Option<(Value, Box<Recipe>)>,
}

/// See [`Step::Remove`].
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// The mode.
    pub mode: Mode,
    /// Its objects as they were observed, in the order of removal: kind and object.
    pub objects: Vec<(&'static str, Value)>,
}

/// How long an older policy stays after the binding moved on, for API servers that have not seen it; as long
/// both engines act after a change of the engine, which is harmless, since the second adds nothing.
pub const KEEP_OLD: Duration = Duration::from_secs(30);

impl Step {
    /// What the API server must confirm before any step of the plan is executed.
    pub fn preconditions(&self) -> Vec<Precondition> {
        use Precondition::{ActiveUnchanged, SpecUnchanged, Unused, WorkloadReady};
        match self {
            Self::CutOver(mode) => vec![SpecUnchanged, ActiveUnchanged, WorkloadReady(*mode)],
            // An old view of the spec or of the binding would send new pods back to where they came from.
            Self::Activate(_) => vec![SpecUnchanged, ActiveUnchanged],
            Self::Retire(_) => vec![ActiveUnchanged],
            Self::Withdraw(_) => vec![SpecUnchanged],
            Self::Remove(removal) => vec![SpecUnchanged, ActiveUnchanged, Unused(removal.mode)],
            Self::Apply(_) | Self::WritePolicy(_) | Self::Verify(_) | Self::Confirm(_) => {
                Vec::new()
            }
        }
    }
}
