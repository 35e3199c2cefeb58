//! The end of the agent in order: no longer ready, connections asked to end, what is held sent, and
//! the ports closed last. Must not know protocols.

use std::time::Duration;

use otlp_wire::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::run::Agent;

/// What answers of the last moment may take.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

impl Agent {
    /// Ends everything before `deadline`; whether nothing was lost on the way.
    ///
    /// Until the connections there were have ended, what arrives on new ones is taken. From then on it
    /// is refused as retryable, so that what is held gets smaller. Ports stay open all the time, unless
    /// another agent listens on them: a client that is refused may come back, and SDKs count one that
    /// is not even connected as failed for good.
    pub(super) async fn drain(mut self, lame_duck: Duration, deadline: Instant) -> bool {
        self.report.set_draining();
        info!("draining");
        sleep(lame_duck).await;
        for lane in &self.lanes {
            lane.flush();
        }
        for upstream in &self.upstreams {
            upstream.drain();
        }
        self.leave.send_replace(true);
        self.let_connections_end(deadline).await;
        for lane in &self.lanes {
            lane.close();
        }
        let now = Instant::now();
        let reserve = LAST_ANSWERS.min(deadline.saturating_duration_since(now) / 4);
        let all = async { while self.senders.join_next().await.is_some() {} };
        if timeout_at(deadline - reserve, all).await.is_err() {
            // Batches that are dropped stay on disk, or count as lost in shutdown.
            self.senders.shutdown().await;
        }
        for lane in &self.lanes {
            lane.abandon();
        }
        self.close.send_replace(true);
        let all = async { while self.receivers.join_next().await.is_some() {} };
        if timeout(LAST_ANSWERS, all).await.is_err() {
            self.receivers.shutdown().await;
        }
        self.tell_losses()
    }

    /// Waits for the connections there were, at most half of what is left.
    async fn let_connections_end(&mut self, deadline: Instant) {
        let (nobody, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.left.0, nobody));
        let now = Instant::now();
        let until = now + deadline.saturating_duration_since(now) / 2;
        if timeout_at(until, self.left.1.recv()).await.is_err() {
            warn!("some connections did not end; what they still send is refused");
        }
    }

    fn tell_losses(&self) -> bool {
        for (signal, reason, items) in self.metrics.losses() {
            warn!(signal = signal.name(), reason, items, "telemetry lost");
        }
        let mut left = 0;
        for signal in Signal::ALL {
            let books = self.metrics.books(signal);
            left += books.lost;
            if books.accepted + books.recovered > 0 {
                // What was in memory only has been counted as lost.
                info!(
                    signal = signal.name(),
                    accepted = books.accepted,
                    recovered = books.recovered,
                    delivered = books.delivered,
                    left_on_disk = books.in_queue,
                    lost = books.lost,
                    "done"
                );
            }
        }
        left == 0
    }
}
