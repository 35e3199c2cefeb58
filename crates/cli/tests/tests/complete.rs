//! What the shell offers for a word that is being typed.

use clap::CommandFactory;

use otelagent_cli::command_line::CommandLine;
use otelagent_cli::complete::{Completion, answer, complete};

fn of(words: &[&str]) -> Completion {
    complete(&CommandLine::command(), words)
}

fn words(typed: &[&str]) -> Vec<String> {
    match of(typed) {
        Completion::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_options_and_values_are_offered() {
    assert_eq!(words(&["st"]), ["status"]);
    assert!(words(&[""]).contains(&"explain".to_owned()));
    assert!(!words(&[""]).iter().any(|word| word.starts_with("__")));
    assert_eq!(words(&["status", "--wa"]), ["--watch"]);
    assert_eq!(words(&["status", "-o", "y"]), ["yaml"]);
    assert_eq!(words(&["status", "--output=j"]), ["--output=json"]);
    assert_eq!(words(&["completion", "z"]), ["zsh"]);
    assert_eq!(words(&["top", "--by", ""]), ["load", "losses", "queue"]);
}

#[test]
fn names_of_objects_are_offered_where_they_belong() {
    assert_eq!(of(&["status", ""]), Completion::OtelAgent);
    assert_eq!(of(&["status", "-n", "shop", "n"]), Completion::OtelAgent);
    assert_eq!(of(&["-A", "top", ""]), Completion::OtelAgent);
    assert_eq!(of(&["status", "-n", ""]), Completion::Namespace);
    assert_eq!(of(&["--context", ""]), Completion::Context);
    assert_eq!(of(&["explain", "pod", ""]), Completion::Pod);
    assert_eq!(words(&["explain", ""]), ["pod"]);
    assert_eq!(of(&["render", "-f", ""]), Completion::File);
    assert_eq!(words(&["status", "a", ""]), [""; 0]);
}

#[test]
fn answer_has_the_form_that_kubectl_reads() {
    let words = [
        ("a".to_owned(), "about a".to_owned()),
        ("b".to_owned(), String::new()),
    ];
    assert_eq!(answer(&words, false), "a\tabout a\nb\n:4\n");
    assert_eq!(answer(&[], true), ":0\n");
}
