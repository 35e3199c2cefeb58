//! Tries several addresses, each a moment after the one before it, until one answers.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

/// An address that has not answered for this time gets company (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// The first success, or the last failure; `None` without addresses. `connect` bounds the time of one.
pub(super) async fn race<T, E, F>(
    addresses: Vec<SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> Option<Result<T, E>>
where
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let mut addresses = addresses.into_iter();
    let mut last = None;
    // Dropped with the attempts that are not needed any more.
    let mut attempts = JoinSet::new();
    loop {
        if let Some(address) = addresses.next() {
            attempts.spawn(connect(address));
        }
        let ended = if addresses.len() == 0 {
            attempts.join_next().await
        } else {
            match timeout(STAGGER, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(Ok(connected))) => return Some(Ok(connected)),
            Some(Ok(Err(error))) => last = Some(Err(error)),
            Some(Err(_)) => {}
            None => return last,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, sleep};

    use super::*;

    fn addresses(ports: impl IntoIterator<Item = u16>) -> Vec<SocketAddr> {
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        ports.into_iter().map(address).collect()
    }

    /// Port 1 swallows, port 2 refuses, others answer after their number of seconds.
    async fn connect(address: SocketAddr) -> Result<u16, u16> {
        match address.port() {
            1 => pending().await,
            2 => Err(2),
            port => {
                sleep(Duration::from_secs(port.into())).await;
                Ok(port)
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_swallows_does_not_hold_up_the_next() {
        let began = Instant::now();
        assert_eq!(race(addresses([1, 1, 3]), connect).await, Some(Ok(3)));
        assert_eq!(began.elapsed(), Duration::from_millis(3500));
    }

    #[tokio::test(start_paused = true)]
    async fn first_to_answer_counts_not_the_first_that_was_asked() {
        assert_eq!(race(addresses([9, 4]), connect).await, Some(Ok(4)));
        assert_eq!(race(addresses([4, 9]), connect).await, Some(Ok(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn refusal_lets_the_next_go_at_once() {
        let began = Instant::now();
        assert_eq!(race(addresses([2, 2, 2, 3]), connect).await, Some(Ok(3)));
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        assert_eq!(race(addresses([2, 2]), connect).await, Some(Err(2)));
        assert_eq!(race(addresses([]), connect).await, None);
    }
}
