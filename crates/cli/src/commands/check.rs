//! `kubectl otelagent check [--pre]`

use clap::Args;
use otelagent_core::in_full;
use serde_json::Value;

use crate::check::{Access, CheckReport, installed, prepared, view};
use crate::cluster::{Wanted, bare, facts, parts, read};
use crate::context::{Context, Verdict};
use crate::error::CliError;

/// What `check` is given.
#[derive(Debug, Args)]
pub struct CheckCommand {
    /// Before an installation: only what the cluster needs, and the rights to install.
    #[arg(long)]
    pre: bool,
}

impl CheckCommand {
    pub(super) async fn run(self, context: &Context) -> Result<Verdict, CliError> {
        let cluster = context.cluster().await?;
        let mut report = CheckReport::default();
        if self.pre {
            let facts = facts(&cluster, None).await?;
            report.items = prepared(&facts, otelagent_core::build::Choice::Auto);
        } else {
            let wanted = Wanted::default();
            let read = read(&cluster, &wanted).await;
            // That there is no CRD is one of the things to find.
            let is_unknown = matches!(read, Err(CliError::NotServed(_)));
            let snapshot = if is_unknown {
                bare(&cluster).await?
            } else {
                read?.snapshot
            };
            let engine = snapshot.installation.engine;
            let facts = facts(&cluster, Some(snapshot)).await?;
            let mut facts = parts(&cluster, facts).await?;
            if is_unknown {
                facts.crd = Access::Absent;
            }
            report.items = prepared(&facts, engine);
            report.items.extend(installed(&facts, &own_crd()?));
        }
        context.terminal.print("Check", &report, view)?;
        Ok(Verdict::of(report.is_as_wished()))
    }
}

/// The CRD of this release.
fn own_crd() -> Result<Value, CliError> {
    let text =
        otelagent_api::crd_yaml().map_err(|error| CliError::Internal(in_full(error.as_ref())))?;
    serde_saphyr::from_str(&text).map_err(|error| CliError::Internal(error.to_string()))
}
