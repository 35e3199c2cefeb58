//! Closes a listening socket without failing a client: it stops new connections before the kernel answers
//! them, serves those that the kernel has answered, then closes.

use std::time::Duration;

use socket2::{SockFilter, SockRef};
use tokio::net::TcpListener;

/// How long to go on accepting. TCP handshakes finish within this, since clients are on the same node; a
/// client whose SYN is dropped in this time waits a second.
pub(super) const SETTLE: Duration = Duration::from_millis(5);

/// A packet filter that drops requests for new connections (SYN without ACK, byte 13 of the TCP header).
/// Socket filters see packets from the TCP header on.
///
/// Closing a listening socket resets the connections in its backlog even if another socket listens on the
/// same port (unless `net.ipv4.tcp_migrate_req` is set; the default is off). A client whose SYN is dropped
/// tries again after a second and reaches the socket that listens then.
const NO_NEW_CONNECTIONS: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),
    SockFilter::new(0x54, 0, 0, 0x12),
    SockFilter::new(0x15, 0, 1, 0x02),
    SockFilter::new(0x06, 0, 0, 0),
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

/// Stops new connections from reaching the socket, if the system can.
pub(super) fn refuse_new_connections(listener: &TcpListener) {
    let _ = SockRef::from(listener).attach_filter(&NO_NEW_CONNECTIONS);
}
