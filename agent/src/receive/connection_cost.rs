//! The memory that connections use beside the telemetry on them, in KiB.

use tokio::sync::Semaphore;

/// Connections together may use this fraction of the memory limit.
const FRACTION: usize = 4;

/// The minimum number of clients, however small the memory limit.
const FEWEST: usize = 16;

/// A silent connection: its task. Measured: 1.6.
pub(super) const SILENT: u32 = 2;

/// A connection after its first byte: the buffers of its protocol and [`FIRST`] requests. Measured: 23 for HTTP/1.1,
/// 26 for HTTP/2.
pub(super) const HTTP1: u32 = 26;
pub(super) const HTTP2: u32 = 32;

/// What TLS adds after the first byte. Measured: 12 during and after a handshake, 26 while a record of 16 KiB is
/// incomplete.
pub(super) const SECURE: u32 = 26;

/// What a concurrent request adds for the lifetime of its connection. Measured: 2.5.
const REQUEST: u32 = 3;

/// The requests that a connection pays for with its first byte: one, and the rest of one that was refused.
pub(super) const FIRST: usize = 2;

/// Beyond these a connection pays for so many concurrent requests at a time, when it has them.
pub(super) const STEP: u32 = 8;

/// The cost of these requests.
pub(super) const STEP_COSTS: u32 = STEP * REQUEST;

/// Concurrent requests that are not paid for are refused; a connection that has more of them is closed at once.
pub(super) const UNPAID: usize = 32;

/// What connections together may use of a memory limit in bytes.
pub(crate) fn connection_memory(limit: usize) -> usize {
    let memory = (limit / FRACTION / 1024).max(FEWEST * (HTTP2 + STEP_COSTS) as usize);
    memory.min(Semaphore::MAX_PERMITS)
}
