//! Executes the steps of a plan, in order.

use k8s_openapi::jiff::Timestamp;
use otelagent_api::Mode;
use otelagent_core::reconcile::step::{
    Activation, Confirmation, Expectation, KEEP_OLD, Removal, Retirement, Verification,
};
use otelagent_core::reconcile::{Active, AdmissionObject, Outcome, Plan, Step};
use otelagent_core::status::InjectionState;

use super::apply;
use super::context::Pass;
use super::error::Result;

/// Executes the steps; `outcome` says how far it came, also where one fails.
///
/// # Errors
/// The first step that fails ends it: a later reconcile goes on.
pub(crate) async fn execute(pass: Pass<'_>, plan: &Plan, outcome: &mut Outcome) -> Result<()> {
    let mut executor = Executor { pass, outcome };
    for step in &plan.steps {
        executor.step(step).await?;
    }
    Ok(())
}

struct Executor<'a> {
    pass: Pass<'a>,
    outcome: &'a mut Outcome,
}

impl Executor<'_> {
    async fn step(&mut self, step: &Step) -> Result<()> {
        // A recipe that fails its verification leaves the active one in place.
        let is_failed = matches!(self.outcome.injection, InjectionState::Failed { .. });
        match step {
            Step::CutOver(mode) => tracing::debug!(%mode, "cuts over"),
            Step::Apply(intent) | Step::WritePolicy(intent) => {
                self.pass.write(intent).await?;
            }
            Step::Verify(verification) => self.verify(verification).await?,
            Step::Activate(activation) if !is_failed => self.activate(activation).await?,
            Step::Confirm(confirmation) if !is_failed => {
                self.outcome.injection = self.ask(confirmation).await?;
            }
            Step::Retire(retirement) if !is_failed => self.retire(retirement).await?,
            Step::Activate(_) | Step::Confirm(_) | Step::Retire(_) => {}
            Step::Withdraw(objects) => {
                self.delete(objects).await?;
                self.outcome.active = Active::default();
            }
            Step::Remove(removal) => self.remove(removal).await?,
        }
        Ok(())
    }

    fn uid(&self) -> &str {
        let uid = self.pass.observation.agent.metadata.uid.as_deref();
        uid.unwrap_or_default()
    }

    async fn verify(&mut self, verification: &Verification) -> Result<()> {
        let canary = &verification.canary;
        let written = self.pass.write(canary).await?;
        let probes = &verification.probes;
        let verified = self
            .pass
            .context
            .verify(probes, &verification.recipe)
            .await?;
        apply::delete_admission(self.pass.context, canary.kind, &canary.name, written).await?;
        let Err(refusal) = verified else {
            return Ok(());
        };
        let agent = self.pass.observation.label();
        tracing::warn!(agent, refusal, "the new recipe failed its verification");
        self.outcome.injection = InjectionState::Failed {
            reason: "VerificationFailed",
            message: format!(
                "a new policy failed its verification and was not bound; the previous one stays active: {refusal}"
            ),
        };
        Ok(())
    }

    async fn activate(&mut self, activation: &Activation) -> Result<()> {
        let (binding, active) = activation.at(Timestamp::now());
        self.pass.write(&binding).await?;
        if activation.moves() {
            self.pass.context.remember_probe(self.uid(), None);
            let mode = active.mode.map(Mode::as_str);
            let policy = active.policy.as_deref();
            let agent = self.pass.observation.label();
            tracing::info!(agent, mode, policy, "active");
            // What the binding has left goes once every API server has seen the move.
            self.outcome.requeue_within(Some(KEEP_OLD));
        }
        self.outcome.active = active;
        for warning in &activation.warnings {
            self.pass.write(warning).await?;
        }
        Ok(())
    }

    /// Asks whether a pod created now is injected. The answer is believed while nothing that it depends on
    /// changes.
    async fn ask(&self, confirmation: &Confirmation) -> Result<InjectionState> {
        let state = format!("{:?}", self.outcome.active);
        if self.pass.context.was_probed(self.uid(), &state) {
            return Ok(InjectionState::Active);
        }
        let problem = match &confirmation.expected {
            Expectation::Recipe(recipe) => {
                let probe = std::slice::from_ref(&confirmation.probe);
                let verified = self.pass.context.verify(probe, recipe).await?;
                let seen = verified.err();
                seen.map(|seen| format!("was not injected: {seen}"))
            }
            Expectation::Hash(hash) => {
                let given = self.pass.context.given_now(&confirmation.probe).await?;
                (given != *hash).then(|| format!("was not injected as it should be: {given}"))
            }
        };
        if let Some(problem) = problem {
            return Ok(InjectionState::Failed {
                reason: "NotActive",
                message: format!("a pod created by dry run {problem}"),
            });
        }
        self.pass.context.remember_probe(self.uid(), Some(state));
        Ok(InjectionState::Active)
    }

    async fn retire(&mut self, retirement: &Retirement) -> Result<()> {
        if let Some((probe, recipe)) = &retirement.alone {
            let probe = std::slice::from_ref(probe);
            if let Err(refusal) = self.pass.context.verify(probe, recipe).await? {
                let agent = self.pass.observation.label();
                tracing::warn!(
                    agent,
                    refusal,
                    "the engine before stays: the new one does not inject by itself"
                );
                self.outcome.requeue_within(Some(KEEP_OLD));
                return Ok(());
            }
            self.pass.context.remember_probe(self.uid(), None);
        }
        self.delete(&retirement.objects).await
    }

    async fn delete(&self, objects: &[AdmissionObject]) -> Result<()> {
        for object in objects {
            let uid = object.uid.clone();
            apply::delete_admission(self.pass.context, object.kind, &object.name, uid).await?;
        }
        Ok(())
    }

    async fn remove(&mut self, removal: &Removal) -> Result<()> {
        // The verification of a policy may have taken its time since the plan was confirmed.
        if self.pass.is_used(removal.mode).await? {
            self.outcome
                .requeue_within(Some(std::time::Duration::from_secs(1)));
            return Ok(());
        }
        for (kind, object) in &removal.objects {
            self.pass.delete_own(kind, object).await?;
        }
        let mode = removal.mode;
        tracing::info!(agent = self.pass.observation.label(), %mode, "the old route is removed");
        Ok(())
    }
}
