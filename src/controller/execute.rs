//! Executes the steps of a plan, in order.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use otelagent_api::Mode;
use otelagent_core::inject::difference::Judgement;
use otelagent_core::reconcile::step::{
    Activation, Confirmation, Expectation, KEEP_OLD, Removal, Retirement, Verification,
};
use otelagent_core::reconcile::{Active, AdmissionObject, Outcome, Plan, Step, injection};
use otelagent_core::status::InjectionState;

use super::apply;
use super::context::Reconciliation;
use super::error::Result;

/// When to reconcile again after the observed objects have changed.
const SOON: Duration = Duration::from_secs(1);

/// Executes the steps; `outcome` records the progress, even if a step fails.
///
/// # Errors
/// The first failed step ends the execution; a later reconcile continues.
pub(crate) async fn execute(
    reconciliation: Reconciliation<'_>,
    plan: &Plan,
    outcome: &mut Outcome,
) -> Result<()> {
    let mut executor = Executor {
        reconciliation,
        outcome,
    };
    for step in &plan.steps {
        executor.step(step).await?;
    }
    reconciliation.uncontested().await
}

struct Executor<'a> {
    reconciliation: Reconciliation<'a>,
    outcome: &'a mut Outcome,
}

impl Executor<'_> {
    async fn step(&mut self, step: &Step) -> Result<()> {
        // After a failed verification the active recipe stays.
        let is_failed = matches!(self.outcome.injection, InjectionState::Failed { .. });
        match step {
            Step::CutOver(mode) => tracing::debug!(%mode, "cuts over"),
            Step::Apply(intent) => {
                if self.reconciliation.write(intent).await?.is_some() {
                    self.outcome.applied.insert(intent.name.clone());
                }
            }
            Step::Mount(mount) if self.outcome.applied.contains(&mount.config_map) => {
                self.reconciliation.mount(mount).await;
            }
            Step::WritePolicy(intent) => {
                self.reconciliation.write(intent).await?;
            }
            Step::Verify(verification) => self.verify(verification).await?,
            Step::Activate(activation) if !is_failed => self.activate(activation).await?,
            Step::Confirm(confirmation) if !is_failed => {
                self.outcome.injection = self.ask(confirmation).await?;
            }
            Step::Retire(retirement) if !is_failed => self.retire(retirement).await?,
            Step::Mount(_) | Step::Activate(_) | Step::Confirm(_) | Step::Retire(_) => {}
            Step::Withdraw(objects) => {
                self.delete(objects).await?;
                self.outcome.active = Active::default();
            }
            Step::Remove(removal) => self.remove(removal).await?,
        }
        Ok(())
    }

    fn uid(&self) -> &str {
        let uid = self
            .reconciliation
            .observation
            .agent
            .metadata
            .uid
            .as_deref();
        uid.unwrap_or_default()
    }

    async fn verify(&mut self, verification: &Verification) -> Result<()> {
        let canary = &verification.canary;
        let written = self.reconciliation.write(canary).await?;
        let probes = &verification.probes;
        let judgement = self
            .reconciliation
            .context
            .verify(probes, &verification.recipe)
            .await?;
        apply::delete_admission(
            self.reconciliation.context,
            canary.kind,
            &canary.name,
            written,
        )
        .await?;
        let observation = self.reconciliation.observation;
        let canary = &self.reconciliation.context.canary_namespace;
        if let Some(failed) = injection::after_verification(observation, canary, judgement) {
            if let InjectionState::Failed { reason, message } = &failed {
                let agent = observation.label();
                tracing::warn!(agent, reason, message, "a new recipe is not activated");
            }
            self.outcome.injection = failed;
        }
        Ok(())
    }

    async fn activate(&mut self, activation: &Activation) -> Result<()> {
        let (binding, active) = activation.at(Timestamp::now());
        self.reconciliation.write(&binding).await?;
        if activation.moves() {
            self.reconciliation.context.remember_probe(self.uid(), None);
            let mode = active.mode.map(Mode::as_str);
            let policy = active.policy.as_deref();
            let agent = self.reconciliation.observation.label();
            tracing::info!(agent, mode, policy, "active");
            // Removes old objects once every API server has seen the binding move.
            self.outcome.requeue_within(Some(KEEP_OLD));
        }
        self.outcome.active = active;
        for warning in &activation.warnings {
            self.reconciliation.write(warning).await?;
        }
        Ok(())
    }

    /// Asks whether a pod created now is injected. The answer counts while nothing that it depends on
    /// changes.
    async fn ask(&self, confirmation: &Confirmation) -> Result<InjectionState> {
        let state = format!("{:?}", self.outcome.active);
        if self.reconciliation.context.was_probed(self.uid(), &state) {
            return Ok(InjectionState::Active);
        }
        let context = self.reconciliation.context;
        let probe = &confirmation.probe;
        let judgement = match &confirmation.expected {
            Expectation::Recipe(recipe) => {
                context.verify(std::slice::from_ref(probe), recipe).await?
            }
            Expectation::Hash(hash) => context.gets_recipe(probe, hash).await?,
        };
        let (observation, canary) = (self.reconciliation.observation, &context.canary_namespace);
        let found = injection::after_confirmation(observation, canary, judgement);
        if found == InjectionState::Active {
            context.remember_probe(self.uid(), Some(state));
        }
        Ok(found)
    }

    async fn retire(&mut self, retirement: &Retirement) -> Result<()> {
        if let Some((probe, recipe)) = &retirement.alone {
            let probe = std::slice::from_ref(probe);
            let judgement = self.reconciliation.context.verify(probe, recipe).await?;
            if judgement != Judgement::AsExpected {
                let agent = self.reconciliation.observation.label();
                tracing::warn!(
                    agent,
                    ?judgement,
                    "the engine before stays: the new one was not seen to inject by itself"
                );
                self.outcome.requeue_within(Some(KEEP_OLD));
                return Ok(());
            }
            self.reconciliation.context.remember_probe(self.uid(), None);
        }
        self.delete(&retirement.objects).await
    }

    async fn delete(&self, objects: &[AdmissionObject]) -> Result<()> {
        for object in objects {
            let uid = object.uid.clone();
            apply::delete_admission(self.reconciliation.context, object.kind, &object.name, uid)
                .await?;
        }
        Ok(())
    }

    async fn remove(&mut self, removal: &Removal) -> Result<()> {
        // The plan was confirmed before the verification, which may have taken long.
        if self.reconciliation.is_used(removal.mode).await? {
            self.outcome.requeue_within(Some(SOON));
            return Ok(());
        }
        for (kind, object) in &removal.objects {
            match self.reconciliation.delete_own(kind, object).await {
                // Its status changed meanwhile.
                Err(error) if error.reason() == "Conflict" => {
                    self.outcome.requeue_within(Some(SOON));
                    return Ok(());
                }
                deleted => deleted?,
            }
        }
        let mode = removal.mode;
        tracing::info!(agent = self.reconciliation.observation.label(), %mode, "the old route is removed");
        Ok(())
    }
}
