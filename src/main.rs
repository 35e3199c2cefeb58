//! The operator's commands: each starts its parts and ends them together.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use otelagent_api::crd_yaml;
use otelagent_core::build::Choice;
use otelagent_core::{in_full, names};
use otelagent_operator::controller::{Controller, InjectionSettings, Settings};
use otelagent_operator::runtime::{
    Args, Command, ControllerArgs, Fence, InjectionEngine, Leadership, LeaseSettings, Metrics,
    ObservabilityArgs, Readiness, Served, WebhookArgs, client, listen, metrics, probes, shutdown,
    telemetry,
};
use otelagent_webhook::{self as webhook, Source, Webhook, ca};

/// Why the process ended; the message goes to standard error.
type Failure = Box<dyn std::error::Error>;

/// Why the process exits after a restore of etcd.
const HISTORY_REWOUND: &str =
    "etcd was restored to an older revision; exiting to rebuild the caches";
/// Readiness: every cache is filled.
const WATCHES: &str = "watches";
/// Name of the Lease.
const LEASE: &str = "otelagent-operator";

fn main() -> ExitCode {
    let outcome = match Args::parse().command {
        Command::Controller(args) => run_controller(args),
        Command::Webhook(args) => run_webhook(args),
        Command::Crd => print_crd(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("otelagent-operator: {}", in_full(failure.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn print_crd() -> Result<(), Failure> {
    use std::io::Write;
    std::io::stdout().write_all(crd_yaml()?.as_bytes())?;
    Ok(())
}

/// Sets up logging and serves metrics and health.
async fn serve_observability(
    args: ObservabilityArgs,
    metrics: &Metrics,
    readiness: &Readiness,
) -> Result<(), Failure> {
    let ObservabilityArgs {
        metrics_address,
        health_address,
        log_level,
    } = args;
    telemetry::init(&log_level)?;
    tokio::spawn(metrics::serve(
        listen(metrics_address).await?,
        metrics.clone(),
    ));
    tokio::spawn(probes::serve(
        listen(health_address).await?,
        readiness.clone(),
    ));
    Ok(())
}

/// The controller's settings from the command line.
fn settings(args: ControllerArgs, identity: String) -> Settings {
    let mut platform: BTreeSet<String> = args.platform_namespaces.into_iter().collect();
    if platform.is_empty() {
        platform.insert(args.namespace.clone());
    }
    Settings {
        namespace: args.namespace,
        platform_namespaces: platform,
        agent_image: args.agent_image,
        canary_namespace: args.canary_namespace,
        owner_role: Some(args.owner_role).filter(|name| !name.is_empty()),
        instance: identity,
        injection: InjectionSettings {
            engine: match args.injection_engine {
                InjectionEngine::Auto => Choice::Auto,
                InjectionEngine::Policy => Choice::Policy,
                InjectionEngine::Webhook => Choice::Webhook,
            },
            webhook_name: args.webhook_name,
            webhook_url: args.webhook_url,
            ca_file: args.webhook_ca_file,
            ca_trusted_on: ca::TRUSTED_ON,
            ca_lifetime: Duration::from_secs(args.webhook_ca_seconds),
        },
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

// Two threads are enough; one for each core of a large node would only cost memory.
#[tokio::main(worker_threads = 2)]
async fn run_controller(mut args: ControllerArgs) -> Result<(), Failure> {
    let shutdown = shutdown::on_signals()?;
    let (metrics, readiness) = (Metrics::new(), Readiness::of(&[WATCHES]));
    serve_observability(args.observability.clone(), &metrics, &readiness).await?;

    let fence = Fence::closed();
    let client = client::connect(client::config().await?, &fence)?;
    let identity = args.identity.take();
    let identity = identity.unwrap_or_else(LeaseSettings::unique_identity);
    let (namespace, leader_elect) = (args.namespace.clone(), args.leader_elect);
    let settings = settings(args, identity.clone());
    let controller = Controller::start(client, settings, metrics.clone()).await?;
    tokio::select! {
        () = controller.until_synced() => readiness.ready(WATCHES),
        () = shutdown.cancelled() => return Ok(()),
    }
    let leadership = if leader_elect {
        // The lease opens the fence, so its client must not be fenced.
        let client = client::connect(client::config().await?, &Fence::open())?;
        let lease = LeaseSettings {
            namespace,
            name: LEASE.into(),
            identity,
        };
        Leadership::campaign(&client, lease, &fence, &metrics)
    } else {
        Leadership::without_election(&fence, &metrics)
    };
    let term = tokio::select! {
        term = leadership.wait_until_leader() => term,
        () = fence.broken() => return Err(HISTORY_REWOUND.into()),
        () = shutdown.cancelled() => return Ok(()),
    };
    let outcome = tokio::select! {
        outcome = controller.run(shutdown.cancelled()) => outcome.map_err(Into::into),
        () = term.lost() => Err("leadership was lost; the next leader goes on".into()),
        () = fence.broken() => Err(HISTORY_REWOUND.into()),
    };
    leadership.release().await;
    outcome
}

#[tokio::main]
async fn run_webhook(args: WebhookArgs) -> Result<(), Failure> {
    let WebhookArgs {
        namespace,
        address,
        webhook_name,
        server_names,
        tls_directory,
        observability,
    } = args;
    let shutdown = shutdown::on_signals()?;
    let metrics = Metrics::new();
    let readiness = Readiness::of(&[webhook::WATCHES, webhook::CERTIFICATE, webhook::SERVING]);
    serve_observability(observability, &metrics, &readiness).await?;
    // The webhook only reads, so the fence stays closed.
    let client = client::connect(client::config().await?, &Fence::closed())?;
    let server_names = if server_names.is_empty() {
        vec![format!("{webhook_name}.{namespace}.svc")]
    } else {
        server_names
    };
    let source = match tls_directory {
        Some(path) => Source::Directory {
            path,
            settle: ca::SETTLE,
        },
        None => Source::Ca {
            namespace,
            secret: names::ca_secret(&webhook_name),
            names: server_names,
        },
    };
    let listener = listen(address).await?;
    let observer = Arc::new(Served { metrics, readiness });
    let webhook = Webhook::start(&client, source, observer);
    webhook
        .run(listener, shutdown.cancelled())
        .await
        .map_err(Into::into)
}
