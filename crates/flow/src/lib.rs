//! Between queue and client: what the upstream is like now, and so what is sent next.
//!
//! A [`Flow`] holds the batches ([`Piece`]) of one signal that left the queue and are not settled yet. Its
//! caller does the I/O in a loop: it asks [`Flow::next`] what to do, and reports the end of every attempt to
//! [`Flow::finished`]. Nothing here reads a clock or rolls dice: `now` is the time since a moment of the
//! caller's choice and never goes back, `dice` is a random number from 0 up to 1.
//!
//! | answer about | [`Outcome`] | what follows |
//! |---|---|---|
//! | the size | `TooLarge` | cut, learn the size that passes, cut later batches to it |
//! | the data | `BadData` | halve until the culprit is alone, lose it, deliver the rest |
//! | the way | `Denied`, `Unreachable` | hold everything, one slow probe |
//! | the load | `Busy`, `Exhausted`, `TimedOut`, `Broken` | fewer in flight, smaller, later |
//!
//! Waits are bounded, and a change of the configuration ends them all ([`Flow::reset`]).

mod answer;
mod backoff;
mod failover;
mod finish;
mod flow;
mod isolation;
mod outcome;
mod piece;
mod settings;
mod size;
mod window;

pub use self::answer::{grpc_refuses_encoding, http_refuses_encoding, of_grpc, of_http, of_proxy};
pub use self::failover::{Failover, Next};
pub use self::flow::{Attempt, Flow, MOST_PATIENCE, Step};
pub use self::outcome::{Finished, Loss, Note, Outcome, Settled};
pub use self::piece::Piece;
pub use self::settings::{Retry, Settings};
