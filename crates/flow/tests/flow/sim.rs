//! Agents with a backlog, an upstream, and the time between them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use otelagent_flow::{Attempt, Flow, Loss, Note, Outcome, Piece, Retry, Settings, Settled, Step};

pub const KIB: usize = 1024;
pub const MIB: usize = 1024 * KIB;

/// The resolution of the clock.
pub const TICK: Duration = Duration::from_millis(10);

pub const RETRY: Retry = Retry {
    enabled: true,
    initial_interval: Duration::from_secs(5),
    max_interval: Duration::from_secs(30),
    multiplier: 1.5,
    randomization_factor: 0.5,
    max_elapsed_time: Duration::ZERO,
    max_wait: Duration::from_mins(5),
    hold: true,
};

pub const SETTINGS: Settings = Settings {
    max_in_flight: 10,
    max_batch: 3 * MIB,
    timeout: Duration::from_secs(10),
    retry: RETRY,
};

/// Requests of senders: number and size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch(pub Vec<(u32, usize)>);

impl Batch {
    pub fn numbered(first: u32, count: u32, bytes: usize) -> Self {
        Self((first..first + count).map(|id| (id, bytes)).collect())
    }

    pub fn has(&self, id: u32) -> bool {
        self.0.iter().any(|(held, _)| *held == id)
    }
}

impl Piece for Batch {
    fn bytes(&self) -> usize {
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }

    fn requests(&self) -> usize {
        self.0.len()
    }

    fn split(&mut self) -> Option<Self> {
        (self.0.len() > 1).then(|| Self(self.0.split_off(self.0.len().div_ceil(2))))
    }
}

/// What an upstream does.
pub trait Upstream {
    /// A call arrives.
    fn arrive(&mut self, now: Duration, call: u64, batch: &Batch);
    /// The calls that are answered now.
    fn answered(&mut self, now: Duration) -> Vec<(u64, Outcome)>;
}

/// Answers by content, after a fixed time.
pub struct Replies<F> {
    reply: F,
    latency: Duration,
    due: VecDeque<(Duration, u64, Outcome)>,
}

impl<F: FnMut(Duration, &Batch) -> Outcome> Replies<F> {
    pub fn new(latency: Duration, reply: F) -> Self {
        Self {
            reply,
            latency,
            due: VecDeque::new(),
        }
    }
}

impl<F: FnMut(Duration, &Batch) -> Outcome> Upstream for Replies<F> {
    fn arrive(&mut self, now: Duration, call: u64, batch: &Batch) {
        let outcome = (self.reply)(now, batch);
        // Nothing else in these tests ends by itself.
        if outcome != Outcome::TimedOut {
            self.due.push_back((now + self.latency, call, outcome));
        }
    }

    fn answered(&mut self, now: Duration) -> Vec<(u64, Outcome)> {
        let mut answered = Vec::new();
        while self.due.front().is_some_and(|(at, ..)| *at <= now) {
            let (_, call, outcome) = self.due.pop_front().unwrap();
            answered.push((call, outcome));
        }
        answered
    }
}

/// A call on its way.
struct Call {
    number: u64,
    started: Duration,
    attempt: Attempt<Batch>,
}

pub struct Agent {
    pub flow: Flow<Batch>,
    pub settings: Settings,
    pub backlog: VecDeque<Batch>,
    calls: Vec<Call>,
    wake: Option<Duration>,
    pub delivered: Vec<u32>,
    pub lost: BTreeMap<u32, Loss>,
    pub notes: Vec<Note>,
    /// When each call began, and its size.
    pub sent: Vec<(Duration, usize)>,
    pub accepted: usize,
}

impl Agent {
    pub fn new(settings: Settings, backlog: impl IntoIterator<Item = Batch>) -> Self {
        let backlog: VecDeque<_> = backlog.into_iter().collect();
        Self {
            flow: Flow::new(settings, Duration::ZERO),
            settings,
            accepted: backlog.iter().map(Batch::requests).sum(),
            backlog,
            calls: Vec::new(),
            wake: Some(Duration::ZERO),
            delivered: Vec::new(),
            lost: BTreeMap::new(),
            notes: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// More arrives from senders.
    pub fn accept(&mut self, batch: Batch, now: Duration) {
        self.accepted += batch.requests();
        self.backlog.push_back(batch);
        self.wake = Some(now);
    }

    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    pub fn is_done(&self) -> bool {
        self.backlog.is_empty() && self.flow.is_empty() && self.calls.is_empty()
    }

    pub fn reset(&mut self, settings: Settings, now: Duration) {
        self.flow.reset(settings, now);
        self.wake = Some(now);
    }

    /// Looks again now.
    pub fn reset_wake(&mut self, now: Duration) {
        self.wake = Some(now);
    }

    fn end(&mut self, number: u64, outcome: Outcome, now: Duration) {
        let Some(index) = self.calls.iter().position(|call| call.number == number) else {
            return;
        };
        let attempt = self.calls.remove(index).attempt;
        let finished = self.flow.finished(attempt, outcome, now, dice());
        self.notes.extend(finished.note);
        match finished.settled {
            Some(Settled::Delivered(batch)) => {
                self.delivered.extend(batch.0.iter().map(|(id, _)| *id));
            }
            Some(Settled::Lost(batch, loss)) => self.lose(&batch, loss),
            None => {}
        }
        self.wake = Some(now);
    }

    fn lose(&mut self, batch: &Batch, loss: Loss) {
        for (id, _) in &batch.0 {
            assert_eq!(self.lost.insert(*id, loss), None, "lost once");
        }
    }

    /// Does everything that is to be done now; returns the calls that begin.
    fn step(&mut self, now: Duration, next: &mut u64) -> Vec<(u64, Batch)> {
        let mut begun = Vec::new();
        let late = self
            .calls
            .iter()
            .filter(|call| now - call.started >= call.attempt.time_limit());
        for number in late.map(|call| call.number).collect::<Vec<_>>() {
            self.end(number, Outcome::TimedOut, now);
        }
        if self.wake.is_none_or(|wake| wake > now) {
            return begun;
        }
        loop {
            match self.flow.next(now) {
                Step::Send(attempt) => {
                    *next += 1;
                    begun.push((*next, attempt.piece().clone()));
                    self.sent.push((now, attempt.piece().bytes()));
                    self.calls.push(Call {
                        number: *next,
                        started: now,
                        attempt,
                    });
                    assert!(self.calls.len() <= self.settings.max_in_flight);
                }
                Step::Lost(batch, loss) => self.lose(&batch, loss),
                Step::Idle { take, until } => {
                    assert!(until.is_none_or(|until| until > now), "busy waiting");
                    if let Some(bytes) = take
                        && let Some(batch) = self.cut(bytes)
                    {
                        self.flow.push(batch, now);
                        continue;
                    }
                    self.wake = until;
                    return begun;
                }
            }
        }
    }

    /// A batch of at most `bytes`, but at least one request.
    fn cut(&mut self, bytes: usize) -> Option<Batch> {
        let mut batch = self.backlog.pop_front()?;
        while batch.bytes() > bytes
            && let Some(half) = batch.split()
        {
            self.backlog.push_front(half);
        }
        Some(batch)
    }

    /// Nothing is lost without a count, and nothing twice.
    pub fn check_books(&self) {
        let mut all = self.delivered.clone();
        all.extend(self.lost.keys());
        all.sort_unstable();
        let settled = all.len();
        all.dedup();
        assert_eq!(all.len(), settled, "settled once");
        if self.is_done() {
            assert_eq!(settled, self.accepted, "everything is settled");
        }
    }
}

/// A world of agents and one upstream.
pub struct World<U> {
    pub now: Duration,
    pub agents: Vec<Agent>,
    pub upstream: U,
    /// Who made a call.
    callers: BTreeMap<u64, usize>,
    next: u64,
}

impl<U: Upstream> World<U> {
    pub fn new(agents: impl IntoIterator<Item = Agent>, upstream: U) -> Self {
        Self {
            now: Duration::ZERO,
            agents: agents.into_iter().collect(),
            upstream,
            callers: BTreeMap::new(),
            next: 0,
        }
    }

    pub fn one(agent: Agent, upstream: U) -> Self {
        Self::new([agent], upstream)
    }

    pub fn agent(&mut self) -> &mut Agent {
        &mut self.agents[0]
    }

    pub fn tick(&mut self) {
        self.now += TICK;
        for (call, outcome) in self.upstream.answered(self.now) {
            if let Some(agent) = self.callers.remove(&call) {
                self.agents[agent].end(call, outcome, self.now);
            }
        }
        for (index, agent) in self.agents.iter_mut().enumerate() {
            for (call, batch) in agent.step(self.now, &mut self.next) {
                self.callers.insert(call, index);
                self.upstream.arrive(self.now, call, &batch);
            }
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.tick();
        }
    }

    /// Runs until everything is settled; returns the time it took.
    pub fn run_to_end(&mut self, limit: Duration) -> Duration {
        let begin = self.now;
        while !self.agents.iter().all(Agent::is_done) {
            self.tick();
            assert!(self.now - begin < limit, "not done within {limit:?}");
        }
        for agent in &self.agents {
            agent.check_books();
        }
        self.now - begin
    }
}

thread_local! {
    static DICE: std::cell::Cell<u64> = const { std::cell::Cell::new(0x9e37_79b9_7f4a_7c15) };
}

/// Dice that fall alike in every run (xorshift).
pub fn dice() -> f64 {
    DICE.with(|state| {
        let mut value = state.get();
        value ^= value << 13;
        value ^= value >> 7;
        value ^= value << 17;
        state.set(value);
        f64::from(u32::try_from(value >> 32).unwrap()) / f64::from(u32::MAX)
    })
}
