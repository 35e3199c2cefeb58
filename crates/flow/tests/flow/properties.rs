//! Whatever the upstream answers, in any order and at any pace.

use std::time::Duration;

use otelagent_flow::{Flow, Outcome, Piece as _, Retry, Settings, Settled, Step};
use proptest::prelude::*;

use crate::sim::{Batch, KIB, RETRY, SETTINGS};

fn outcomes() -> impl Strategy<Value = Outcome> {
    let wait = prop_oneof![
        Just(None),
        Just(Some(Duration::ZERO)),
        Just(Some(Duration::MAX)),
        (0..1_000_000_u64).prop_map(|millis| Some(Duration::from_millis(millis))),
    ];
    prop_oneof![
        3 => Just(Outcome::Delivered),
        1 => Just(Outcome::TooLarge),
        1 => Just(Outcome::BadData),
        1 => Just(Outcome::Denied),
        1 => Just(Outcome::Exhausted),
        1 => Just(Outcome::TimedOut),
        1 => Just(Outcome::Broken),
        1 => Just(Outcome::Unreachable),
        2 => wait.prop_map(Outcome::Busy),
    ]
}

/// What happens next, if it can.
#[derive(Clone, Debug)]
enum Event {
    End(usize, Outcome, f64),
    Wait(Duration),
    WaitUntilDue,
    Change,
    Drain,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (any::<usize>(), outcomes(), 0.0..1.0).prop_map(|(of, outcome, dice)| Event::End(of, outcome, dice)),
        4 => (0..60_000_u64).prop_map(|millis| Event::Wait(Duration::from_millis(millis))),
        4 => Just(Event::WaitUntilDue),
        1 => Just(Event::Change),
        1 => Just(Event::Drain),
    ]
}

fn settings() -> impl Strategy<Value = Settings> {
    let times = prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::from_secs(5)),
        Just(Duration::MAX)
    ];
    (
        0..12_usize,
        times.clone(),
        times.clone(),
        times,
        any::<(bool, bool)>(),
        1.0..100.0,
        0.0..=1.0,
    )
        .prop_map(
            |(most, initial, max, elapsed, (enabled, hold), multiplier, randomization)| Settings {
                max_in_flight: most,
                retry: Retry {
                    enabled,
                    hold,
                    initial_interval: initial,
                    max_interval: max,
                    multiplier,
                    randomization_factor: randomization,
                    max_elapsed_time: elapsed,
                    ..RETRY
                },
                ..SETTINGS
            },
        )
}

/// The pieces of the flow, and where they are.
struct Check {
    flow: Flow<Batch>,
    settings: Settings,
    flying: Vec<otelagent_flow::Attempt<Batch>>,
    /// Requests.
    accepted: usize,
    settled: usize,
    now: Duration,
    next_id: u32,
}

impl Check {
    /// Does what is to be done; returns when something is due.
    fn advance(&mut self, batches: &mut u32) -> Option<Duration> {
        loop {
            match self.flow.next(self.now) {
                Step::Send(attempt) => {
                    self.flying.push(attempt);
                    let current = self.flying.iter().filter(|a| self.flow.is_current(a));
                    assert!(current.count() <= self.settings.max_in_flight.max(1));
                }
                Step::Lost(batch, _) => self.settled += batch.requests(),
                Step::Idle { take, until } => {
                    assert!(until.is_none_or(|until| until > self.now), "busy waiting");
                    if let Some(bytes) = take.filter(|_| *batches > 0) {
                        *batches -= 1;
                        assert!(bytes >= 64 * KIB);
                        let batch = Batch::numbered(self.next_id, 1 + *batches % 7, 20 * KIB);
                        self.next_id += 7;
                        self.accepted += batch.requests();
                        self.flow.push(batch, self.now);
                        continue;
                    }
                    let stuck = until.is_none() && self.flying.is_empty() && !self.flow.is_empty();
                    assert!(!stuck, "nothing would ever happen");
                    return until;
                }
            }
        }
    }

    fn end(&mut self, of: usize, outcome: Outcome, dice: f64) {
        if self.flying.is_empty() {
            return;
        }
        let attempt = self.flying.swap_remove(of % self.flying.len());
        let finished = self.flow.finished(attempt, outcome, self.now, dice);
        self.settled += match finished.settled {
            Some(Settled::Delivered(batch) | Settled::Lost(batch, _)) => batch.requests(),
            None => 0,
        };
    }
}

proptest! {
    #[test]
    fn books_balance_and_no_wait_is_without_bound(
        settings in settings(),
        mut batches in 1..40_u32,
        events in prop::collection::vec(events(), 0..300),
    ) {
        let now = Duration::from_secs(3);
        let mut check = Check {
            flow: Flow::new(settings, now),
            settings,
            flying: Vec::new(),
            accepted: 0,
            settled: 0,
            now,
            next_id: 0,
        };
        let mut due = check.advance(&mut batches);
        for event in events {
            match event {
                Event::End(of, outcome, dice) => check.end(of, outcome, dice),
                Event::Wait(time) => check.now += time,
                Event::WaitUntilDue => check.now = due.unwrap_or(check.now).min(check.now + Duration::from_secs(1 << 40)),
                Event::Change => check.flow.reset(settings, check.now),
                Event::Drain => check.flow.drain(check.now),
            }
            due = check.advance(&mut batches);
        }
        // The upstream is well for good: after the longest wait everything is settled.
        check.flow.reset(settings, check.now);
        for _ in 0..10_000 {
            due = check.advance(&mut batches);
            if check.flying.is_empty() && check.flow.is_empty() && batches == 0 {
                break;
            }
            if check.flying.is_empty() {
                check.now = due.unwrap();
            }
            check.end(0, Outcome::Delivered, 0.5);
        }
        prop_assert_eq!(check.settled, check.accepted);
    }

    #[test]
    fn failing_upstream_gets_one_attempt_at_a_time(
        outcome in outcomes().prop_filter("a failure", |outcome| outcome.is_retryable()),
        dice in 0.0..1.0,
    ) {
        let mut check = Check {
            flow: Flow::new(SETTINGS, Duration::ZERO),
            settings: SETTINGS,
            flying: Vec::new(),
            accepted: 0,
            settled: 0,
            now: Duration::ZERO,
            next_id: 0,
        };
        let mut batches = 1000;
        // Ten in flight.
        while check.flying.len() < 10 {
            check.advance(&mut batches);
            let count = check.flying.len();
            for _ in 0..count {
                check.end(0, Outcome::Delivered, dice);
            }
            check.advance(&mut batches);
        }
        check.now += Duration::from_secs(1);
        for _ in 0..10 {
            check.end(0, outcome, dice);
        }
        let first = check.now;
        for _ in 0..20 {
            if let Some(due) = check.advance(&mut batches) {
                // Five minutes at most, and twice that for a piece that lets others go first.
                prop_assert!(due <= check.now + Duration::from_mins(10));
                check.now = due;
            }
            check.advance(&mut batches);
            prop_assert!(check.flying.len() <= 1);
            check.end(0, outcome, dice);
        }
        prop_assert!(check.now > first);
    }
}
