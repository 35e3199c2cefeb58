//! What the shell may offer for the word that is being typed, from the command line's own description.
//!
//! The answer has the form that kubectl expects of plugins (`kubectl_complete-NAME`) and that Cobra's scripts read: one
//! candidate a line, with a tab before its description, and a directive at the end.

use clap::{Arg, ArgAction, Command};

/// What completes a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// One of these, with what they mean.
    Words(Vec<(String, String)>),
    /// A file.
    File,
    /// A context of the kubeconfig.
    Context,
    /// A namespace.
    Namespace,
    /// The name of an `OtelAgent`.
    OtelAgent,
    /// The name of a pod.
    Pod,
}

/// What completes the last of these words, which stand behind the program's name.
pub fn complete(program: &Command, words: &[&str]) -> Completion {
    let Some((last, before)) = words.split_last() else {
        return Completion::Words(Vec::new());
    };
    let mut command = program;
    let mut values = 0;
    let mut pending: Option<&Arg> = None;
    for word in before {
        if pending.take().is_some() {
            continue;
        }
        if let Some(option) = option(program, command, word) {
            let has_value = word.starts_with("--") && word.contains('=');
            pending = Some(option).filter(|option| takes_value(option) && !has_value);
        } else if let Some(inner) = command.find_subcommand(word) {
            (command, values) = (inner, 0);
        } else if !word.starts_with('-') {
            values += 1;
        }
    }
    if let Some(option) = pending {
        return of_value(option, last);
    }
    if let Some((name, value)) = last.split_once('=')
        && let Some(option) = option(program, command, name)
    {
        return match of_value(option, value) {
            Completion::Words(words) => Completion::Words(
                words
                    .into_iter()
                    .map(|(word, about)| (format!("{name}={word}"), about))
                    .collect(),
            ),
            other => other,
        };
    }
    if last.starts_with('-') {
        return options(program, command, last);
    }
    positional(command, values, last)
}

/// The option of this name, of the command or of all commands.
fn option<'a>(program: &'a Command, command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or(word);
    let mut all = command.get_arguments().chain(program.get_arguments());
    if let Some(long) = name.strip_prefix("--") {
        return all.find(|arg| arg.get_long() == Some(long));
    }
    let short = name.strip_prefix('-')?.chars().next()?;
    all.find(|arg| arg.get_short() == Some(short))
}

fn takes_value(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Set | ArgAction::Append)
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    let text = text.map(ToString::to_string).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn options(program: &Command, command: &Command, typed: &str) -> Completion {
    let all = command.get_arguments().chain(program.get_arguments());
    let mut words: Vec<(String, String)> = all
        .filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help()))))
        .filter(|(word, _)| word.starts_with(typed))
        .collect();
    words.sort();
    words.dedup();
    Completion::Words(words)
}

fn of_value(option: &Arg, typed: &str) -> Completion {
    match option.get_id().as_str() {
        "context" => return Completion::Context,
        "namespace" | "operator_namespace" | "platform_namespaces" => return Completion::Namespace,
        "kubeconfig" | "file" => return Completion::File,
        _ => {}
    }
    let values = option.get_possible_values().into_iter();
    let values = values.map(|value| (value.get_name().to_owned(), about(value.get_help())));
    Completion::Words(values.filter(|(word, _)| word.starts_with(typed)).collect())
}

fn positional(command: &Command, at: usize, typed: &str) -> Completion {
    let commands = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set());
    let commands = commands.map(|inner| (inner.get_name().to_owned(), about(inner.get_about())));
    let commands: Vec<(String, String)> = commands
        .filter(|(word, _)| word.starts_with(typed))
        .collect();
    if !commands.is_empty() {
        return Completion::Words(commands);
    }
    let Some(arg) = command.get_positionals().next() else {
        return Completion::Words(Vec::new());
    };
    let names: Vec<&str> = arg
        .get_value_names()
        .into_iter()
        .flatten()
        .map(clap::builder::Str::as_str)
        .collect();
    match (names.as_slice(), at) {
        (["OTELAGENT"], 0) => Completion::OtelAgent,
        (["KIND", "NAME"], 0) => Completion::Words(vec![("pod".into(), "a pod that runs".into())]),
        (["KIND", "NAME"], 1) => Completion::Pod,
        (_, 0) => of_value(arg, typed),
        _ => Completion::Words(Vec::new()),
    }
}

/// The answer for a shell: candidates, and Cobra's directive: 4, no files, or 0, files.
pub fn answer(candidates: &[(String, String)], is_file: bool) -> String {
    let mut out = String::new();
    for (word, about) in candidates {
        out.push_str(word);
        if !about.is_empty() {
            out.push('\t');
            out.push_str(about);
        }
        out.push('\n');
    }
    out + if is_file { ":0\n" } else { ":4\n" }
}
