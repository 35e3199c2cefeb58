//! What the agents of one `OtelAgent` answered last, and whom to ask next.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use super::answer::{AgentAnswer, ConfigurationWord, DeliveryAnswer};
use super::summary::{Counted, DeliverySummary};

/// An agent that does not answer counts by its last answer until it has not answered this often in a row.
const MISSES: u8 = 3;
/// For this many rounds the answer of a sidecar counts that is not asked again.
const SAMPLES: u8 = 3;

/// A ready agent.
#[derive(Clone, Copy, Debug)]
pub struct Askable<'a> {
    /// The namespace of its pod.
    pub namespace: &'a str,
    /// The name of its pod.
    pub name: &'a str,
    /// Its node; `None` for a sidecar, of which only a sample is asked.
    pub node: Option<&'a str>,
    /// Where it answers.
    pub address: SocketAddr,
}

/// An agent that is to be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its key in the record.
    pub key: u64,
    /// Where it answers.
    pub address: SocketAddr,
}

/// The last answers of the agents of one `OtelAgent`.
#[derive(Clone, Debug, Default)]
pub struct DeliveryRecord {
    agents: BTreeMap<u64, AgentRecord>,
    /// The key of the sidecar that was chosen last.
    cursor: u64,
}

#[derive(Clone, Debug)]
struct AgentRecord {
    place: String,
    is_sidecar: bool,
    answer: Option<DeliveryAnswer>,
    word: Option<ConfigurationWord>,
    /// Why it did not answer, if it did not when it was last asked.
    unanswered: Option<String>,
    misses: u8,
    /// Rounds since it was asked.
    age: u8,
}

impl Askable<'_> {
    /// In the order of keys, pods of one workload are far apart.
    fn key(&self) -> u64 {
        key(self.namespace, self.name)
    }

    fn record(&self) -> AgentRecord {
        AgentRecord {
            place: match self.node {
                Some(node) => format!("node {node}"),
                None => format!("pod {}/{}", self.namespace, self.name),
            },
            is_sidecar: self.node.is_none(),
            answer: None,
            word: None,
            unanswered: None,
            misses: 0,
            age: 0,
        }
    }
}

fn key(namespace: &str, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (namespace, name).hash(&mut hasher);
    hasher.finish()
}

impl AgentRecord {
    fn fails(&self) -> bool {
        matches!(self.counted(), Some(Counted::Failing(_)))
    }

    /// `None` before it has been asked.
    fn counted(&self) -> Option<Counted<'_>> {
        match (&self.answer, &self.unanswered) {
            (answer, Some(why)) if answer.is_none() || self.misses >= MISSES => {
                Some(Counted::Unanswered(why))
            }
            (Some(DeliveryAnswer::Delivers), _) => Some(Counted::Delivering),
            (Some(DeliveryAnswer::Fails(why)), _) => Some(Counted::Failing(why)),
            (Some(DeliveryAnswer::Idle | DeliveryAnswer::Undecided), _) => Some(Counted::Idle),
            (None, _) => None,
        }
    }
}

/// The sidecars that are asked next: those that follow the cursor in the order of their keys.
struct Sample<'a> {
    cursor: u64,
    most: usize,
    later: BTreeMap<u64, Askable<'a>>,
    earlier: BTreeMap<u64, Askable<'a>>,
}

impl<'a> Sample<'a> {
    fn offer(&mut self, key: u64, agent: Askable<'a>) {
        let half = if key > self.cursor {
            &mut self.later
        } else {
            &mut self.earlier
        };
        half.insert(key, agent);
        if half.len() > self.most {
            half.pop_last();
        }
    }

    fn chosen(self, most: usize) -> impl Iterator<Item = (u64, Askable<'a>)> {
        self.later.into_iter().chain(self.earlier).take(most)
    }
}

impl DeliveryRecord {
    /// Begins a round: whom to ask of these agents. Of sidecars at most `sidecars`: those that are known to fail, up
    /// to half of them, then others in turn. Agents that no longer exist are forgotten.
    pub fn choose<'a>(
        &mut self,
        agents: impl IntoIterator<Item = Askable<'a>>,
        sidecars: usize,
    ) -> Vec<Target> {
        let mut present = BTreeSet::new();
        let (mut chosen, mut failing) = (Vec::new(), Vec::new());
        let mut sample = Sample {
            cursor: self.cursor,
            most: sidecars,
            later: BTreeMap::new(),
            earlier: BTreeMap::new(),
        };
        for agent in agents {
            let key = agent.key();
            let known = self.agents.get(&key);
            if known.is_some() {
                present.insert(key);
            }
            if agent.node.is_some() {
                chosen.push((key, agent));
            } else if failing.len() < sidecars / 2 && known.is_some_and(AgentRecord::fails) {
                failing.push((key, agent));
            } else {
                sample.offer(key, agent);
            }
        }
        let sample: Vec<_> = sample.chosen(sidecars - failing.len()).collect();
        self.cursor = sample.last().map_or(self.cursor, |(key, _)| *key);
        self.agents.retain(|key, agent| {
            agent.age = agent.age.saturating_add(1);
            present.contains(key) && agent.age < SAMPLES
        });
        let chosen = chosen.into_iter().chain(failing).chain(sample);
        let target = |(key, agent): (u64, Askable<'_>)| {
            let known = self.agents.entry(key);
            known.or_insert_with(|| agent.record()).age = 0;
            Target {
                key,
                address: agent.address,
            }
        };
        chosen.map(target).collect()
    }

    /// Notes an answer, or why there was none.
    pub fn note(&mut self, key: u64, answered: Result<AgentAnswer, String>) {
        let Some(agent) = self.agents.get_mut(&key) else {
            return;
        };
        match answered {
            Ok(answer) => {
                (agent.unanswered, agent.misses) = (None, 0);
                agent.word = answer.configuration;
                // An agent that is undecided is what it was before.
                if agent.answer.is_none() || answer.delivery != DeliveryAnswer::Undecided {
                    agent.answer = Some(answer.delivery);
                }
            }
            Err(why) => {
                agent.misses = agent.misses.saturating_add(1);
                agent.unanswered = Some(why);
            }
        }
    }

    /// Whether each agent has answered, or has not answered often enough to say so.
    pub fn is_complete(&self) -> bool {
        let mut agents = self.agents.values();
        agents.all(|agent| agent.answer.is_some() || agent.misses >= MISSES)
    }

    /// What an agent of a node said last of its configuration; nothing if it does not answer any more.
    pub fn word(&self, namespace: &str, name: &str) -> Option<&ConfigurationWord> {
        let agent = self.agents.get(&key(namespace, name))?;
        agent.word.as_ref().filter(|_| agent.misses < MISSES)
    }

    /// A hash of what each agent of a node says of its configuration.
    pub fn heard(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let on_nodes = self.agents.iter().filter(|(_, agent)| !agent.is_sidecar);
        let words: Vec<_> = on_nodes.map(|(key, agent)| (key, &agent.word)).collect();
        words.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether an agent of a node runs none of these configurations, and refuses none.
    pub fn lags(&self, wanted: &BTreeSet<String>) -> bool {
        let on_nodes = self.agents.values().filter(|agent| !agent.is_sidecar);
        let mut words = on_nodes.filter_map(|agent| agent.word.as_ref());
        let is_behind =
            |word: &ConfigurationWord| word.refuses.is_none() && !wanted.contains(&word.runs);
        !wanted.is_empty() && words.any(is_behind)
    }

    /// What all of them said.
    pub fn summary(&self) -> DeliverySummary {
        let counted = self.agents.values().filter_map(|agent| {
            let counted = agent.counted()?;
            Some((agent.place.as_str(), agent.is_sidecar, counted))
        });
        DeliverySummary::of(counted)
    }
}

#[cfg(test)]
mod tests {
    use otelagent_api::DeliveryCounts;

    use super::*;

    fn address() -> SocketAddr {
        ([10, 0, 0, 1], 13133).into()
    }

    fn on_node(node: &str) -> Askable<'_> {
        Askable {
            namespace: "otelagent-system",
            name: node,
            node: Some(node),
            address: address(),
        }
    }

    fn sidecar(name: &str) -> Askable<'_> {
        Askable {
            namespace: "shop",
            name,
            node: None,
            address: address(),
        }
    }

    fn counts(record: &DeliveryRecord) -> [i32; 5] {
        let DeliveryCounts {
            asked,
            delivering,
            idle,
            failing,
            unanswered,
        } = record.summary().counts;
        [asked, delivering, idle, failing, unanswered]
    }

    fn says(delivery: DeliveryAnswer) -> AgentAnswer {
        AgentAnswer {
            delivery,
            configuration: None,
        }
    }

    fn fails() -> DeliveryAnswer {
        DeliveryAnswer::Fails("refused".into())
    }

    #[test]
    fn every_node_is_asked_in_every_round_and_forgotten_with_its_agent() {
        let mut record = DeliveryRecord::default();
        let nodes = ["a", "b", "c"].map(on_node);
        for _ in 0..5 {
            let asked = record.choose(nodes, 0);
            assert_eq!(asked.len(), 3);
            for target in asked {
                record.note(target.key, Ok(says(DeliveryAnswer::Delivers)));
            }
            assert_eq!(counts(&record), [3, 3, 0, 0, 0]);
        }
        record.choose([nodes[0]], 0);
        assert_eq!(counts(&record), [1, 1, 0, 0, 0]);
    }

    #[test]
    fn agent_keeps_its_last_answer_until_three_rounds_without_one() {
        let mut record = DeliveryRecord::default();
        assert!(record.is_complete(), "without agents nothing is awaited");
        for misses in 1..=MISSES {
            let key = record.choose([on_node("a")], 0)[0].key;
            assert!(!record.is_complete());
            record.note(key, Err("connection refused".into()));
            assert_eq!(record.is_complete(), misses == MISSES);
        }
        let mut record = DeliveryRecord::default();
        let mut round = |answered: Result<AgentAnswer, String>| {
            let key = record.choose([on_node("a")], 0)[0].key;
            record.note(key, answered);
            counts(&record)
        };
        let silent = || Err("connection refused".to_owned());
        assert_eq!(round(silent()), [1, 0, 0, 0, 1], "no answer is no guess");
        assert_eq!(round(Ok(says(DeliveryAnswer::Delivers))), [1, 1, 0, 0, 0]);
        assert_eq!(round(silent()), [1, 1, 0, 0, 0]);
        assert_eq!(round(silent()), [1, 1, 0, 0, 0]);
        assert_eq!(round(silent()), [1, 0, 0, 0, 1]);
        assert_eq!(round(Ok(says(fails()))), [1, 0, 0, 1, 0]);
    }

    #[test]
    fn undecided_agent_counts_as_what_it_was() {
        use DeliveryAnswer::{Delivers, Undecided};
        let mut record = DeliveryRecord::default();
        let mut round = |answer| {
            let key = record.choose([on_node("a")], 0)[0].key;
            record.note(key, Ok(says(answer)));
            counts(&record)
        };
        assert_eq!(round(Undecided), [1, 0, 1, 0, 0], "not delivering yet");
        assert_eq!(round(Delivers), [1, 1, 0, 0, 0]);
        assert_eq!(round(Undecided), [1, 1, 0, 0, 0]);
        assert_eq!(round(DeliveryAnswer::Fails("x".into())), [1, 0, 0, 1, 0]);
        assert_eq!(round(Undecided), [1, 0, 0, 1, 0]);
    }

    #[test]
    fn sidecars_take_turns_and_no_round_asks_more_than_the_sample() {
        let names: Vec<String> = (0..100).map(|n| format!("cart-{n}")).collect();
        let mut record = DeliveryRecord::default();
        let mut asked = BTreeMap::new();
        for _ in 0..10 {
            let round = record.choose(names.iter().map(|name| sidecar(name)), 20);
            assert_eq!(round.len(), 20);
            for target in round {
                record.note(target.key, Ok(says(DeliveryAnswer::Delivers)));
                *asked.entry(target.key).or_insert(0) += 1;
            }
        }
        assert_eq!(asked.len(), 100);
        assert!(asked.values().all(|times| *times == 2));
        assert_eq!(counts(&record), [60, 60, 0, 0, 0], "the last three samples");
    }

    #[test]
    fn failing_sidecars_are_asked_again_until_they_deliver_or_are_gone() {
        let names: Vec<String> = (0..100).map(|n| format!("cart-{n}")).collect();
        let all = || names.iter().map(|name| sidecar(name));
        let mut record = DeliveryRecord::default();
        let bad = sidecar("cart-7").key();
        let mut rounds = 0;
        while counts(&record)[3] == 0 {
            rounds += 1;
            assert!(rounds <= 5, "its turn comes");
            for target in record.choose(all(), 20) {
                let is_bad = target.key == bad;
                let answer = if is_bad {
                    fails()
                } else {
                    DeliveryAnswer::Idle
                };
                record.note(target.key, Ok(says(answer)));
            }
        }
        for _ in 0..8 {
            let round = record.choose(all(), 20);
            assert!(round.iter().any(|target| target.key == bad));
            assert_eq!(counts(&record)[3], 1);
        }
        record.choose(all().filter(|sidecar| sidecar.name != "cart-7"), 20);
        assert_eq!(counts(&record)[3], 0);
    }

    #[test]
    fn failing_sidecars_take_at_most_half_of_a_sample() {
        let names: Vec<String> = (0..100).map(|n| format!("cart-{n}")).collect();
        let mut record = DeliveryRecord::default();
        let mut asked = BTreeSet::new();
        for _ in 0..12 {
            for target in record.choose(names.iter().map(|name| sidecar(name)), 20) {
                record.note(target.key, Ok(says(fails())));
                asked.insert(target.key);
            }
        }
        assert_eq!(asked.len(), 100, "others still have their turn");
    }

    #[test]
    fn words_of_agents_are_kept_until_they_are_silent_and_those_behind_are_known() {
        let mut record = DeliveryRecord::default();
        let mut round = |runs: Option<&str>, refuses: Option<&str>| {
            let key = record.choose([on_node("a")], 0)[0].key;
            let word = runs.map(|runs| ConfigurationWord {
                runs: runs.into(),
                refuses: refuses.map(Into::into),
            });
            let answer = word.map(|word| AgentAnswer {
                configuration: Some(word),
                ..says(DeliveryAnswer::Delivers)
            });
            record.note(key, answer.ok_or_else(|| "connection refused".into()));
            let word = record.word("otelagent-system", "a").cloned();
            let wanted = BTreeSet::from(["c2".to_owned()]);
            (
                word.map(|word| word.runs),
                record.lags(&wanted),
                record.heard(),
            )
        };
        let (word, lags, first) = round(Some("c1"), None);
        assert_eq!((word.as_deref(), lags), (Some("c1"), true));
        let (_, lags, refusing) = round(Some("c1"), Some("exporters"));
        assert!(!lags, "it will not follow");
        assert_ne!(first, refusing);
        let (word, lags, second) = round(Some("c2"), None);
        assert_eq!((word.as_deref(), lags), (Some("c2"), false));
        assert_ne!(first, second);
        assert_eq!(round(None, None).0.as_deref(), Some("c2"));
        assert_eq!(round(None, None).0.as_deref(), Some("c2"));
        assert_eq!(round(None, None).0, None, "it does not answer any more");
    }
}
