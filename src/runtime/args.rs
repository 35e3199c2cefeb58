//! The command line.
//!
//! `main` destructures these structs, so an unread field is a compile error. Does not know what the values
//! do.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use otelagent_core::names;

/// What `--version` prints: the version, and on which releases of Kubernetes `make test-full` runs.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ntested with Kubernetes 1.33, 1.35, 1.36, 1.37"
);

/// Puts an OpenTelemetry agent next to every application and switches how it is reached.
#[derive(Clone, Debug, Parser)]
#[command(name = "otelagent-operator", version, long_version = LONG_VERSION)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[allow(clippy::large_enum_variant)] // made once, by the parser
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the controller.
    Controller(ControllerArgs),
    /// Run the webhook, which injects on API servers that cannot do it themselves.
    Webhook(WebhookArgs),
    /// Print the CustomResourceDefinition.
    Crd,
}

/// The injection engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum InjectionEngine {
    /// Policies if the server has them, else the webhook.
    #[default]
    Auto,
    /// Admission policies.
    Policy,
    /// The webhook.
    Webhook,
}

/// Where a process serves metrics and health, and what it logs.
#[derive(Clone, Debug, clap::Args)]
pub struct ObservabilityArgs {
    /// Address at which metrics are served.
    #[arg(long, default_value = "[::]:8080")]
    pub metrics_address: SocketAddr,
    /// Address at which health and readiness are served.
    #[arg(long, default_value = "[::]:8081")]
    pub health_address: SocketAddr,
    /// What is logged: a level (error, warn, info, debug, trace), or target=level pairs.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub log_level: String,
}

/// Options of the controller.
#[derive(Clone, Debug, clap::Args)]
pub struct ControllerArgs {
    /// Namespace in which the operator runs.
    #[arg(long, env = "POD_NAMESPACE", default_value = "otelagent-system")]
    pub namespace: String,
    /// Namespaces whose OtelAgents may use node modes and act on other namespaces. Default: the
    /// operator's own. Each needs the Role of manifests/platform-namespace.
    #[arg(long, value_delimiter = ',', value_name = "NAMESPACES")]
    pub platform_namespaces: Vec<String>,
    /// Namespace in which the operator verifies injection with pods created by dry run.
    #[arg(long, default_value = "otelagent-canary")]
    pub canary_namespace: String,
    /// ClusterRole that owns the admission policies of all OtelAgents, so that Kubernetes deletes them with it. It
    /// must exist, and grant nothing. Empty: no owner, so they stay when the operator is uninstalled.
    #[arg(
        long,
        env = "OTELAGENT_OWNER_ROLE",
        value_name = "NAME",
        default_value = "otelagent-owner"
    )]
    pub owner_role: String,
    /// Image of the agent if an OtelAgent names none.
    #[arg(long, env = "OTELAGENT_AGENT_IMAGE", default_value = concat!("otelagent/agent:", env!("CARGO_PKG_VERSION")))]
    pub agent_image: String,
    /// Injection engine. auto: policies if the server has them (1.36 and newer), else the webhook of
    /// manifests/webhook.
    #[arg(long, value_enum, default_value_t)]
    pub injection_engine: InjectionEngine,
    /// Name of the webhook's Service. Names of two objects follow from it: NAME-owner, the ClusterRole that owns the
    /// webhook configurations, and NAME-authority, the Secret with the CA.
    #[arg(long, env = "OTELAGENT_WEBHOOK", value_name = "NAME", default_value = names::WEBHOOK)]
    pub webhook_name: String,
    /// URL at which the API server reaches the webhook: https, host and port. Default: the webhook's Service.
    #[arg(long, value_name = "URL")]
    pub webhook_url: Option<String>,
    /// File with the CA certificates that signed the webhook's certificates, such as ca.crt of a mounted
    /// Secret of cert-manager. Default: the operator makes a CA.
    #[arg(long, alias = "webhook-authority-file", value_name = "FILE")]
    pub webhook_ca_file: Option<PathBuf>,
    /// How long a CA that the operator makes lives; it makes the next one after two thirds of that time.
    #[arg(long, alias = "webhook-authority-seconds", value_name = "SECONDS", default_value_t = 365 * 24 * 3600, value_parser = clap::value_parser!(u64).range(60..))]
    pub webhook_ca_seconds: u64,
    /// Act only while holding the Lease, so that several replicas can run.
    #[arg(long)]
    pub leader_elect: bool,
    /// Name of this process as the holder of the Lease; must be unique among running processes. Default:
    /// host name and process ID.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// What the process tells of itself.
    #[command(flatten)]
    pub observability: ObservabilityArgs,
}

/// Options of the webhook.
#[derive(Clone, Debug, clap::Args)]
pub struct WebhookArgs {
    /// Namespace in which the webhook runs.
    #[arg(long, env = "POD_NAMESPACE", default_value = "otelagent-system")]
    pub namespace: String,
    /// Address on which the webhook listens.
    #[arg(long, default_value = "[::]:8443")]
    pub address: SocketAddr,
    /// Name of the webhook's Service. The Secret with the CA is NAME-authority.
    #[arg(long, env = "OTELAGENT_WEBHOOK", value_name = "NAME", default_value = names::WEBHOOK)]
    pub webhook_name: String,
    /// DNS names and addresses at which the API server calls the webhook. Default: the webhook's Service.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub server_names: Vec<String>,
    /// Directory with tls.crt and tls.key, such as a mounted Secret of cert-manager. The webhook reads them
    /// again when they change. Default: certificates signed by the operator's CA.
    #[arg(long, value_name = "DIRECTORY")]
    pub tls_directory: Option<PathBuf>,
    /// What the process tells of itself.
    #[command(flatten)]
    pub observability: ObservabilityArgs,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller(words: &[&str]) -> ControllerArgs {
        let words = ["otelagent-operator", "controller"].iter().chain(words);
        match Args::try_parse_from(words).unwrap().command {
            Command::Controller(args) => args,
            Command::Webhook(_) | Command::Crd => panic!("asked for the controller"),
        }
    }

    #[test]
    fn command_line_is_sound() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn platform_namespaces_are_separated_by_commas() {
        let args = controller(&["--platform-namespaces", "a,b", "--leader-elect"]);
        assert_eq!(args.platform_namespaces, ["a", "b"]);
        assert!(args.leader_elect);
    }

    #[test]
    fn without_options_nothing_is_elected_and_the_own_image_is_used() {
        let args = controller(&[]);
        assert!(args.platform_namespaces.is_empty() && !args.leader_elect);
        assert_eq!(
            args.agent_image,
            format!("otelagent/agent:{}", env!("CARGO_PKG_VERSION"))
        );
    }
}
