//! Ordinary incidents, one agent each.

use std::time::Duration;

use otelagent_flow::{Flow, Loss, Note, Outcome, Piece as _, Retry, Settings, Step};

use crate::sim::{Agent, Batch, KIB, MIB, RETRY, Replies, SETTINGS, World};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const LATENCY: Duration = Duration::from_millis(20);

fn batches(count: u32, requests: u32, bytes: usize) -> Vec<Batch> {
    (0..count)
        .map(|number| Batch::numbered(number * requests, requests, bytes))
        .collect()
}

/// An upstream that answers by its content.
fn picky(
    agent: Agent,
    reply: impl FnMut(Duration, &Batch) -> Outcome,
) -> World<Replies<impl FnMut(Duration, &Batch) -> Outcome>> {
    World::one(agent, Replies::new(LATENCY, reply))
}

#[test]
fn absurd_wait_is_bounded_and_noted() {
    for asked in [Duration::from_hours(24), Duration::MAX] {
        let agent = Agent::new(SETTINGS, batches(3, 1, 1000));
        let mut world = picky(agent, move |now, _| {
            if now < SECOND {
                Outcome::Busy(Some(asked))
            } else {
                Outcome::Delivered
            }
        });
        let took = world.run_to_end(6 * MINUTE);
        assert!(took >= 5 * MINUTE, "{took:?}");
        let note = Note::WaitBounded {
            asked,
            granted: 5 * MINUTE,
        };
        assert_eq!(world.agent().notes, [note]);
    }
}

#[test]
fn asked_wait_is_kept_by_everything_that_waits() {
    let agent = Agent::new(SETTINGS, batches(20, 1, 1000));
    let wait = 40 * SECOND;
    let mut world = picky(agent, move |now, _| {
        if now < SECOND {
            Outcome::Busy(Some(wait))
        } else {
            Outcome::Delivered
        }
    });
    world.run_for(wait);
    assert_eq!(world.agent().sent.len(), 1);
    world.run_to_end(MINUTE);
}

#[test]
fn change_of_configuration_ends_every_wait() {
    let day = Outcome::Busy(Some(Duration::from_hours(24)));
    for outcome in [
        day,
        Outcome::Denied,
        Outcome::Unreachable,
        Outcome::TimedOut,
    ] {
        let agent = Agent::new(SETTINGS, batches(20, 10, 1000));
        let moved = std::rc::Rc::new(std::cell::Cell::new(false));
        let is_moved = std::rc::Rc::clone(&moved);
        let mut world = picky(agent, move |_, _| {
            if is_moved.get() {
                Outcome::Delivered
            } else {
                outcome
            }
        });
        world.run_for(12 * SECOND);
        assert!(world.agent().delivered.is_empty());
        moved.set(true);
        let now = world.now;
        world.agent().reset(SETTINGS, now);
        // What is in flight to the old upstream may take its time, all else leaves.
        world.run_for(SECOND);
        assert!(world.agent().delivered.len() >= 190, "{outcome:?}");
        world.run_to_end(MINUTE);
        assert!(world.agent().lost.is_empty());
    }
}

#[test]
fn one_culprit_is_lost_alone_within_the_calls_of_two_logarithms() {
    for count in [1, 2, 3, 10, 101, 1000, 8192] {
        for culprit in [0, count / 3, count - 1] {
            let agent = Agent::new(SETTINGS, [Batch::numbered(0, count, 100)]);
            let mut world = picky(agent, move |_, batch| {
                if batch.has(culprit) {
                    Outcome::BadData
                } else {
                    Outcome::Delivered
                }
            });
            world.run_to_end(MINUTE);
            let agent = world.agent();
            assert_eq!(
                agent.lost.clone().into_iter().collect::<Vec<_>>(),
                [(culprit, Loss::Permanent)]
            );
            let calls = u32::try_from(agent.sent.len()).unwrap();
            let bound = 2.0 * f64::from(count).log2() + 4.0;
            assert!(f64::from(calls) <= bound, "{calls} calls for {count}");
        }
    }
}

#[test]
fn culprits_in_every_batch_cost_a_bounded_number_of_calls() {
    let agent = Agent::new(SETTINGS, []);
    let mut world = picky(agent, |_, batch| {
        if batch.0.iter().any(|(id, _)| id % 100 == 7) {
            Outcome::BadData
        } else {
            Outcome::Delivered
        }
    });
    // Two batches a second for five minutes.
    for number in 0..600 {
        let now = world.now;
        world
            .agent()
            .accept(Batch::numbered(number * 100, 100, 100), now);
        world.run_for(SECOND / 2);
    }
    world.run_to_end(MINUTE);
    let agent = world.agent();
    // 600 calls saved up, 600 a minute, and one for each batch.
    assert!(
        agent.sent.len() <= 600 + 5 * 600 + 600,
        "{}",
        agent.sent.len()
    );
    let spent = |note: &&Note| matches!(note, Note::IsolationSpent(_));
    assert!(agent.notes.iter().filter(spent).count() > 10);
    assert!(agent.lost.len() > 600, "whole pieces are given up");
    assert!(agent.delivered.len() > 12_000, "{}", agent.delivered.len());
    assert!(agent.lost.values().all(|loss| *loss == Loss::Permanent));
}

#[test]
fn upstream_that_finds_everything_too_large_gets_few_calls_with_pauses() {
    let agent = Agent::new(SETTINGS, [Batch::numbered(0, 200, 150)]);
    let mut world = picky(agent, |_, _| Outcome::TooLarge);
    world.run_to_end(10 * MINUTE);
    let agent = world.agent();
    assert!(agent.sent.len() <= 12, "{} calls", agent.sent.len());
    let gaps = agent.sent.windows(2).map(|pair| pair[1].0 - pair[0].0);
    assert!(gaps.skip(1).all(|gap| gap > 2 * SECOND), "{:?}", agent.sent);
    assert_eq!(agent.lost.len(), 200);
    assert!(agent.lost.values().all(|loss| *loss == Loss::TooLarge));
}

#[test]
fn later_batches_are_cut_to_the_size_that_passes() {
    let agent = Agent::new(SETTINGS, batches(20, 300, 10 * KIB));
    let mut world = picky(agent, |_, batch| {
        let bytes: usize = batch.0.iter().map(|(_, bytes)| bytes).sum();
        if bytes > MIB {
            Outcome::TooLarge
        } else {
            Outcome::Delivered
        }
    });
    world.run_to_end(2 * MINUTE);
    let agent = world.agent();
    assert!(agent.lost.is_empty());
    let refused = agent.sent.iter().filter(|(_, bytes)| *bytes > MIB).count();
    assert_eq!(refused, 2, "3 MiB and 1.5 MiB, once each");
    assert!(agent.sent.len() <= 2 + 20 * 4, "{} calls", agent.sent.len());
}

#[test]
fn one_request_that_is_too_large_is_lost_alone() {
    let mut batch = Batch::numbered(0, 30, 100 * KIB);
    batch.0[11].1 = 5 * MIB;
    let agent = Agent::new(SETTINGS, [batch]);
    let mut world = picky(agent, |_, batch| {
        let bytes: usize = batch.0.iter().map(|(_, bytes)| bytes).sum();
        if bytes > 4 * MIB {
            Outcome::TooLarge
        } else {
            Outcome::Delivered
        }
    });
    world.run_to_end(10 * MINUTE);
    let agent = world.agent();
    assert_eq!(
        agent.lost.clone().into_iter().collect::<Vec<_>>(),
        [(11, Loss::TooLarge)]
    );
    assert_eq!(agent.delivered.len(), 29);
}

#[test]
fn rate_limit_is_answered_with_patience() {
    for limited in [Outcome::Exhausted, Outcome::Busy(None)] {
        let agent = Agent::new(SETTINGS, batches(5, 200, 150));
        let mut world = picky(agent, move |now, _| {
            if now < 2 * MINUTE {
                limited
            } else {
                Outcome::Delivered
            }
        });
        world.run_for(2 * MINUTE);
        assert!(world.agent().sent.len() <= 14, "{:?}", world.agent().sent);
        world.run_to_end(2 * MINUTE);
        assert!(world.agent().lost.is_empty());
    }
}

#[test]
fn wrong_token_holds_everything_with_one_slow_probe() {
    let agent = Agent::new(SETTINGS, batches(50, 20, 1000));
    let mut world = picky(agent, |now, _| {
        if now < MINUTE {
            Outcome::Delivered
        } else if now < 11 * MINUTE {
            Outcome::Denied
        } else {
            Outcome::Delivered
        }
    });
    world.run_for(MINUTE - SECOND);
    for number in 0..600 {
        let now = world.now;
        let batch = Batch::numbered(1000 + number, 1, 1000);
        world.agent().accept(batch, now);
        world.run_for(SECOND);
    }
    let agent = world.agent();
    let probes = agent.sent.iter().filter(|(at, _)| *at > MINUTE).count();
    assert!(
        (15..=41).contains(&probes),
        "{probes} probes in ten minutes"
    );
    world.run_to_end(MINUTE);
    assert_eq!(world.agent().delivered.len(), 1600);
}

#[test]
fn without_hold_the_way_and_quotas_lose_as_the_specification_wants() {
    let retry = Retry {
        hold: false,
        ..RETRY
    };
    let settings = Settings { retry, ..SETTINGS };
    for outcome in [Outcome::Denied, Outcome::Exhausted] {
        let agent = Agent::new(settings, batches(3, 20, 1000));
        let mut world = picky(agent, move |_, _| outcome);
        world.run_to_end(SECOND);
        let agent = world.agent();
        assert_eq!(agent.sent.len(), 3);
        assert_eq!(agent.lost.len(), 60);
        assert!(agent.lost.values().all(|loss| *loss == Loss::Permanent));
    }
}

#[test]
fn batch_is_given_up_after_max_elapsed_time_and_not_before() {
    let retry = Retry {
        max_elapsed_time: 3 * MINUTE,
        ..RETRY
    };
    let settings = Settings { retry, ..SETTINGS };
    for outcome in [Outcome::Busy(None), Outcome::Denied, Outcome::Unreachable] {
        let agent = Agent::new(settings, batches(1, 4, 1000));
        let mut world = picky(agent, move |_, _| outcome);
        let took = world.run_to_end(4 * MINUTE);
        assert!(took >= 2 * MINUTE, "{took:?}");
        let agent = world.agent();
        assert!(agent.lost.values().all(|loss| *loss == Loss::GivenUp));
    }
}

#[test]
fn without_retries_a_batch_gets_one_attempt() {
    let retry = Retry {
        enabled: false,
        ..RETRY
    };
    let settings = Settings { retry, ..SETTINGS };
    let agent = Agent::new(settings, batches(5, 4, 1000));
    let mut world = picky(agent, |_, _| Outcome::Busy(None));
    world.run_to_end(MINUTE);
    assert_eq!(world.agent().sent.len(), 5);
    assert_eq!(world.agent().lost.len(), 20);
}

#[test]
fn shutdown_makes_every_wait_short() {
    for outcome in [
        Outcome::Busy(Some(MINUTE)),
        Outcome::Denied,
        Outcome::Unreachable,
    ] {
        let agent = Agent::new(SETTINGS, batches(3, 4, 1000));
        let mut world = picky(agent, move |now, _| {
            if now < 10 * SECOND {
                outcome
            } else {
                Outcome::Delivered
            }
        });
        world.run_for(2 * SECOND);
        let now = world.now;
        world.agent().flow.drain(now);
        world.agent().reset_wake(now);
        world.run_for(7 * SECOND);
        let probes = world.agent().sent.len();
        assert!((10..=40).contains(&probes), "{probes}");
        world.run_to_end(3 * SECOND);
    }
}

#[test]
fn mute_upstream_gets_one_small_call_at_a_time() {
    let agent = Agent::new(SETTINGS, batches(30, 300, 10 * KIB));
    let mut world = picky(agent, |now, _| {
        if now < 30 * MINUTE {
            Outcome::TimedOut
        } else {
            Outcome::Delivered
        }
    });
    for _ in 0..30 * 60 {
        world.run_for(SECOND);
        assert!(world.agent().in_flight() <= 1);
        assert!(world.agent().flow.waiting() <= 100);
    }
    let calls = world.agent().sent.len();
    assert!(calls <= 90, "{calls} calls in half an hour");
    let left: usize = world.agent().backlog.iter().map(Batch::bytes).sum();
    assert!(
        left >= (30 - 3) * 3000 * KIB,
        "{left} bytes are left in the queue"
    );
    world.run_to_end(3 * MINUTE);
    assert!(world.agent().lost.is_empty());
}

#[test]
fn upstream_that_always_answers_late_gets_each_batch_about_once() {
    let agent = Agent::new(SETTINGS, batches(10, 1, 1000));
    let latency = 12 * SECOND;
    let replies = Replies::new(latency, |_, _| Outcome::Delivered);
    let mut world = World::one(agent, replies);
    world.run_to_end(20 * MINUTE);
    let calls = world.agent().sent.len();
    assert!(calls <= 11, "{calls} calls for 10 batches");
}

#[test]
fn upstream_that_comes_and_goes_gets_everything() {
    let agent = Agent::new(SETTINGS, batches(300, 20, KIB));
    let outcomes = [Outcome::Busy(None), Outcome::Broken, Outcome::Unreachable];
    let mut world = picky(agent, move |now, _| {
        let second = now.as_secs();
        if second.is_multiple_of(10) {
            Outcome::Delivered
        } else {
            outcomes[usize::try_from(second).unwrap() % 3]
        }
    });
    world.run_to_end(60 * MINUTE);
    let agent = world.agent();
    assert_eq!(agent.delivered.len(), 6000);
    assert!(agent.lost.is_empty());
}

#[test]
fn requests_that_never_pass_do_not_stop_the_others() {
    for refused in [
        Outcome::Busy(None),
        Outcome::Exhausted,
        Outcome::Broken,
        Outcome::TimedOut,
        // A firewall that looks at the data.
        Outcome::Denied,
    ] {
        let agent = Agent::new(SETTINGS, batches(10, 1, 1000));
        let mut world = picky(agent, move |_, batch| {
            if (0..10).any(|id| batch.has(id)) {
                refused
            } else {
                Outcome::Delivered
            }
        });
        for number in 0..1200 {
            let now = world.now;
            world
                .agent()
                .accept(Batch::numbered(10 + number, 1, 1000), now);
            world.run_for(SECOND);
        }
        world.run_for(MINUTE);
        let agent = world.agent();
        agent.check_books();
        assert_eq!(agent.delivered.len(), 1200, "{refused:?}");
        let late = agent.sent.iter().filter(|(at, _)| *at > 15 * MINUTE);
        assert!(late.count() > 250, "one by one, as they come");
    }
}

#[test]
fn request_without_an_answer_delays_no_other() {
    const MUTE: u32 = 10;
    let agent = Agent::new(SETTINGS, []);
    let mut world = picky(agent, |_, batch| {
        if batch.has(MUTE) {
            Outcome::TimedOut
        } else {
            Outcome::Delivered
        }
    });
    for number in 0..600 {
        let now = world.now;
        let batch = Batch::numbered(number, 1, 1000);
        world.agent().accept(batch, now);
        world.run_for(SECOND);
        let others = number + 1 - u32::from(number >= MUTE);
        assert_eq!(world.agent().delivered.len(), others as usize, "{number}");
    }
    assert!(world.agent().lost.is_empty());
}

#[test]
fn requests_that_never_pass_are_given_up_where_they_stop_others() {
    let agent = Agent::new(SETTINGS, []);
    let mut world = picky(agent, |_, batch| {
        if batch.0.iter().any(|(id, _)| id % 20 == 7) {
            Outcome::Busy(None)
        } else {
            Outcome::Delivered
        }
    });
    for number in 0..2000 {
        let now = world.now;
        world.agent().accept(Batch::numbered(number, 1, 1000), now);
        world.run_for(SECOND);
    }
    world.run_for(10 * MINUTE);
    let agent = world.agent();
    agent.check_books();
    assert_eq!(agent.delivered.len(), 1900);
    assert!(agent.flow.waiting() <= 20);
    assert!(agent.lost.len() >= 80 - 20, "{}", agent.lost.len());
    assert!(agent.lost.values().all(|loss| *loss == Loss::GivenUp));
}

#[test]
fn good_requests_of_a_batch_that_never_passes_get_through() {
    let agent = Agent::new(SETTINGS, [Batch::numbered(0, 64, 1000)]);
    let mut world = picky(agent, |_, batch| {
        if batch.has(5) {
            Outcome::Busy(None)
        } else {
            Outcome::Delivered
        }
    });
    for number in 0..3600 {
        let now = world.now;
        world
            .agent()
            .accept(Batch::numbered(100 + number, 1, 1000), now);
        world.run_for(SECOND);
    }
    let agent = world.agent();
    agent.check_books();
    assert!(
        agent.delivered.len() >= 3600 + 63 - 1,
        "{}",
        agent.delivered.len()
    );
}

#[test]
fn quick_upstream_is_used_with_all_consumers() {
    let agent = Agent::new(SETTINGS, batches(500, 1, 10 * KIB));
    let mut world = World::one(agent, Replies::new(100 * MILLI, |_, _| Outcome::Delivered));
    let took = world.run_to_end(MINUTE);
    // 50 rounds of ten, and some to get there.
    assert!(took < 7 * SECOND, "{took:?}");
}

/// How many of three batches go back to the queue after one attempt.
fn given_back(settings: Settings, bytes: usize, outcome: Outcome) -> usize {
    let mut flow = Flow::new(settings, Duration::ZERO);
    for batch in batches(3, 1, bytes) {
        flow.push(batch, Duration::ZERO);
    }
    let Step::Send(attempt) = flow.next(Duration::ZERO) else {
        panic!("nothing is sent");
    };
    assert!(flow.give_back(MILLI, |_| true).is_none(), "nothing fails");
    flow.finished(attempt, outcome, MILLI, 0.5);
    let mut back = 0;
    while let Some(batch) = flow.give_back(MILLI, |_| true) {
        back += 1;
        assert!(batch.has(3 - back), "the newest first");
    }
    assert!(flow.give_back(MILLI, |_| true).is_none());
    usize::try_from(back).unwrap()
}

#[test]
fn what_waits_for_a_failing_upstream_goes_back_to_the_queue() {
    let given_up = Settings {
        retry: Retry {
            max_elapsed_time: MINUTE,
            ..RETRY
        },
        ..SETTINGS
    };
    for (settings, bytes, outcome, back) in [
        (SETTINGS, MIB, Outcome::Unreachable, 3),
        // One is left as a probe.
        (SETTINGS, 100 * KIB, Outcome::Unreachable, 2),
        // This one may be at fault itself.
        (SETTINGS, MIB, Outcome::Busy(None), 2),
        (SETTINGS, MIB, Outcome::Denied, 2),
        (SETTINGS, MIB, Outcome::Delivered, 0),
        (given_up, MIB, Outcome::Unreachable, 0),
    ] {
        assert_eq!(given_back(settings, bytes, outcome), back, "{outcome:?}");
    }
    assert_eq!(
        given_back(SETTINGS, MIB, Outcome::TimedOut),
        2,
        "its halves have failed"
    );
}
