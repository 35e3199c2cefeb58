//! The webhook in the place of policies: how long it takes to answer.

use std::time::{Duration, Instant};

use crate::load::{Fate, Load};
use crate::measure::Histogram;
use crate::operator::{Operator, free_address};
use crate::phases::{LOAD_SECONDS, admitted, selected};
use crate::report::Table;
use crate::world::World;
use crate::{Args, Outcome};

/// The webhook's own histogram.
const REVIEW: &str = "otelagent_webhook_review_duration_seconds";

/// Changes the engine and creates pods. Two processes of the operator run: the controller and one webhook.
pub(crate) async fn run(world: &World, args: &Args, table: &mut Table) -> Outcome<()> {
    world.apply("manifests/webhook")?;
    world.kubectl(&[
        "delete",
        "deployment",
        "otelagent-webhook",
        "-n",
        crate::world::PLATFORM,
    ])?;
    let address = free_address(world.bed.host_ip())?;
    // The webhook's certificate needs the CA that the controller makes.
    let more = [
        "--injection-engine=webhook".to_owned(),
        format!("--webhook-url=https://{address}"),
    ];
    let _controller = Operator::start(world, &more)?;
    let webhook = Operator::webhook(world, address)?;
    until_alone(world, args.agents).await?;
    let load = Load {
        places: selected(args),
        rate: 100,
        seconds: LOAD_SECONDS,
        fate: Fate::DryRun,
    };
    let before = Histogram::parse(&webhook.metrics()?, REVIEW);
    let created = load.run(&world.client).await?;
    let reviews = Histogram::parse(&webhook.metrics()?, REVIEW).since(&before);
    let calls = format!("{:.0} reviews", reviews.count());
    let engine = ("at the webhook", calls.as_str());
    admitted(table, "injected by webhook", &created, engine, &reviews);
    let most = format!("{:.1} MiB", webhook.memory("VmHWM:")?);
    table.row("peak RSS of the webhook", "", &most, None);
    Ok(())
}

/// Until each `OtelAgent` has its entry and no policy injects. The operator would keep the bindings of the policies for a
/// day, for API servers of another release.
async fn until_alone(world: &World, agents: usize) -> Outcome<()> {
    let begun = Instant::now();
    loop {
        let count = |kind: &str| -> Outcome<usize> {
            let names = world.kubectl(&["get", kind, "-o", "name"])?;
            Ok(names
                .lines()
                .filter(|name| name.contains("/otelagent."))
                .count())
        };
        let entries = count("mutatingwebhookconfigurations")?;
        let bindings = count("mutatingadmissionpolicybindings")?;
        if entries == agents && bindings == 0 {
            return Ok(());
        }
        if entries == agents {
            world.kubectl(&["delete", "mutatingadmissionpolicybindings", "--all"])?;
        }
        if begun.elapsed() > Duration::from_mins(30) {
            return Err(format!("{entries} entries, {bindings} bindings").into());
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}
