//! `kubectl otelagent render -f FILE`, without a cluster.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use otelagent_api::OtelAgent;
use otelagent_core::build::{Choice, IpFamily, ServerVersion};

use crate::context::{Context, Verdict};
use crate::error::CliError;
use crate::installation::Installation;
use crate::manifest::otelagents;
use crate::output::write;
use crate::render::{Rendering, Site, render, render_text};

/// What `render` is given.
#[derive(Debug, Args)]
pub struct RenderCommand {
    /// A manifest with OtelAgents; - reads standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// The release of Kubernetes to render for.
    #[arg(long, value_name = "1.N", default_value = "1.37", value_parser = kubernetes)]
    kube_version: ServerVersion,
    /// Namespace of the operator.
    #[arg(long, value_name = "NAME", default_value = crate::installation::NAMESPACE)]
    operator_namespace: String,
    /// Namespaces whose OtelAgents may act on others. Default: the operator's own.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    platform_namespaces: Vec<String>,
    /// Image of the agent if an OtelAgent names none. Default: that of this release.
    #[arg(long, value_name = "IMAGE")]
    agent_image: Option<String>,
    /// The injection engine.
    #[arg(long, value_enum, default_value_t)]
    injection_engine: EngineName,
    /// Family of the nodes' addresses.
    #[arg(long, value_enum, default_value_t)]
    node_addresses: Family,
}

/// An injection engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum EngineName {
    /// Policies where the server has them, else the webhook.
    #[default]
    Auto,
    /// Admission policies.
    Policy,
    /// The webhook.
    Webhook,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Family {
    /// IPv4.
    #[default]
    Ipv4,
    /// IPv6.
    Ipv6,
}

fn kubernetes(text: &str) -> Result<ServerVersion, String> {
    let text = text.trim_start_matches('v');
    let mut parts = text.split('.');
    let version = parts.next().zip(parts.next());
    let version = version.and_then(|(major, minor)| ServerVersion::parse(major, minor));
    version.ok_or_else(|| "write a release such as 1.36".to_owned())
}

impl RenderCommand {
    #[allow(clippy::unused_async)] // as every command
    pub(super) async fn run(self, context: &Context) -> Result<Verdict, CliError> {
        let namespace = context.options.namespace.as_deref().unwrap_or("default");
        let agents = otelagents(&self.file, namespace)?;
        let rendering = self.rendering(&agents);
        let terminal = &context.terminal;
        write(&terminal.document("Rendering", &rendering, render_text)?)?;
        Ok(Verdict::of(rendering.is_as_wished()))
    }

    fn rendering(self, agents: &[OtelAgent]) -> Rendering {
        let mut installation = Installation::in_namespace(&self.operator_namespace);
        if !self.platform_namespaces.is_empty() {
            installation.platform_namespaces = self.platform_namespaces.into_iter().collect();
        }
        if let Some(image) = self.agent_image {
            installation.agent_image = image;
        }
        installation.engine = match self.injection_engine {
            EngineName::Auto => Choice::Auto,
            EngineName::Policy => Choice::Policy,
            EngineName::Webhook => Choice::Webhook,
        };
        let family = match self.node_addresses {
            Family::Ipv4 => IpFamily::V4,
            Family::Ipv6 => IpFamily::V6,
        };
        let environment = installation.environment(self.kube_version, family);
        let site = Site {
            installation: &installation,
            environment: &environment,
            offers_policies: self.kube_version.has_policies(),
        };
        let items = agents.iter().map(|agent| render(agent, site, Vec::new()));
        Rendering {
            kubernetes: self.kube_version.to_string(),
            items: items.collect(),
        }
    }
}
