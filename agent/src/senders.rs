//! Fair shares: how much each sender holds, and how much it may hold where room is scarce.
//!
//! A capacity belongs to all who hold something, and to one more. Who holds less than its part of that is within its
//! share and may fill the capacity up. Everybody else leaves the reserve free: it is for those within their share until
//! room that becomes free has balanced the shares.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::MutexGuard;

use crate::lock::lock;

/// Senders beyond their share leave this part of a capacity free.
const RESERVE: usize = 16;

/// The number of known senders above which those are forgotten that are gone.
const KNOWN: usize = 1024;

/// The number of senders that a queue tells apart.
const APART: usize = 1024;

/// So many connections of one sender are few.
const FEW: usize = 32;

/// Everything on this machine that comes by a Unix socket or by the usual loopback addresses.
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// All whom a queue does not tell apart.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The part of a capacity that is only for senders within their share.
pub(crate) fn reserve(capacity: usize) -> usize {
    capacity / RESERVE
}

/// Clients of one address.
#[derive(Debug)]
pub(crate) struct Sender {
    address: IpAddr,
    /// The bytes of memory that its requests hold.
    held: AtomicUsize,
    /// Its requests that were refused for lack of room.
    refused: AtomicU64,
    connections: AtomicUsize,
    /// Held by the one of its large requests that waits for the thread of those.
    large: tokio::sync::Mutex<()>,
}

impl Sender {
    /// Waits until no other large request of this sender waits for the thread of those: however many there are, each
    /// sender has one in that queue.
    pub(crate) async fn large_turn(&self) -> MutexGuard<'_, ()> {
        self.large.lock().await
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// How far its connections are from being few; one more means twice as many.
    pub(crate) fn crowd(&self) -> u32 {
        (self.connections.load(Ordering::Relaxed) / FEW)
            .checked_ilog2()
            .map_or(0, |log| log + 1)
    }

    /// Counts a request that was refused for lack of room.
    pub(crate) fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.address == LOCAL {
            formatter.write_str("local")
        } else {
            self.address.fmt(formatter)
        }
    }
}

/// All senders.
#[derive(Debug, Default)]
pub(crate) struct Senders {
    known: Mutex<HashMap<IpAddr, Arc<Sender>>>,
    /// The number of those that hold memory.
    holding: AtomicUsize,
}

impl Senders {
    /// The sender at an address; none for a Unix socket.
    pub(crate) fn at(&self, address: Option<IpAddr>) -> Arc<Sender> {
        let address = address.map_or(LOCAL, |address| address.to_canonical());
        let is_local = address == IpAddr::V6(Ipv6Addr::LOCALHOST);
        let address = if is_local { LOCAL } else { address };
        let mut known = lock(&self.known);
        if known.len() >= KNOWN && !known.contains_key(&address) {
            known.retain(|_, sender| Arc::strong_count(sender) > 1);
        }
        let sender = known.entry(address).or_insert_with(|| {
            Arc::new(Sender {
                address,
                held: AtomicUsize::new(0),
                refused: AtomicU64::new(0),
                connections: AtomicUsize::new(0),
                large: tokio::sync::Mutex::default(),
            })
        });
        Arc::clone(sender)
    }

    /// A sender holds `bytes` now instead of `before`.
    pub(crate) fn hold(&self, sender: &Sender, before: usize, bytes: usize) {
        if bytes > before {
            let more = bytes - before;
            if sender.held.fetch_add(more, Ordering::Relaxed) == 0 {
                self.holding.fetch_add(1, Ordering::Relaxed);
            }
        } else if before > bytes {
            let less = before - bytes;
            if sender.held.fetch_sub(less, Ordering::Relaxed) == less {
                self.holding.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Whether a sender that holds `more` bytes than now is within its share of the memory.
    pub(crate) fn is_within_share(&self, sender: &Sender, more: usize, capacity: usize) -> bool {
        sender.held().saturating_add(more) <= share(capacity, self.others(sender))
    }

    /// Whether others hold memory.
    pub(crate) fn has_others(&self, sender: &Sender) -> bool {
        self.others(sender) > 0
    }

    fn others(&self, sender: &Sender) -> usize {
        let holding = self.holding.load(Ordering::Relaxed);
        holding.saturating_sub(usize::from(sender.held() > 0))
    }

    /// The senders with the largest numbers, largest first, `most` at most and none with 0.
    pub(crate) fn top(&self, most: usize, number: fn(&Sender) -> u64) -> Vec<(String, u64)> {
        let mut senders: Vec<_> = lock(&self.known)
            .values()
            .map(|sender| (number(sender), Arc::clone(sender)))
            .filter(|(number, _)| *number > 0)
            .collect();
        senders.sort_unstable_by(|(one, _), (other, _)| other.cmp(one));
        senders.truncate(most);
        let named = senders.into_iter();
        named
            .map(|(number, sender)| (sender.to_string(), number))
            .collect()
    }
}

/// What a sender and each of the `others` may hold, if one more comes.
fn share(capacity: usize, others: usize) -> usize {
    capacity / others.saturating_add(2)
}

/// Who holds how much of a queue, in memory or on disk. What is on disk does not say whose it is, so what leaves is
/// taken from everybody alike.
#[derive(Debug, Default)]
pub(crate) struct QueueShares(HashMap<IpAddr, usize>);

impl QueueShares {
    fn key(&self, sender: &Sender) -> IpAddr {
        if self.0.len() < APART || self.0.contains_key(&sender.address) {
            sender.address
        } else {
            OTHERS
        }
    }

    pub(crate) fn add(&mut self, sender: &Sender, bytes: usize) {
        *self.0.entry(self.key(sender)).or_default() += bytes;
    }

    /// Of `all` bytes in the queue, `less` leave.
    pub(crate) fn remove(&mut self, less: usize, all: usize) {
        let left = all.saturating_sub(less);
        self.0.retain(|_, held| {
            let part = *held as u128 * left as u128 / all.max(1) as u128;
            *held = usize::try_from(part).unwrap_or(*held);
            *held > 0
        });
    }

    /// Whether a sender that holds `more` bytes than now is within its share of the queue.
    pub(crate) fn is_within(&self, sender: &Sender, more: usize, capacity: usize) -> bool {
        let held = self.0.get(&self.key(sender)).copied().unwrap_or_default();
        let others = self.0.len() - usize::from(held > 0);
        held.saturating_add(more) <= share(capacity, others)
    }
}
