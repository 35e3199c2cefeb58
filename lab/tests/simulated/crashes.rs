//! The controller is killed before and after each write, or gets an error at it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use tokio::time::Instant;

use super::faults::{Fault, Plan};
use super::run::{Reference, Story, run};
use super::sample::drawn;
use super::topology::{ALL, pairs};
use crate::test_scale::{is_full, is_wanted};

/// Runs at once.
const AT_ONCE: usize = 24;
/// In `make test`: switches whose writes are discovered, and runs drawn from these.
const SAMPLE: (usize, usize) = (4, 20);
/// Errors that a write may get, whether it is executed or not.
const ANSWERS: [Fault; 7] = [
    Fault::Answer(409, 3),
    Fault::Answer(429, 2),
    Fault::Answer(500, 2),
    Fault::Answer(503, 2),
    Fault::Lost,
    Fault::Silence,
    Fault::Twice,
];

/// A run and its fault.
#[derive(Clone, Debug)]
struct Trial {
    story: Story,
    plan: Plan,
}

impl std::fmt::Display for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (key, nth) = &self.plan.at;
        write!(f, "{}: {:?} at {key} #{nth}", self.story, self.plan.fault)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_at_any_write_leads_to_the_same_end_state() {
    if !testbed::skip_unless_possible("crash at every write") {
        return;
    }
    let began = Instant::now();
    let mut stories: Vec<Story> = pairs()
        .into_iter()
        .map(|(from, to)| Story::Switch(from, to))
        .collect();
    stories.extend(ALL.map(Story::Create));
    stories.extend(ALL.map(Story::Delete));
    stories.retain(|story| is_wanted(&story.to_string()));
    let stories = drawn(stories, SAMPLE.0);
    let (references, mut failed) = references(&stories).await;
    let mut trials = trials(&stories, &references);
    trials.retain(|trial| is_wanted(&trial.to_string()));
    assert!(!trials.is_empty(), "no run begins so");
    let all = trials.len();
    let trials = drawn(trials, SAMPLE.1);
    let chosen = trials.len();
    let done = AtomicUsize::new(0);
    let outcomes: Vec<(Trial, Result<Option<Reference>, String>)> = futures::stream::iter(trials)
        .map(|trial| {
            let reference = &references[&format!("{:?}", trial.story)];
            let done = &done;
            async move {
                let outcome = run(trial.story, Some(trial.plan.clone()), Some(reference)).await;
                let nth = done.fetch_add(1, Ordering::Relaxed) + 1;
                println!("{nth} of {chosen}: {trial}: {}", verdict(&outcome));
                (trial, outcome)
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let passed = outcomes
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Ok(Some(_))))
        .count();
    let unmet: Vec<&Trial> = outcomes
        .iter()
        .filter(|(_, outcome)| matches!(outcome, Ok(None)))
        .map(|(trial, _)| trial)
        .collect();
    println!(
        "{} stories, {all} faults, {chosen} run: {passed} passed, {} never met their write, {:?}",
        stories.len(),
        unmet.len(),
        began.elapsed()
    );
    for trial in &unmet {
        println!("not met: {trial}");
    }
    failed.extend(outcomes.iter().filter_map(|(trial, outcome)| {
        let wrong = outcome.as_ref().err()?;
        Some(format!("{trial}\n    {wrong}"))
    }));
    assert!(
        failed.is_empty(),
        "{} of {chosen}:\n{}",
        failed.len(),
        failed.join("\n")
    );
    // A status on the way may be passed over; everything else is written in every run.
    let evaded: Vec<&&Trial> = unmet
        .iter()
        .filter(|trial| !is_status(&trial.plan.at.0))
        .collect();
    assert!(evaded.is_empty(), "never made: {evaded:?}");
}

/// The result of each story without faults, and the failures among them. A story that runs again must have the same
/// result.
async fn references(stories: &[Story]) -> (BTreeMap<String, Reference>, Vec<String>) {
    let reported: Vec<(Story, Result<Option<Reference>, String>)> =
        futures::stream::iter(stories.to_vec())
            .map(|story| async move {
                let reported = run(story, None, None).await;
                println!("{story} without faults: {}", verdict(&reported));
                (story, reported)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
    let (mut found, mut wrong) = (Vec::new(), Vec::new());
    for (story, reported) in reported {
        match reported {
            Ok(reference) => found.push((story, reference.expect("a run without a plan"))),
            Err(why) => wrong.push(format!("{story} without faults:\n    {why}")),
        }
    }
    // A switch ends where a fresh object with the same spec does.
    for (story, reference) in &found {
        let Story::Switch(_, to) = story else {
            continue;
        };
        let fresh = found.iter().find(|(other, _)| *other == Story::Create(*to));
        if let Some((_, fresh)) = fresh {
            let differs = crate::status_checker::end_state::differences(&fresh.end, &reference.end);
            if !differs.is_empty() {
                wrong.push(format!("{story} is not as fresh: {differs:?}"));
            }
        }
    }
    let found = found
        .into_iter()
        .map(|(story, reference)| (format!("{story:?}"), reference));
    (found.collect(), wrong)
}

fn trials(stories: &[Story], references: &BTreeMap<String, Reference>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for story in stories {
        let Some(reference) = references.get(&format!("{story:?}")) else {
            continue;
        };
        let writes: BTreeSet<(String, usize)> = reference
            .writes
            .iter()
            .map(super::faults::Write::id)
            .filter(|(key, nth)| *nth == 0 || !is_status(key))
            .collect();
        let answered = matches!(story, Story::Switch(from, to)
            if [("NodeLocal-Require", "HostPort"), ("HostPort", "Sidecar")].contains(&(from.name, to.name)));
        for at in writes {
            let crashes = [Fault::CrashBefore, Fault::CrashAfter];
            let answers = ANSWERS.iter().filter(|_| answered || !is_full());
            trials.extend(crashes.iter().chain(answers).map(|fault| Trial {
                story: *story,
                plan: Plan {
                    at: at.clone(),
                    fault: *fault,
                },
            }));
        }
    }
    trials
}

/// The verdict in the line that each run prints when it ends, so that an interrupted test shows its findings.
fn verdict<T>(outcome: &Result<Option<T>, String>) -> String {
    match outcome {
        Ok(Some(_)) => "passed".into(),
        Ok(None) => "never met".into(),
        Err(wrong) => format!("FAILED ({wrong})"),
    }
}

fn is_status(key: &str) -> bool {
    key.contains("/status ")
}
