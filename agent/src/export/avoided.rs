//! Addresses of which nothing came lately: a dead replica behind a name that others share.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::lock::lock;

/// For so long others are tried first.
const WHILE: Duration = Duration::from_mins(1);

/// So many are remembered at most.
const MOST: usize = 64;

/// The addresses to try last, and until when.
#[derive(Default)]
pub(super) struct Avoided(Mutex<Vec<(SocketAddr, Instant)>>);

impl Avoided {
    /// Remembers one.
    pub(super) fn add(&self, address: SocketAddr) {
        let now = Instant::now();
        let mut avoided = lock(&self.0);
        avoided.retain(|(other, until)| *other != address && now < *until);
        if avoided.len() < MOST {
            avoided.push((address, now + WHILE));
        }
    }

    /// Puts the avoided ones last; the order is the same otherwise.
    pub(super) fn order(&self, addresses: &mut [SocketAddr]) {
        let now = Instant::now();
        let avoided = lock(&self.0);
        let is_avoided = |address: &SocketAddr| {
            let mut avoided = avoided.iter();
            avoided.any(|(other, until)| other == address && now < *until)
        };
        addresses.sort_by_key(is_avoided);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn avoided_address_is_last_for_a_minute() {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let avoided = Avoided::default();
        let order = |avoided: &Avoided| {
            let mut addresses = [1, 2, 3].map(address);
            avoided.order(&mut addresses);
            addresses.map(|address| address.port())
        };
        avoided.add(address(1));
        assert_eq!(order(&avoided), [2, 3, 1]);
        advance(Duration::from_secs(59)).await;
        assert_eq!(order(&avoided), [2, 3, 1]);
        advance(Duration::from_secs(1)).await;
        assert_eq!(order(&avoided), [1, 2, 3]);
    }
}
