//! `kubectl otelagent completion SHELL`, and the hidden command that its scripts call.

use std::time::Duration;

use clap::{Args, ValueEnum};
use kube::api::ListParams;
use kube::config::Kubeconfig;
use otelagent_api::ResourceExt;
use otelagent_core::read::{Decoded, PartialNamespace, PartialPod};

use crate::args::{Options, Output};
use crate::cluster::Cluster;
use crate::complete::{Completion, answer, complete};
use crate::context::{Context, Verdict};
use crate::error::CliError;
use crate::output::write;
use crate::text::escape;

/// How long names of objects may take, so that a shell does not seem to hang.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `completion` is given.
#[derive(Debug, Args)]
pub struct CompletionCommand {
    /// The shell, or kubectl for the program that kubectl looks for.
    #[arg(value_enum)]
    shell: Shell,
}

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
    /// kubectl 1.26 and newer, in each of these shells: kubectl_complete-otelagent, a file for PATH
    Kubectl,
}

impl CompletionCommand {
    #[allow(clippy::unused_async)] // as every command
    pub(super) async fn run(self, _: &Context) -> Result<Verdict, CliError> {
        write(match self.shell {
            Shell::Bash => include_str!("../../completions/kubectl-otelagent.bash"),
            Shell::Zsh => include_str!("../../completions/kubectl-otelagent.zsh"),
            Shell::Fish => include_str!("../../completions/kubectl-otelagent.fish"),
            Shell::Kubectl => include_str!("../../completions/kubectl_complete-otelagent"),
        })?;
        Ok(Verdict::AsWished)
    }
}

/// What the hidden command is given: the words of a command line, of which the last is being typed.
#[derive(Debug, Args)]
pub struct CompleteCommand {
    #[arg(last = true)]
    words: Vec<String>,
}

impl CompleteCommand {
    /// Never fails: a shell has nowhere to show an error.
    pub(super) async fn run(self, context: &Context) -> Result<Verdict, CliError> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let wanted = complete(&(context.program)(), &words);
        let typed = words.last().copied().unwrap_or_default();
        let options = typed_options(&words);
        let is_file = wanted == Completion::File;
        let candidates = match wanted {
            Completion::Words(words) => words,
            Completion::File => Vec::new(),
            other => {
                let names = tokio::time::timeout(PATIENCE, names(&other, &options)).await;
                let names = names.ok().and_then(Result::ok).unwrap_or_default();
                let names = names.into_iter().filter(|name| name.starts_with(typed));
                names
                    .map(|name| (escape(&name).into_owned(), String::new()))
                    .collect()
            }
        };
        write(&answer(&candidates, is_file))?;
        Ok(Verdict::AsWished)
    }
}

/// The options in words that need not be a whole command line.
fn typed_options(words: &[&str]) -> Options {
    let value = |long: &str, short: &str| {
        let at = words
            .iter()
            .position(|word| *word == long || !short.is_empty() && *word == short);
        let following = at
            .and_then(|at| words.get(at + 1))
            .map(|word| (*word).to_owned());
        let joined = words
            .iter()
            .find_map(|word| word.strip_prefix(long)?.strip_prefix('='));
        following.or(joined.map(str::to_owned))
    };
    Options {
        kubeconfig: value("--kubeconfig", "").map(Into::into),
        context: value("--context", ""),
        namespace: value("--namespace", "-n"),
        all_namespaces: words.contains(&"-A") || words.contains(&"--all-namespaces"),
        output: Output::default(),
        no_color: true,
        request_timeout: PATIENCE.as_secs(),
    }
}

async fn names(wanted: &Completion, options: &Options) -> Result<Vec<String>, CliError> {
    let all = ListParams::default();
    if *wanted == Completion::Context {
        let read = match &options.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let contexts = read.map(|read| read.contexts).unwrap_or_default();
        return Ok(contexts.into_iter().map(|context| context.name).collect());
    }
    let cluster = Cluster::of(options).await?;
    let within = (!options.all_namespaces).then_some(cluster.namespace.as_str());
    let mut names: Vec<String> = match wanted {
        Completion::Namespace => named(&cluster.list::<PartialNamespace>(None, &all).await?),
        Completion::OtelAgent => named(&cluster.list::<Decoded>(within, &all).await?),
        Completion::Pod => named(&cluster.list::<PartialPod>(within, &all).await?),
        Completion::Words(_) | Completion::File | Completion::Context => Vec::new(),
    };
    names.sort();
    names.dedup();
    Ok(names)
}

fn named(objects: &[impl ResourceExt]) -> Vec<String> {
    objects.iter().map(ResourceExt::name_any).collect()
}
