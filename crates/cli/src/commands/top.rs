//! `kubectl otelagent top [OTELAGENT]`

use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use otelagent_api::Mode;
use otelagent_core::names;
use otelagent_core::pods::owner_of;

use crate::cluster::{Cluster, Reading, Wanted, read};
use crate::context::{Context, Verdict};
use crate::error::CliError;
use crate::top::{Figures, Order, Sample, Target, assemble, view};

/// How many agents are asked at a time.
const AT_A_TIME: usize = 32;
/// How many agents are asked at most.
const MAX_AGENTS: usize = 2000;
/// How long one agent may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What `top` is given.
#[derive(Debug, Args)]
pub struct TopCommand {
    /// The name of one OtelAgent. Default: all of the namespace.
    #[arg(value_name = "OTELAGENT")]
    name: Option<String>,
    /// By what agents are sorted.
    #[arg(long, value_enum, default_value_t)]
    by: Order,
    /// Measure for this many seconds. Default: rates are means since the start of each agent.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=300))]
    over: Option<u32>,
}

impl TopCommand {
    pub(super) async fn run(self, context: &Context) -> Result<Verdict, CliError> {
        let cluster = context.cluster().await?;
        let namespace = (!context.options.all_namespaces).then(|| cluster.namespace.clone());
        let wanted = Wanted {
            namespace,
            name: self.name,
        };
        let reading = read(&cluster, &wanted).await?;
        let mut targets = targets(&reading);
        let all = targets.len();
        targets.truncate(MAX_AGENTS);
        let mut samples = ask(&cluster, &targets).await?;
        let mut before = None;
        if let Some(seconds) = self.over {
            tokio::time::sleep(Duration::from_secs(seconds.into())).await;
            let now = ask(&cluster, &targets).await?;
            before = Some((std::mem::replace(&mut samples, now), seconds));
        }
        let earlier = before
            .as_ref()
            .map(|(samples, seconds)| (samples.as_slice(), *seconds));
        let mut report = assemble(&targets, &samples, earlier, self.by);
        if all == 0 {
            report
                .notes
                .push("no agent is ready; kubectl otelagent status says why".into());
        }
        if all > MAX_AGENTS {
            report.notes.push(format!(
                "{MAX_AGENTS} of {all} agents were asked; name an OtelAgent to ask fewer"
            ));
        }
        let missing = reading.snapshot.missing.iter();
        report
            .notes
            .extend(missing.map(|right| format!("not read: {right}")));
        let is_whole = context.terminal.style.whole;
        context
            .terminal
            .print("Top", &report, |report| view(report, is_whole))?;
        Ok(Verdict::AsWished)
    }
}

/// The ready agents of the `OtelAgent`s that are asked for: those on nodes, and sidecars.
fn targets(reading: &Reading) -> Vec<Target> {
    let mut targets = Vec::new();
    for (namespace, name) in &reading.shown {
        let agent = &reading.snapshot.agents[&(namespace.clone(), name.clone())];
        let Ok(agent) = &agent.agent else { continue };
        let label = names::agent_label(namespace, name);
        let ports = agent.spec.ports;
        let is = |pod: &otelagent_core::read::PartialPod, key: &str, value: &str| {
            pod.labels.get(key).is_some_and(|found| found == value)
        };
        for ((of, pod_name), seen) in &reading.snapshot.pods {
            let pod = &seen.pod;
            let on_node = of == namespace && is(pod, names::LABEL_OWNER, &label);
            let is_sidecar = is(pod, names::LABEL_AGENT, &label)
                && is(pod, names::LABEL_MODE, Mode::Sidecar.as_str());
            if !pod.ready || !(on_node || is_sidecar) {
                continue;
            }
            // A sidecar beside an application that has the agent's ports has others, all of them as much higher.
            let health = pod
                .health
                .and_then(|health| health.port)
                .unwrap_or(ports.health);
            targets.push(Target {
                namespace: of.clone(),
                pod: pod_name.clone(),
                node: pod.node.clone(),
                agent: label.clone(),
                workload: is_sidecar.then(|| {
                    let owner = owner_of(of, pod_name, &pod.labels, pod.controller.as_ref());
                    format!("{} {}", owner.kind, owner.name)
                }),
                port: ports
                    .metrics
                    .saturating_add(health.saturating_sub(ports.health)),
            });
        }
    }
    targets
}

/// Asks agents for their metrics, through the API server and with the user's right to do so.
async fn ask(cluster: &Cluster, targets: &[Target]) -> Result<Vec<Sample>, CliError> {
    let asked = targets.iter().map(|target| one(cluster, target));
    let answers = futures::stream::iter(asked).buffered(AT_A_TIME);
    let answers: Vec<Result<Sample, CliError>> = answers.collect().await;
    answers.into_iter().collect()
}

async fn one(cluster: &Cluster, target: &Target) -> Result<Sample, CliError> {
    let asked = cluster.of_pod(&target.namespace, &target.pod, target.port, "metrics");
    let Ok(answer) = tokio::time::timeout(PATIENCE, asked).await else {
        return Ok(Err(format!("no answer within {} s", PATIENCE.as_secs())));
    };
    match answer {
        Ok(text) => {
            Ok(Figures::read(&text).ok_or_else(|| "its answer is not that of an agent".into()))
        }
        Err(CliError::Forbidden(right)) => Err(CliError::Forbidden(right)),
        Err(error) => Ok(Err(error.to_string())),
    }
}
