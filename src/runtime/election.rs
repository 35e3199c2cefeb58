//! Decides what a candidate for the lease does next, as a pure function of what it has seen.
//!
//! The times in a lease come from other machines' clocks, so they do not count: a lease has expired once
//! this process has *seen* it unchanged for its whole duration, by its own monotonic clock. Does not know
//! how leases are read and written.

use std::time::Duration;

/// The relevant fields of a lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Its holder; `None` after a release.
    pub(super) holder: Option<String>,
    /// Its version: every renewal changes it.
    pub(super) version: Option<String>,
    /// How long its holder may leave it unchanged.
    pub(super) duration: Duration,
}

/// A record, and when this process first saw this version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SeenRecord {
    pub(super) record: Record,
    pub(super) since: Duration,
}

impl SeenRecord {
    /// The state after `record` was read at `now`.
    pub(super) fn after(previous: Option<Self>, record: Record, now: Duration) -> Self {
        match previous {
            Some(seen) if seen.record == record => seen,
            _ => Self { record, since: now },
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is no lease: create it.
    Create,
    /// It is free or has expired: take it, if it still has this version.
    Take,
    /// This process holds it: renew it, if it still has this version.
    Renew,
    /// Another process holds it.
    Wait,
}

/// What `me` does next. `duration` is how long this process's leases last. A holder that asked for less
/// gets that long too, so that an operator release with a shorter duration cannot cut off an older one.
pub(super) fn next(me: &str, seen: Option<&SeenRecord>, now: Duration, duration: Duration) -> Step {
    let Some(SeenRecord { record, since }) = seen else {
        return Step::Create;
    };
    match record.holder.as_deref() {
        None | Some("") => Step::Take,
        Some(holder) if holder == me => Step::Renew,
        Some(_) if now.saturating_sub(*since) > record.duration.max(duration) => Step::Take,
        Some(_) => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn record(holder: &str, version: &str) -> Record {
        Record {
            holder: Some(holder.into()),
            version: Some(version.into()),
            duration: LEASE,
        }
    }

    fn seen(holder: &str, since: u64) -> SeenRecord {
        SeenRecord {
            record: record(holder, "1"),
            since: at(since),
        }
    }

    /// The next step after this was seen, at a second.
    fn step(seen: &SeenRecord, now: u64) -> Step {
        next("me", Some(seen), at(now), LEASE)
    }

    #[test]
    fn missing_lease_is_made() {
        assert_eq!(next("me", None, at(0), LEASE), Step::Create);
    }

    #[test]
    fn released_lease_is_taken_at_once() {
        let mut released = seen("", 0);
        assert_eq!(step(&released, 0), Step::Take);
        released.record.holder = None;
        assert_eq!(step(&released, 0), Step::Take);
    }

    #[test]
    fn own_lease_is_renewed_at_any_age() {
        assert_eq!(step(&seen("me", 0), 1), Step::Renew);
        assert_eq!(step(&seen("me", 0), 1000), Step::Renew);
    }

    #[test]
    fn anothers_lease_is_taken_only_after_it_was_seen_unchanged_for_its_duration() {
        assert_eq!(step(&seen("you", 100), 100), Step::Wait);
        assert_eq!(step(&seen("you", 100), 115), Step::Wait);
        assert_eq!(step(&seen("you", 100), 116), Step::Take);
    }

    #[test]
    fn holder_with_a_longer_lease_is_given_its_time_and_one_with_a_shorter_the_usual() {
        let mut holder = seen("you", 0);
        holder.record.duration = at(60);
        assert_eq!(step(&holder, 59), Step::Wait);
        assert_eq!(step(&holder, 61), Step::Take);
        holder.record.duration = at(1);
        assert_eq!(step(&holder, 10), Step::Wait);
    }

    #[test]
    fn renewal_starts_the_wait_anew_and_a_second_look_does_not() {
        let first = SeenRecord::after(None, record("you", "1"), at(0));
        let again = SeenRecord::after(Some(first.clone()), record("you", "1"), at(10));
        assert_eq!(again, first);
        let renewed = SeenRecord::after(Some(again), record("you", "2"), at(12));
        assert_eq!(step(&renewed, 20), Step::Wait);
        assert_eq!(step(&renewed, 28), Step::Take);
    }
}
