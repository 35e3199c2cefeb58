//! Name resolution as the system does it: hosts file, search domains, nsswitch. It can take as long as the resolver
//! likes, so each lookup has a thread, and all who want a name share one lookup.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::Address;
use crate::lock::lock;
use crate::thread;

/// How long an answer is kept, so that attempts at the same time do not each ask.
const KEEP: Duration = Duration::from_secs(1);

/// What a lookup has found, or why it has found nothing.
type LookupResult = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

/// When the answer came, and the answer; `None` while the lookup lasts.
type Lookup = Option<(Instant, LookupResult)>;

/// The lookups of the process: a resolver that does not answer is asked once for each name.
static LOOKUPS: LazyLock<Mutex<HashMap<Address, watch::Receiver<Lookup>>>> =
    LazyLock::new(Mutex::default);

/// All addresses of a host. `localhost` works without a hosts file.
pub(crate) async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = address.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, address.port)]);
    }
    let mut lookup = lookup(address)?;
    let answer = lookup.wait_for(Option::is_some).await;
    let found = match answer.as_deref() {
        Ok(Some((_, found))) => found.clone(),
        _ => Err((io::ErrorKind::Other, "the lookup has ended".to_owned())),
    };
    match found {
        Err(_) if address.host == "localhost" => {
            Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, address.port))])
        }
        found => found.map_err(|(kind, text)| io::Error::new(kind, text)),
    }
}

/// The lookup under way, the one that has just ended, or a new one.
fn lookup(address: &Address) -> io::Result<watch::Receiver<Lookup>> {
    let mut lookups = lock(&LOOKUPS);
    lookups.retain(|_, lookup| match &*lookup.borrow() {
        Some((at, _)) => at.elapsed() < KEEP,
        // Without a sender there will be no answer.
        None => lookup.has_changed().is_ok(),
    });
    if let Some(lookup) = lookups.get(address) {
        return Ok(lookup.clone());
    }
    let (sender, lookup) = watch::channel(None);
    let target = (address.host.clone(), address.port);
    thread::start("resolve", move || {
        let found = target.to_socket_addrs();
        let found = found.map(Iterator::collect);
        let found = found.map_err(|error| (error.kind(), error.to_string()));
        // All callers may have given up by now.
        let _ = sender.send_replace(Some((Instant::now(), found)));
    })?;
    lookups.insert(address.clone(), lookup.clone());
    Ok(lookup)
}
