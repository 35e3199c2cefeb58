//! The choice between several endpoints.

use std::time::Duration;

use otelagent_flow::{Failover, Next, Outcome};
use proptest::prelude::*;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Sends a piece at `now` to endpoints of which `outcome` tells what they do; returns those that were tried.
fn send(
    failover: &mut Failover,
    now: Duration,
    outcome: impl Fn(usize) -> Outcome,
) -> (Vec<usize>, Outcome) {
    let mut tried = vec![failover.pick(now)];
    loop {
        let endpoint = tried[tried.len() - 1];
        match failover.finished(endpoint, outcome(endpoint), now) {
            Next::Try(next) => tried.push(next),
            Next::Done => return (tried, outcome(endpoint)),
        }
    }
}

#[test]
fn first_endpoint_that_works_is_used_and_an_earlier_one_again_later() {
    let mut failover = Failover::new(3, seconds(60));
    let only = |works: usize| {
        move |endpoint| {
            if endpoint >= works {
                Outcome::Delivered
            } else {
                Outcome::Unreachable
            }
        }
    };
    assert_eq!(send(&mut failover, seconds(0), only(2)).0, [0, 1, 2]);
    assert_eq!(send(&mut failover, seconds(59), only(0)).0, [2]);
    assert_eq!(send(&mut failover, seconds(60), only(2)).0, [0, 1, 2]);
    assert_eq!(send(&mut failover, seconds(61), only(0)).0, [2]);
    assert_eq!(send(&mut failover, seconds(120), only(1)).0, [0, 1]);
    assert_eq!(send(&mut failover, seconds(121), only(1)).0, [1]);
    assert_eq!(send(&mut failover, seconds(180), only(0)).0, [0]);
    assert_eq!(failover.current(), 0);
}

#[test]
fn busy_endpoint_is_left_after_three_failures_in_a_row() {
    let mut failover = Failover::new(2, seconds(60));
    let busy = |endpoint| match endpoint {
        0 => Outcome::Busy(None),
        _ => Outcome::Delivered,
    };
    assert_eq!(send(&mut failover, seconds(0), busy).0, [0]);
    assert_eq!(send(&mut failover, seconds(1), busy).0, [0]);
    assert_eq!(
        send(&mut failover, seconds(2), |_| Outcome::Delivered).0,
        [0]
    );
    assert_eq!(send(&mut failover, seconds(3), busy).0, [0]);
    assert_eq!(send(&mut failover, seconds(4), busy).0, [0]);
    assert_eq!(send(&mut failover, seconds(5), busy).0, [0, 1]);
}

#[test]
fn endpoint_that_asks_for_a_long_wait_is_left_at_once() {
    for (asked, tried) in [(59, vec![0]), (60, vec![0, 1]), (u64::MAX, vec![0, 1])] {
        let mut failover = Failover::new(2, seconds(60));
        let busy = |endpoint| match endpoint {
            0 => Outcome::Busy(Some(seconds(asked))),
            _ => Outcome::Delivered,
        };
        assert_eq!(send(&mut failover, seconds(0), busy).0, tried);
    }
}

#[test]
fn only_one_attempt_at_a_time_tries_the_earlier_endpoints() {
    let mut failover = Failover::new(2, seconds(60));
    let dead = |endpoint| match endpoint {
        0 => Outcome::Unreachable,
        _ => Outcome::Delivered,
    };
    send(&mut failover, seconds(0), dead);
    assert_eq!(failover.pick(seconds(70)), 0);
    assert_eq!(failover.pick(seconds(70)), 1);
    assert_eq!(
        failover.finished(0, Outcome::TimedOut, seconds(75)),
        Next::Try(1)
    );
    assert_eq!(failover.pick(seconds(134)), 1);
    assert_eq!(failover.pick(seconds(135)), 0);
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Delivered),
        Just(Outcome::BadData),
        Just(Outcome::Denied),
        Just(Outcome::Busy(None)),
        Just(Outcome::TimedOut),
        Just(Outcome::Broken),
        Just(Outcome::Unreachable),
    ]
}

proptest! {
    /// A piece visits each endpoint at most once, and soon finds one that answers.
    #[test]
    fn piece_goes_round_once_and_finds_the_endpoint_that_works(
        outcomes in prop::collection::vec(outcome(), 1..5),
        earlier in prop::collection::vec((prop::collection::vec(outcome(), 5), 0_u64..100), 0..30),
    ) {
        let count = outcomes.len();
        let mut failover = Failover::new(count, seconds(60));
        let mut now = seconds(0);
        for (outcomes, later) in earlier {
            now += seconds(later);
            let (tried, _) = send(&mut failover, now, |endpoint| outcomes[endpoint]);
            prop_assert!(tried.len() <= count, "{tried:?}");
            prop_assert!(failover.current() < count);
        }
        let answers = |outcome| matches!(outcome, Outcome::Delivered | Outcome::BadData);
        if outcomes.iter().copied().any(answers) {
            let mut attempts = 0;
            loop {
                let (_, last) = send(&mut failover, now, |endpoint| outcomes[endpoint]);
                if answers(last) {
                    break;
                }
                attempts += 1;
                prop_assert!(attempts <= 3 * count + 1, "{failover:?}");
            }
        }
    }
}
