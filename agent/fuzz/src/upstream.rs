//! Answers of an upstream, in any order and at any pace.

use std::time::Duration;

use otelagent_flow::{
    Attempt, Flow, Outcome, Piece, Retry, Settings, Settled, Step, of_grpc, of_http,
};
use otlp_wire::status;

const SETTINGS: Settings = Settings {
    max_in_flight: 4,
    max_batch: 1 << 20,
    timeout: Duration::from_secs(10),
    retry: Retry {
        enabled: true,
        initial_interval: Duration::from_secs(5),
        max_interval: Duration::from_secs(30),
        multiplier: 1.5,
        randomization_factor: 0.5,
        max_elapsed_time: Duration::ZERO,
        max_wait: Duration::from_mins(5),
        hold: true,
    },
};

/// The longest that anything waits.
const LONGEST: Duration = SETTINGS.retry.max_wait;

/// A number of requests of 10 KiB.
struct Requests(usize);

impl Piece for Requests {
    fn bytes(&self) -> usize {
        self.0 * 10 * 1024
    }

    fn requests(&self) -> usize {
        self.0
    }

    fn split(&mut self) -> Option<Self> {
        let second = self.0 / 2;
        self.0 -= second;
        (second > 0).then_some(Self(second))
    }
}

struct Agent {
    flow: Flow<Requests>,
    now: Duration,
    flying: Vec<Attempt<Requests>>,
    taken: usize,
    settled: usize,
}

/// No answer ends the agent, makes it spin, or makes it wait without bound; nothing is lost without a count.
pub fn upstream(bytes: &[u8]) {
    let mut agent = Agent {
        flow: Flow::new(SETTINGS, Duration::ZERO),
        now: Duration::ZERO,
        flying: Vec::new(),
        taken: 0,
        settled: 0,
    };
    let mut rest = bytes;
    while let Some((&[pace, kind, code, length], after)) = rest.split_first_chunk::<4>() {
        let (text, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        agent.advance(1 + usize::from(pace));
        agent.now += Duration::from_millis(u64::from(pace) * 40);
        agent.answer(outcome(kind, code, text), f64::from(kind) / 256.0);
    }
    agent.flow.reset(SETTINGS, agent.now);
    while agent.settled < agent.taken {
        agent.advance(0);
        agent.answer(Outcome::Delivered, 0.5);
    }
}

fn outcome(kind: u8, code: u8, text: &[u8]) -> Outcome {
    let message = String::from_utf8_lossy(text);
    let delay = status::retry_delay(text);
    match kind % 8 {
        0 | 1 => of_grpc(u32::from(code), &message, delay),
        2 | 3 => of_http(u16::from(code) * 3, &message, delay),
        4 => Outcome::TimedOut,
        5 => Outcome::Broken,
        6 => Outcome::Unreachable,
        _ => Outcome::Delivered,
    }
}

impl Agent {
    /// Goes on until something is in flight.
    fn advance(&mut self, requests: usize) {
        let mut requests = requests;
        loop {
            match self.flow.next(self.now) {
                Step::Send(attempt) => self.flying.push(attempt),
                Step::Lost(piece, _) => self.settled += piece.requests(),
                Step::Idle { take, until } => {
                    assert!(until.is_none_or(|until| until > self.now), "spins");
                    if take.is_some() && requests > 0 {
                        self.flow.push(Requests(requests), self.now);
                        self.taken += requests;
                        requests = 0;
                    } else if !self.flying.is_empty() || self.settled == self.taken {
                        return;
                    } else {
                        let until = until.expect("something happens");
                        assert!(until - self.now <= LONGEST, "waits {:?}", until - self.now);
                        self.now = until;
                    }
                }
            }
        }
    }

    fn answer(&mut self, outcome: Outcome, dice: f64) {
        let Some(attempt) = self.flying.pop() else {
            return;
        };
        let finished = self.flow.finished(attempt, outcome, self.now, dice);
        self.settled += match finished.settled {
            Some(Settled::Delivered(piece) | Settled::Lost(piece, _)) => piece.requests(),
            None => 0,
        };
    }
}
