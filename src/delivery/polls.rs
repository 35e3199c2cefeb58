//! What is asked for each `OtelAgent`, and what its agents said.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;
use otelagent_api::Mode;
use otelagent_core::delivery::{Askable, DeliveryAnswer, DeliveryRecord, Target};
use otelagent_core::read::Decoded;
use otelagent_core::status::Delivery;

/// How often every agent is asked.
pub(super) const ROUND: Duration = Duration::from_secs(30);
/// Shortest time between two rounds of an object whose modes change, or of which nothing is known.
const AGAIN: Duration = Duration::from_secs(5);
/// Most sidecars of one `OtelAgent` that are asked in a round.
const SIDECARS: usize = 20;

/// Which agents of an `OtelAgent` serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Followed {
    /// The object.
    pub(crate) object: ObjectRef<Decoded>,
    /// The label value that names it.
    pub(crate) label: String,
    /// The serving mode, and those that pods still use.
    pub(crate) modes: BTreeSet<Mode>,
    /// The port of agents whose probe names none.
    pub(crate) port: u16,
}

/// All that is asked, by uid of the object.
#[derive(Default)]
pub(crate) struct Polls(Mutex<HashMap<String, Poll>>);

struct Poll {
    followed: Followed,
    record: DeliveryRecord,
    /// What the last complete round gave.
    known: Delivery,
    /// When the last round began, and the next one does.
    began: Option<Instant>,
    next: Instant,
    /// Whether the next one is not spread.
    is_prompt: bool,
    is_running: bool,
}

/// A round that has begun. Another one of its object begins only after it is dropped.
pub(super) struct Round {
    polls: Arc<Polls>,
    uid: String,
    pub(super) followed: Followed,
    /// How long its questions are spread over; none in the first round of an object.
    pub(super) spread: Duration,
}

impl Polls {
    /// Asks these agents of an object from now on; returns what they said last.
    pub(crate) fn follow(&self, uid: &str, followed: Followed) -> Delivery {
        let mut all = self.lock();
        let now = Instant::now();
        let poll = all.entry(uid.to_owned()).or_insert_with(|| Poll {
            followed: followed.clone(),
            record: DeliveryRecord::default(),
            known: Delivery::Pending,
            began: None,
            next: now,
            is_prompt: true,
            is_running: false,
        });
        if poll.followed != followed {
            // Other agents are asked soon.
            let soon = poll.began.map_or(now, |began| began + AGAIN);
            (poll.followed, poll.next, poll.is_prompt) = (followed, soon, true);
        }
        poll.known.clone()
    }

    /// Asks no agents of an object any more.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Forgets objects that are gone.
    pub(crate) fn retain(&self, uids: &HashSet<String>) {
        self.lock().retain(|uid, _| uids.contains(uid));
    }

    /// Begins the rounds that are due.
    pub(super) fn due(self: &Arc<Self>) -> Vec<Round> {
        let now = Instant::now();
        let mut all = self.lock();
        let due = all
            .iter_mut()
            .filter(|(_, poll)| !poll.is_running && poll.next <= now);
        let round = |(uid, poll): (&String, &mut Poll)| {
            let spread = if poll.is_prompt {
                Duration::ZERO
            } else {
                ROUND
            };
            (poll.is_prompt, poll.is_running) = (false, true);
            (poll.began, poll.next) = (Some(now), now + ROUND);
            Round {
                polls: Arc::clone(self),
                uid: uid.clone(),
                followed: poll.followed.clone(),
                spread,
            }
        };
        due.map(round).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Poll>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Round {
    /// Whom to ask of these agents.
    pub(super) fn choose<'a>(&self, agents: impl IntoIterator<Item = Askable<'a>>) -> Vec<Target> {
        let chosen = self.with(|poll| poll.record.choose(agents, SIDECARS));
        chosen.unwrap_or_default()
    }

    /// Notes an answer, or why there was none.
    pub(super) fn note(&self, key: u64, answered: Result<DeliveryAnswer, String>) {
        self.with(|poll| poll.record.note(key, answered));
    }

    /// Ends the round; whether what is known of the object has changed. While nothing is known, an agent that does
    /// not answer is asked again first: a new operator must not contradict the last one for a lost packet.
    pub(super) fn conclude(&self) -> bool {
        let changed = self.with(|poll| {
            if poll.known == Delivery::Pending && !poll.record.is_complete() {
                (poll.next, poll.is_prompt) = (Instant::now() + AGAIN, true);
                return false;
            }
            let known = Delivery::Known(poll.record.summary());
            let is_news = poll.known != known;
            poll.known = known;
            is_news
        });
        changed.unwrap_or_default()
    }

    fn with<T>(&self, act: impl FnOnce(&mut Poll) -> T) -> Option<T> {
        self.polls.lock().get_mut(&self.uid).map(act)
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.with(|poll| poll.is_running = false);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    impl Polls {
        fn began_long_ago(&self, uid: &str) {
            let mut all = self.lock();
            let poll = all.get_mut(uid).unwrap();
            poll.began = poll.began.and_then(|began| began.checked_sub(AGAIN));
        }
    }

    fn followed(modes: &[Mode]) -> Followed {
        Followed {
            object: ObjectRef::new("node").within("otelagent-system"),
            label: "otelagent-system.node".into(),
            modes: modes.iter().copied().collect(),
            port: 13133,
        }
    }

    fn agent(address: SocketAddr) -> Askable<'static> {
        Askable {
            namespace: "otelagent-system",
            name: "node-1",
            node: Some("n1"),
            address,
        }
    }

    #[test]
    fn object_is_news_only_when_its_agents_say_something_else() {
        let polls = Arc::new(Polls::default());
        let of_nodes = followed(&[Mode::NodeLocal]);
        assert_eq!(polls.follow("u", of_nodes.clone()), Delivery::Pending);
        let mut rounds = polls.due();
        assert_eq!(rounds.len(), 1);
        assert!(polls.due().is_empty(), "one round at a time");
        let round = rounds.remove(0);
        assert_eq!(
            round.spread,
            Duration::ZERO,
            "a new object is asked at once"
        );
        let ask = |answer: DeliveryAnswer| {
            let chosen = round.choose([agent(([10, 0, 0, 1], 13133).into())]);
            round.note(chosen[0].key, Ok(answer));
            round.conclude()
        };
        assert!(ask(DeliveryAnswer::Delivers));
        assert!(!ask(DeliveryAnswer::Delivers));
        assert!(ask(DeliveryAnswer::Fails("refused".into())));
        drop(round);
        assert!(polls.due().is_empty(), "half a minute has not passed");
        let Delivery::Known(summary) = polls.follow("u", of_nodes) else {
            panic!("known")
        };
        assert_eq!(summary.counts.failing, 1);
    }

    #[test]
    fn new_operator_says_nothing_before_agents_had_time_to_answer() {
        let polls = Arc::new(Polls::default());
        polls.follow("u", followed(&[Mode::NodeLocal]));
        let round = polls.due().remove(0);
        let miss = || {
            let chosen = round.choose([agent(([10, 0, 0, 1], 13133).into())]);
            round.note(chosen[0].key, Err("connection refused".into()));
            round.conclude()
        };
        assert!(!miss() && !miss() && miss());
        assert!(!miss(), "and no more than once");
    }

    #[test]
    fn other_modes_are_asked_soon_and_an_object_that_is_gone_no_more() {
        let polls = Arc::new(Polls::default());
        polls.follow("u", followed(&[Mode::NodeLocal]));
        drop(polls.due());
        let both = followed(&[Mode::NodeLocal, Mode::HostPort]);
        polls.follow("u", both.clone());
        assert!(
            polls.due().is_empty(),
            "changes cannot make rounds follow on each other"
        );
        polls.began_long_ago("u");
        polls.follow("u", followed(&[Mode::Sidecar]));
        polls.follow("u", both.clone());
        let round = polls.due().remove(0);
        assert_eq!(round.spread, Duration::ZERO);
        assert_eq!(round.followed, both);
        polls.retain(&HashSet::new());
        assert!(round.choose([agent(([10, 0, 0, 1], 1).into())]).is_empty());
        assert!(!round.conclude());
        drop(round);
        assert!(polls.due().is_empty());
    }
}
