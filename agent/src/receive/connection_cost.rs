//! The memory that one connection uses beside the telemetry on it.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use crate::budget::Overhead;

/// KiB of a silent connection: its task. Measured: 1.6.
pub(super) const SILENT: u32 = 2;

/// KiB of a connection after its first byte: the buffers of its protocol. Measured: 23 for HTTP/1.1, 26 for
/// HTTP/2.
pub(super) const SPEAKING: u32 = 28;

/// KiB that TLS adds after the first byte. Measured: 12 during and after a handshake, 26 while a record of
/// 16 KiB is incomplete.
pub(super) const SECURE: u32 = 26;

/// KiB that a concurrent request adds for the lifetime of its connection. Measured: 2.5.
const REQUEST: u32 = 3;

/// A connection pays for this many requests at a time; the first of them with its first byte.
pub(super) const STEP: u32 = 8;

/// KiB of these requests.
pub(super) const STEP_COSTS: u32 = STEP * REQUEST;

/// What a connection uses now.
pub(super) struct ConnectionCost {
    memory: OwnedSemaphorePermit,
    overhead: Overhead,
}

impl ConnectionCost {
    pub(super) fn new(memory: OwnedSemaphorePermit, overhead: Overhead) -> Self {
        let mut cost = Self { memory, overhead };
        cost.charge();
        cost
    }

    pub(super) fn add(&mut self, more: OwnedSemaphorePermit) {
        self.memory.merge(more);
        self.charge();
    }

    pub(super) fn kib(&self) -> usize {
        self.memory.num_permits()
    }

    fn charge(&mut self) {
        self.overhead.set(self.kib() * 1024);
    }

    /// Pays for more concurrent requests and returns how many; `None` if connections use all they may.
    pub(super) fn more_requests(&mut self) -> Option<usize> {
        let all = Arc::clone(self.memory.semaphore());
        self.add(all.try_acquire_many_owned(STEP_COSTS).ok()?);
        Some(STEP as usize)
    }
}
