//! Asks agents whether they deliver, beside the reconciles.
//!
//! A reconcile says which agents of its object serve ([`Polls::follow`]) and reads what they said last. The
//! [`Poller`] asks them every half minute, spread over that time, and queues the object when what they say together
//! has changed. So an object is written at most once in half a minute, however many agents it has.
//!
//! Whatever answers is not trusted: time, size and number of connections are bounded, and requests are the same
//! harmless `GET` for everyone. Decisions are in `otelagent_core::delivery`.

mod ask;
mod poller;
mod polls;

pub(crate) use poller::Poller;
pub(crate) use polls::{Followed, Polls};
