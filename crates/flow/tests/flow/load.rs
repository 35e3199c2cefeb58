//! Slow and overloaded upstreams.

use std::time::Duration;

use otelagent_flow::{Outcome, Piece as _, Settings};

use crate::sim::{Agent, Batch, KIB, MIB, SETTINGS, TICK, Upstream, World};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// What a call costs an upstream: all calls share its capacity, also those whose callers have gone.
struct Shared<F> {
    cost: F,
    /// Per second.
    capacity: f64,
    calls: Vec<(u64, f64)>,
}

impl<F: Fn(&Batch) -> f64> Shared<F> {
    fn new(capacity: f64, cost: F) -> Self {
        Self {
            cost,
            capacity,
            calls: Vec::new(),
        }
    }
}

impl<F: Fn(&Batch) -> f64> Upstream for Shared<F> {
    fn arrive(&mut self, _: Duration, call: u64, batch: &Batch) {
        self.calls.push((call, (self.cost)(batch)));
    }

    fn answered(&mut self, _: Duration) -> Vec<(u64, Outcome)> {
        let mut budget = self.capacity * TICK.as_secs_f64();
        // What one does not need is the others'.
        while budget > 1e-9 && self.calls.iter().any(|(_, left)| *left > 0.0) {
            let active = self.calls.iter().filter(|(_, left)| *left > 0.0).count();
            let share = budget / f64::from(u32::try_from(active).unwrap());
            for (_, left) in self.calls.iter_mut().filter(|(_, left)| *left > 0.0) {
                let used = share.min(*left);
                *left -= used;
                budget -= used;
            }
        }
        let done = self.calls.extract_if(.., |(_, left)| *left <= 1e-9);
        done.map(|(call, _)| (call, Outcome::Delivered)).collect()
    }
}

/// A number of slots. It refuses a request at once if no slot is free.
struct Places {
    count: usize,
    busy: Vec<(u64, Duration)>,
    refused: Vec<u64>,
}

impl Upstream for Places {
    fn arrive(&mut self, now: Duration, call: u64, _: &Batch) {
        if self.busy.len() < self.count {
            self.busy.push((call, now + SECOND));
        } else {
            self.refused.push(call);
        }
    }

    fn answered(&mut self, now: Duration) -> Vec<(u64, Outcome)> {
        let done = self.busy.extract_if(.., |(_, until)| *until <= now);
        let done = done.map(|(call, _)| (call, Outcome::Delivered));
        let refused = self
            .refused
            .drain(..)
            .map(|call| (call, Outcome::Busy(None)));
        done.chain(refused).collect()
    }
}

fn bytes(batch: &Batch) -> f64 {
    f64::from(u32::try_from(batch.bytes()).unwrap())
}

#[test]
fn thin_link_is_drained_at_its_speed_without_duplicates() {
    for (rate, timeout, size) in [
        (1_000_000.0, 5, MIB),
        (1_000_000.0, 10, 3 * MIB),
        (1_000_000.0, 5, 3 * MIB),
        (250_000.0, 5, MIB),
    ] {
        let settings = Settings {
            timeout: Duration::from_secs(timeout),
            ..SETTINGS
        };
        let per_batch = u32::try_from(size / (10 * KIB)).unwrap();
        let count = u32::try_from(20 * MIB / size).unwrap();
        let backlog = (0..count).map(|n| Batch::numbered(n * per_batch, per_batch, 10 * KIB));
        let agent = Agent::new(settings, backlog);
        let all: usize = agent.backlog.iter().map(Batch::bytes).sum();
        let link = Duration::from_secs_f64(f64::from(u32::try_from(all).unwrap()) / rate);
        let mut world = World::one(agent, Shared::new(rate, bytes));
        let took = world.run_to_end(100 * MINUTE);
        let sent: usize = world.agent().sent.iter().map(|(_, bytes)| bytes).sum();
        println!("{rate} B/s, {timeout} s, {size} B: {took:?} of {link:?}, {sent} B of {all} B");
        assert!(took <= link.mul_f64(1.3), "{took:?} of {link:?}");
        assert!(sent * 100 <= all * 105, "{sent} of {all}");
    }
}

/// Agents that have probed in vain for a while, so that the upstream's return finds them spread.
fn fleet(count: u32, batches: u32) -> Vec<Agent> {
    let agent = |number: u32| {
        let first = number * batches * 10;
        let batch = move |n: u32| Batch::numbered(first + n * 10, 10, 10 * KIB);
        Agent::new(SETTINGS, (0..batches).map(batch))
    };
    (0..count).map(agent).collect()
}

/// The share of the capacity that was of use, per batch of ten requests, in one minute.
fn goodput<U: Upstream>(world: &mut World<U>, per_second: f64) -> f64 {
    let delivered = |world: &World<U>| {
        let counts = world.agents.iter().map(|agent| agent.delivered.len());
        f64::from(u32::try_from(counts.sum::<usize>()).unwrap()) / 10.0
    };
    let before = delivered(world);
    world.run_for(MINUTE);
    (delivered(world) - before) / (per_second * 60.0)
}

#[test]
fn thousand_agents_that_return_at_once_use_an_upstream_that_refuses() {
    let upstream = Places {
        count: 100,
        busy: Vec::new(),
        refused: Vec::new(),
    };
    let mut world = World::new(fleet(1000, 200), upstream);
    let shares: Vec<_> = (0..5).map(|_| goodput(&mut world, 100.0)).collect();
    println!("{shares:?}");
    assert!(shares.iter().all(|share| *share >= 0.8), "{shares:?}");
}

#[test]
fn thousand_agents_that_return_at_once_do_not_drown_an_upstream() {
    // 100 batches a second, whatever their size.
    let mut world = World::new(fleet(1000, 200), Shared::new(100.0, |_| 1.0));
    // All at once: the first calls of all are too many, and are work for nothing.
    let shares: Vec<_> = (0..6).map(|_| goodput(&mut world, 100.0)).collect();
    println!("{shares:?}");
    assert!(
        shares.iter().skip(1).all(|share| *share >= 0.8),
        "{shares:?}"
    );
    // They do not call in step.
    let starts = world.agents.iter().filter_map(|agent| agent.sent.last());
    let mut starts: Vec<_> = starts.map(|(at, _)| at.as_millis() / 100).collect();
    starts.sort_unstable();
    starts.dedup();
    assert!(starts.len() > 20, "{}", starts.len());
}

#[test]
fn upstream_for_a_twentieth_of_the_demand_recovers_by_their_pauses() {
    // One call of each takes it twenty seconds, twice what they wait for.
    let mut world = World::new(fleet(2000, 200), Shared::new(100.0, |_| 1.0));
    let shares: Vec<_> = (0..8).map(|_| goodput(&mut world, 100.0)).collect();
    println!("{shares:?}");
    assert!(
        shares.iter().skip(4).all(|share| *share >= 0.8),
        "{shares:?}"
    );
}
