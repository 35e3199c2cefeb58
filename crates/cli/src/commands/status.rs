//! `kubectl otelagent status [NAME] [--watch]`

use std::pin::pin;
use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::{Cluster, Reading, Wanted, read, watch};
use crate::context::{Context, Verdict};
use crate::error::CliError;
use crate::output::{Terminal, size, write};
use crate::screen::Screen;
use crate::status::{StatusReport, assemble, view};

/// How often a changed answer is drawn at most: more than a person reads.
const FRAME: Duration = Duration::from_millis(250);
/// The kind of the document.
const KIND: &str = "Status";

/// What `status` is given.
#[derive(Debug, Args)]
pub struct StatusCommand {
    /// The name of one OtelAgent. Default: all of the namespace.
    #[arg(value_name = "OTELAGENT")]
    name: Option<String>,
    /// Show each change as it happens, until Ctrl-C.
    #[arg(short, long)]
    watch: bool,
}

impl StatusCommand {
    pub(super) async fn run(self, context: &Context) -> Result<Verdict, CliError> {
        let cluster = context.cluster().await?;
        let namespace = (!context.options.all_namespaces).then(|| cluster.namespace.clone());
        let wanted = Wanted {
            namespace,
            name: self.name,
        };
        let reading = read(&cluster, &wanted).await?;
        let report = if self.watch {
            follow(&cluster, &wanted, reading, context).await?
        } else {
            let report = assemble(&reading.snapshot, &reading.shown);
            if report.items.is_empty() && context.options.output.is_for_people() {
                eprintln!("{}", none(&wanted));
            }
            write(&rendered(&context.terminal, &report)?)?;
            report
        };
        Ok(Verdict::of(report.is_as_wished()))
    }
}

fn none(wanted: &Wanted) -> String {
    let name = wanted
        .name
        .as_ref()
        .map_or(String::new(), |name| format!(" {name}"));
    match &wanted.namespace {
        Some(namespace) => {
            format!("no OtelAgent{name} in namespace {namespace}; -A shows those of all namespaces")
        }
        None => format!("no OtelAgent{name} in the cluster"),
    }
}

fn rendered(terminal: &Terminal, report: &StatusReport) -> Result<String, CliError> {
    let is_whole = terminal.style.whole;
    terminal.render(KIND, report, |report| view(report, is_whole))
}

/// Shows the answer whenever it has changed, until Ctrl-C. Returns the last one.
async fn follow(
    cluster: &Cluster,
    wanted: &Wanted,
    reading: Reading,
    context: &Context,
) -> Result<StatusReport, CliError> {
    let mut changes = watch(cluster, &reading);
    let mut snapshot = reading.snapshot;
    let on_screen = context.terminal.is_terminal && context.options.output.is_for_people();
    let mut shown = Shown {
        screen: on_screen.then(Screen::enter).transpose()?,
        text: String::new(),
        height: 0,
    };
    let mut frames = interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let (mut is_changed, mut report) = (true, StatusReport::default());
    loop {
        tokio::select! {
            interrupted = &mut interrupt => {
                interrupted?;
                break;
            }
            change = changes.next() => match change {
                Some(change) => {
                    change?(&mut snapshot);
                    is_changed = true;
                }
                None => break,
            },
            _ = frames.tick() => {
                if is_changed {
                    let keys = wanted.of(snapshot.agents.keys()).unwrap_or_default();
                    report = assemble(&snapshot, &keys);
                    if keys.is_empty() {
                        report.notes.insert(0, none(wanted));
                    }
                    is_changed = false;
                }
                shown.show(&report, context)?;
            }
        }
    }
    let is_on_screen = shown.screen.is_some();
    drop(shown.screen);
    if is_on_screen {
        write(&rendered(&context.terminal.now(), &report)?)?;
    }
    Ok(report)
}

/// What is on the screen, or was written last.
struct Shown {
    screen: Option<Screen>,
    text: String,
    height: usize,
}

impl Shown {
    /// Shows an answer, if it or the window has changed.
    fn show(&mut self, report: &StatusReport, context: &Context) -> Result<(), CliError> {
        let terminal = context.terminal.now();
        let text = rendered(&terminal, report)?;
        let height = size().map_or(usize::MAX, |(_, height)| height);
        if text == self.text && height == self.height {
            return Ok(());
        }
        match &self.screen {
            Some(screen) => screen.draw(&text, height)?,
            None if self.text.is_empty() => write(&text)?,
            // Documents of YAML are told apart so; of JSON and text a line breaks them.
            None => write(&format!("{}{text}", context.options.output.separator()))?,
        }
        (self.text, self.height) = (text, height);
        Ok(())
    }
}
