//! From a name to a connected socket: resolved anew for every connection, every address tried. Must
//! not know what is spoken on it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use crate::config::Address;

/// An address that does not answer may not use up the time of the others.
const PER_ADDRESS: Duration = Duration::from_secs(3);

/// A connection lives this long, spread by half: replicas that join behind a Service get their share.
const MAX_AGE: Duration = Duration::from_mins(10);

/// When a connection made now is to be replaced.
pub(super) fn expiry() -> tokio::time::Instant {
    tokio::time::Instant::now() + MAX_AGE.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// All addresses of a host. `localhost` needs no hosts file.
pub(crate) async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    match lookup_host((address.host.as_str(), address.port)).await {
        Ok(found) => Ok(found.collect()),
        Err(_) if address.host == "localhost" => {
            Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, address.port))])
        }
        Err(error) => Err(error),
    }
}

/// Connects to any address of the host, beginning with a random one.
pub(super) async fn connect(address: &Address) -> io::Result<TcpStream> {
    let mut addresses = resolve(address).await?;
    fastrand::shuffle(&mut addresses);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket_address in addresses {
        match timeout(PER_ADDRESS, TcpStream::connect(socket_address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "connecting took too long"),
        }
    }
    Err(last)
}
