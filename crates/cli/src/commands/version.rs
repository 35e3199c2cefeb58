//! `kubectl otelagent version [--client]`

use std::collections::BTreeSet;

use clap::Args;
use serde::Serialize;

use crate::cluster::survey;
use crate::context::{Context, Verdict};
use crate::error::CliError;
use crate::text::{Line, Page, dim, plain, warn};

/// What `version` is given.
#[derive(Debug, Args)]
pub struct VersionCommand {
    /// Only the version of this program, without a cluster.
    #[arg(long)]
    client: bool,
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    /// Of this program.
    client: &'static str,
    /// Of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    operator: Option<String>,
    /// Of the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<String>,
    /// Images of agents: the operator's, and those that OtelAgents name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    agents: Vec<String>,
    /// What is not known.
    notes: Vec<String>,
}

impl VersionCommand {
    pub(super) async fn run(self, context: &Context) -> Result<Verdict, CliError> {
        let mut versions = Versions {
            client: env!("CARGO_PKG_VERSION"),
            ..Versions::default()
        };
        if !self.client {
            let cluster = context.cluster().await?;
            let snapshot = survey(&cluster, &cluster.namespace).await?;
            let installation = &snapshot.installation;
            versions.operator.clone_from(&installation.version);
            versions.kubernetes = snapshot.server.map(|server| server.to_string());
            let agents = snapshot.agents.values();
            let agents = agents.filter_map(|agent| {
                agent
                    .agent
                    .as_ref()
                    .ok()?
                    .spec
                    .agent
                    .as_ref()?
                    .image
                    .clone()
            });
            let mut images: BTreeSet<String> = agents.collect();
            if installation.is_known {
                images.insert(installation.agent_image.clone());
            } else {
                versions
                    .notes
                    .push("the operator's Deployment was not found or may not be read".into());
            }
            versions.agents = images.into_iter().collect();
            let missing = snapshot.missing.iter();
            versions
                .notes
                .extend(missing.map(|right| format!("not read: {right}")));
        }
        context.terminal.print("Version", &versions, view)?;
        Ok(Verdict::AsWished)
    }
}

fn view(versions: &Versions) -> Page {
    let mut page = Page::default();
    let mut line = |name: &str, text: &str| {
        page.line(Line::behind(
            "",
            [dim(format!("{name:<12}"))],
            [plain(text)],
        ));
    };
    line("client", versions.client);
    let lines = [
        ("operator", &versions.operator),
        ("Kubernetes", &versions.kubernetes),
    ];
    for (name, version) in lines {
        if let Some(version) = version {
            line(name, version);
        }
    }
    for image in &versions.agents {
        line("agent", image);
    }
    for note in &versions.notes {
        page.line(Line::behind("", [warn("! ")], [plain(note)]));
    }
    page
}
