//! Executes the steps of a plan, in order.

use otelagent_api::Mode;
use otelagent_core::reconcile::step::{
    Activation, Confirmation, Expectation, Removal, Retirement, Verification,
};
use otelagent_core::reconcile::{
    Active, AdmissionObject, Correction, Observation, Outcome, Plan, Step,
};
use otelagent_core::status::InjectionState;

use super::apply::{self, Scope};
use super::context::Context;
use super::error::ControllerError;
use super::live;

/// Asks the API server for everything that the steps of a plan presuppose, and returns what it corrected.
///
/// # Errors
/// If the API server does not answer, or the caches lag behind it.
pub(crate) async fn confirm(
    context: &Context,
    observation: &Observation<'_>,
    plan: &Plan,
) -> Result<Vec<Correction>, ControllerError> {
    let mut corrections = Vec::new();
    for precondition in plan.preconditions() {
        corrections.extend(live::confirm(context, observation, precondition).await?);
    }
    Ok(corrections)
}

/// Executes the steps; `outcome` says how far it came, also where one fails.
///
/// # Errors
/// The first step that fails ends it: a later reconcile goes on.
pub(crate) async fn execute(
    context: &Context,
    observation: &Observation<'_>,
    plan: &Plan,
    outcome: &mut Outcome,
) -> Result<(), ControllerError> {
    let executor = Executor {
        context,
        observation,
    };
    for step in &plan.steps {
        // A recipe that fails its verification leaves the active one in place.
        let is_failed = matches!(outcome.injection, InjectionState::Failed { .. });
        match step {
            Step::CutOver(mode) => tracing::debug!(%mode, "cuts over"),
            Step::Apply(intent) => executor.write(Scope::OwnNamespace, intent).await?,
            Step::WritePolicy(intent) => executor.write(Scope::Cluster, intent).await?,
            Step::Verify(verification) => executor.verify(verification, outcome).await?,
            Step::Activate(activation) if !is_failed => {
                executor.activate(activation, outcome).await?;
            }
            Step::Confirm(confirmation) if !is_failed => {
                outcome.injection = executor.ask(confirmation, &outcome.active).await?;
            }
            Step::Retire(retirement) if !is_failed => {
                executor.retire(retirement, outcome).await?;
            }
            Step::Activate(_) | Step::Confirm(_) | Step::Retire(_) => {}
            Step::Withdraw(objects) => {
                executor.delete(objects).await?;
                outcome.active = Active::default();
            }
            Step::Remove(removal) => executor.remove(removal, outcome).await?,
        }
    }
    Ok(())
}

struct Executor<'a> {
    context: &'a Context,
    observation: &'a Observation<'a>,
}

impl Executor<'_> {
    fn uid(&self) -> &str {
        let uid = self.observation.agent.metadata.uid.as_deref();
        uid.unwrap_or_default()
    }

    async fn write(
        &self,
        scope: Scope,
        intent: &otelagent_core::reconcile::Intent,
    ) -> Result<(), ControllerError> {
        apply::write(self.context, self.observation, scope, intent).await?;
        Ok(())
    }

    async fn verify(
        &self,
        verification: &Verification,
        outcome: &mut Outcome,
    ) -> Result<(), ControllerError> {
        let canary = &verification.canary;
        let written = apply::write(self.context, self.observation, Scope::Cluster, canary).await?;
        let verified = live::verify(self.context, &verification.probes, &verification.recipe);
        let verified = verified.await?;
        apply::delete_admission(self.context, canary.kind, &canary.name, written).await?;
        let Err(refusal) = verified else {
            return Ok(());
        };
        let label = self.observation.label();
        tracing::warn!(
            agent = label,
            refusal,
            "the new recipe failed its verification"
        );
        outcome.injection = InjectionState::Failed {
            reason: "VerificationFailed",
            message: format!(
                "a new policy failed its verification and was not bound; the previous one stays active: {refusal}"
            ),
        };
        Ok(())
    }

    async fn activate(
        &self,
        activation: &Activation,
        outcome: &mut Outcome,
    ) -> Result<(), ControllerError> {
        let (binding, active) = activation.at(Context::now());
        self.write(Scope::Cluster, &binding).await?;
        if activation.moves() {
            self.context.remember_probe(self.uid(), None);
            let mode = active.mode.map(Mode::as_str);
            let policy = active.policy.as_deref();
            tracing::info!(agent = self.observation.label(), mode, policy, "active");
            // What the binding has left goes once every API server has seen the move.
            outcome.requeue_within(Some(otelagent_core::reconcile::step::KEEP_OLD));
        }
        outcome.active = active;
        for warning in &activation.warnings {
            self.write(Scope::Cluster, warning).await?;
        }
        Ok(())
    }

    /// Asks whether a pod created now is injected. The answer is believed while nothing that it depends on
    /// changes.
    async fn ask(
        &self,
        confirmation: &Confirmation,
        active: &Active,
    ) -> Result<InjectionState, ControllerError> {
        let state = format!("{active:?}");
        if self.context.was_probed(self.uid(), &state) {
            return Ok(InjectionState::Active);
        }
        let problem = match &confirmation.expected {
            Expectation::Recipe(recipe) => {
                let probe = std::slice::from_ref(&confirmation.probe);
                let verified = live::verify(self.context, probe, recipe).await?;
                verified
                    .err()
                    .map(|seen| format!("was not injected: {seen}"))
            }
            Expectation::Hash(hash) => {
                let given = live::given_now(self.context, &confirmation.probe).await?;
                (given != *hash).then(|| format!("was not injected as it should be: {given}"))
            }
        };
        Ok(match problem {
            None => {
                self.context.remember_probe(self.uid(), Some(state));
                InjectionState::Active
            }
            Some(problem) => InjectionState::Failed {
                reason: "NotActive",
                message: format!("a pod created by dry run {problem}"),
            },
        })
    }

    async fn retire(
        &self,
        retirement: &Retirement,
        outcome: &mut Outcome,
    ) -> Result<(), ControllerError> {
        if let Some((probe, recipe)) = &retirement.alone {
            let probe = std::slice::from_ref(probe);
            if let Err(refusal) = live::verify(self.context, probe, recipe).await? {
                let agent = self.observation.label();
                tracing::warn!(
                    agent,
                    refusal,
                    "the engine before stays: the new one does not inject by itself"
                );
                outcome.requeue_within(Some(otelagent_core::reconcile::step::KEEP_OLD));
                return Ok(());
            }
            self.context.remember_probe(self.uid(), None);
        }
        self.delete(&retirement.objects).await
    }

    async fn delete(&self, objects: &[AdmissionObject]) -> Result<(), ControllerError> {
        for object in objects {
            let uid = object.uid.clone();
            apply::delete_admission(self.context, object.kind, &object.name, uid).await?;
        }
        Ok(())
    }

    async fn remove(
        &self,
        removal: &Removal,
        outcome: &mut Outcome,
    ) -> Result<(), ControllerError> {
        // The verification of a policy may have taken its time since the plan was confirmed.
        if live::is_used(self.context, self.observation, removal.mode).await? {
            outcome.requeue_within(Some(std::time::Duration::from_secs(1)));
            return Ok(());
        }
        for (kind, object) in &removal.objects {
            apply::delete_own(self.context, self.observation, kind, object).await?;
        }
        let mode = removal.mode;
        tracing::info!(agent = self.observation.label(), %mode, "the old route is removed");
        Ok(())
    }
}
