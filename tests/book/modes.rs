//! The tables of `docs/modes.md` that are made from the rules by which a mode is advised.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use otelagent_core::advise::{Advised, Effect, ModeReason, RULES, advise};
use otelagent_core::mode_option::ModeOption;
use otelagent_test_support::agents::environment;
use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;

use crate::pure::advise::{applying, draft, ordinary};

const PAGE: &str = "docs/modes.md";
const BEGIN: &str = "<!-- rules: written by `make reference`, from here -->\n";
const END: &str = "<!-- rules: to here -->";

#[test]
fn mode_tables_are_those_of_the_rules() {
    let page = text(PAGE);
    let (before, rest) = page.split_once(BEGIN).expect("the marker");
    let (written, after) = rest.split_once(END).expect("the marker");
    let made = tables();
    if std::env::var_os("OTELAGENT_WRITE_REFERENCE").is_some() {
        let page = format!("{before}{BEGIN}{made}{END}{after}");
        std::fs::write(repository().join(PAGE), page).unwrap();
        return;
    }
    assert!(
        written == made,
        "{PAGE} is not up to date: run `make reference`"
    );
}

/// What is advised where everything is ordinary but for one rule that applies.
fn advised(reason: ModeReason) -> Advised {
    let facts = applying(reason, ordinary());
    advise(&facts, &draft(), &environment())
}

fn tables() -> String {
    let mut table = "\n| if".to_owned();
    for option in ModeOption::ALL {
        write!(table, " | {option}").unwrap();
    }
    table.push_str(" | use |\n|---|---|---|---|---|---|---|\n");
    let conditional = RULES.iter().filter(|rule| rule.fact.is_some());
    for rule in conditional {
        let advised = advised(rule.reason);
        let best = advised.recommended().map(|best| best.option);
        let best = best.map_or_else(|| "–".to_owned(), |best| best.to_string());
        writeln!(table, "{} | {best} |", row(rule.reason, &advised)).unwrap();
    }
    table.push_str("\n| always");
    for option in ModeOption::ALL {
        write!(table, " | {option}").unwrap();
    }
    table.push_str(" |\n|---|---|---|---|---|---|\n");
    let always = RULES.iter().filter(|rule| rule.fact.is_none());
    for rule in always {
        writeln!(table, "{} |", row(rule.reason, &advised(rule.reason))).unwrap();
    }
    table.push('\n');
    table
}

fn row(reason: ModeReason, advised: &Advised) -> String {
    let mut row = format!("| {reason}");
    for option in &advised.options {
        let mut reasons = option.reasons.iter();
        let effect = reasons.find(|(_, other)| *other == reason);
        write!(row, " | {}", effect.map_or("", |(effect, _)| word(*effect))).unwrap();
    }
    row
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Nothing => "",
        Effect::For => "for",
        Effect::CallsFor => "calls for it",
        Effect::Against => "against",
        Effect::Prevents => "not possible",
    }
}

#[test]
fn every_rule_says_something_of_some_mode() {
    let mut reasons = BTreeSet::new();
    for rule in &RULES {
        let advised = advised(rule.reason);
        let mut options = advised.options.iter();
        let has_effect = options.any(|option| {
            let mut all = option.reasons.iter();
            all.any(|(_, reason)| *reason == rule.reason)
        });
        assert!(has_effect, "{:?}", rule.reason);
        assert!(reasons.insert(rule.reason), "{:?} twice", rule.reason);
        assert!(!rule.reason.to_string().is_empty());
    }
}
