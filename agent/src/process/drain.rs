//! Ends the agent in order: not ready any more, connections end, the queues are sent, the ports close last, while the
//! last metrics are pushed.

use std::time::Duration;

use otlp_wire::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

use super::agent::Agent;
use crate::health::Status;

/// The time limit for the last answers.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The time limit for the last writes to disk.
const LAST_WRITES: Duration = Duration::from_secs(1);

impl Agent {
    /// Ends everything before `deadline`.
    ///
    /// New connections are served until the existing ones have ended. After that requests are refused as
    /// retryable, so that the queues shrink. Ports stay open until the end unless another agent listens on
    /// them: SDKs retry a refused request, but count a refused connection as a final failure.
    pub(super) async fn drain(mut self, lame_duck: Duration, deadline: Instant) {
        self.report.proceed(Status::Draining);
        info!("draining");
        sleep_until((Instant::now() + lame_duck).min(deadline)).await;
        for lane in &self.report.lanes {
            lane.flush();
        }
        for upstream in &self.report.upstreams {
            upstream.drain();
        }
        self.leave.send_replace(true);
        self.let_connections_end(deadline).await;
        for lane in &self.report.lanes {
            lane.close();
        }
        let now = Instant::now();
        let reserve = LAST_ANSWERS + self.pusher.reserve();
        let reserve = reserve.min(deadline.saturating_duration_since(now) / 4);
        let all = async { while self.senders.join_next().await.is_some() {} };
        if timeout_at(deadline - reserve, all).await.is_err() {
            // Dropped batches stay on disk or count as lost in shutdown.
            self.senders.shutdown().await;
        }
        // A disk that hangs does not hold up the end.
        let last_write = (Instant::now() + LAST_WRITES).min(deadline - reserve / 2);
        for lane in &self.report.lanes {
            lane.written(last_write).await;
            lane.abandon();
        }
        self.close.send_replace(true);
        let all = async { while self.receivers.join_next().await.is_some() {} };
        let last = (Instant::now() + LAST_ANSWERS).min(deadline);
        let (closed, ()) = tokio::join!(timeout_at(last, all), self.pusher.finish(deadline));
        if closed.is_err() {
            self.receivers.shutdown().await;
        }
        self.log_losses();
    }

    /// Waits for the existing connections, at most half of the remaining time.
    async fn let_connections_end(&mut self, deadline: Instant) {
        let (unused, _) = mpsc::channel(1);
        drop(std::mem::replace(&mut self.left.0, unused));
        let now = Instant::now();
        let until = now + deadline.saturating_duration_since(now) / 2;
        if timeout_at(until, self.left.1.recv()).await.is_err() {
            warn!("some connections did not end; their requests are refused");
        }
    }

    fn log_losses(&self) {
        for (signal, reason, items) in self.report.metrics.losses() {
            warn!(signal = signal.name(), reason, items, "telemetry lost");
        }
        for signal in Signal::ALL {
            let books = self.report.metrics.books(signal);
            if books.accepted + books.recovered > 0 {
                // Requests that were only in memory are counted as lost.
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
    }
}
