//! `kubectl otelagent diff -f FILE`: what the operator would write, against the cluster.

use std::path::PathBuf;

use clap::Args;
use otelagent_api::{OtelAgent, ResourceExt};
use otelagent_core::inject::kinds::{BINDING, POLICY};
use serde_json::Value;

use crate::cluster::{Cluster, survey};
use crate::context::{Context, Verdict};
use crate::error::CliError;
use crate::manifest::otelagents;
use crate::overlaps::Overlaps;
use crate::render::{Comparison, ProblemReport, Rendered, Site, compare, diff_view, render};
use crate::snapshot::Snapshot;

/// What `diff` is given.
#[derive(Debug, Args)]
pub struct DiffCommand {
    /// A manifest with OtelAgents; - reads standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

impl DiffCommand {
    pub(super) async fn run(self, context: &Context) -> Result<Verdict, CliError> {
        let cluster = context.cluster().await?;
        let agents = otelagents(&self.file, &cluster.namespace)?;
        let namespace = agents.first().and_then(ResourceExt::namespace);
        let snapshot = survey(&cluster, &namespace.unwrap_or_default()).await?;
        let offers_policies = cluster.serves_admission(POLICY).await?;
        let environment = snapshot.environment();
        let mut differ = Differ {
            cluster: &cluster,
            snapshot: &snapshot,
            site: Site {
                installation: &snapshot.installation,
                environment: &environment,
                offers_policies,
            },
            overlaps: Overlaps::of(&snapshot, &environment),
            comparison: Comparison::default(),
        };
        for agent in &agents {
            differ.compare(agent).await?;
        }
        let comparison = differ.comparison;
        context
            .terminal
            .print("Comparison", &comparison, diff_view)?;
        Ok(Verdict::of(comparison.is_as_wished()))
    }
}

struct Differ<'a> {
    cluster: &'a Cluster,
    snapshot: &'a Snapshot,
    site: Site<'a>,
    overlaps: Overlaps<'a>,
    comparison: Comparison,
}

impl Differ<'_> {
    async fn compare(&mut self, agent: &OtelAgent) -> Result<(), CliError> {
        let key = (agent.namespace().unwrap_or_default(), agent.name_any());
        let mut agent = agent.clone();
        if let Some(known) = self.snapshot.agents.get(&key) {
            agent.metadata.uid.clone_from(&known.metadata.uid);
            let created = &known.metadata.creation_timestamp;
            agent.metadata.creation_timestamp.clone_from(created);
        }
        let rendered = render(&agent, self.site, self.overlaps.exclusions(&agent));
        let about = |problem: ProblemReport| ProblemReport {
            message: format!("OtelAgent {}/{}: {}", key.0, key.1, problem.message),
            ..problem
        };
        self.comparison
            .problems
            .extend(rendered.problems.into_iter().map(about));
        let bound = self.bound(&rendered.objects).await?;
        for object in &rendered.objects {
            let live = match bound.as_deref().filter(|_| object.kind() == POLICY) {
                Some(policy) => self.live(object, policy).await,
                None => self.live(object, object.name()).await,
            };
            match live {
                Ok(live) => self
                    .comparison
                    .items
                    .extend(compare(live.as_ref(), object)?),
                Err(CliError::Forbidden(right)) => {
                    let note = format!(
                        "{} {} was not compared: {right}",
                        object.kind(),
                        object.name()
                    );
                    self.comparison.notes.push(note);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn live(&self, object: &Rendered, name: &str) -> Result<Option<Value>, CliError> {
        let (version, kind) = (object.api_version(), object.kind());
        self.cluster
            .object(version, kind, object.namespace(), name)
            .await
    }

    /// The policy that is active now. The name of a policy is a hash of its content, so that a changed one has another.
    async fn bound(&self, objects: &[Rendered]) -> Result<Option<String>, CliError> {
        let Some(binding) = objects.iter().find(|object| object.kind() == BINDING) else {
            return Ok(None);
        };
        match self.live(binding, binding.name()).await {
            Ok(live) => {
                Ok(live.and_then(|live| live["spec"]["policyName"].as_str().map(str::to_owned)))
            }
            Err(CliError::Forbidden(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
