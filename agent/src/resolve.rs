//! Name resolution.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::net::lookup_host;

use crate::config::Address;

/// All addresses of a host. `localhost` works without a hosts file.
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
