//! One reconcile as values: the observation, the plan and the outcome.
//!
//! | module | says |
//! |---|---|
//! | [`active`] | what new pods get now, as the active binding records it |
//! | [`observation`] | everything that the caches hold about one `OtelAgent`, read once |
//! | [`step`] | what one reconcile does, and what the API server must confirm before it |
//! | [`contest`] | whether somebody else undoes what the operator writes |
//! | [`mod@plan`] | the steps from what is observed to what is desired |
//! | [`injection`] | of these, the steps that change what is injected |
//! | [`overlap`] | which `OtelAgent`s may select the same pods |
//! | [`outcome`] | what the steps achieved, and the facts for the status |
//!
//! The operator fills an [`Observation`], executes the [`Step`]s and reports the [`Outcome`].

pub mod active;
pub mod contest;
pub mod injection;
pub mod observation;
pub mod outcome;
pub mod overlap;
pub mod plan;
pub mod step;

pub use active::Active;
pub use injection::{Engines, PolicyEngine, Render, binding_kind, other, plan_refused};
pub use observation::{Observation, ObservedWorkload, Subject};
pub use outcome::{Outcome, facts, refused};
pub use plan::{modes, plan};
pub use step::{AdmissionObject, Correction, Intent, Plan, Precondition, Step};
