//! Which agents may share a port, and whose a port is.
//!
//! With `SO_REUSEPORT` any process of the same user may listen on a port that is in use, and the kernel deals
//! the connections out between them. So an agent with a port owner gives each of its sockets a claim that
//! every process of the network namespace can read: an abstract Unix socket named after the port, the owner
//! and the socket. A listening socket without a claim of the same owner is a stranger's: the agent does not
//! listen beside it, and leaves no connections to it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::linux::fs::MetadataExt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};

/// What the names of all claims begin with.
const PREFIX: &str = "otelagent";

/// Longest name of an owner: that of a Kubernetes label. The kernel takes 107 bytes for the whole claim.
const MAX_OWNER: usize = 63;

/// Whose agents may listen on the same ports: those with the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortOwner(String);

impl PortOwner {
    /// `None` unless this is a name of letters, digits, `-`, `_` and `.`
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_valid = (1..=MAX_OWNER).contains(&text.len()) && text.bytes().all(is_name);
        is_valid.then(|| Self(text.to_owned()))
    }
}

/// Why an agent must not listen on a port.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    #[error(
        "the agents of `{theirs}` listen there, and this agent is of `{own}`; give one of the two other ports"
    )]
    OtherOwner { theirs: String, own: String },
    #[error(
        "a process of user {user} listens there that is no agent of `{own}`; end it, or use another port"
    )]
    OtherProcess { user: u32, own: String },
    #[error("cannot claim the port for the agents of `{0}`")]
    Claim(String, #[source] io::Error),
}

/// The claim of one socket, for as long as this value lives.
#[derive(Debug)]
pub(super) struct PortClaim {
    owner: PortOwner,
    /// The claimed socket, as the kernel's tables name it.
    inode: u64,
    _named: UnixDatagram,
}

impl PortClaim {
    /// Claims the port of a bound socket that does not listen yet. The claim is made before the look at others,
    /// so that of two agents that start at once at least one sees the other.
    pub(super) fn new(
        owner: &PortOwner,
        address: SocketAddr,
        socket: &impl AsRawFd,
    ) -> Result<Self, ClaimError> {
        let port = address.port();
        let claimed = || {
            let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
            let inode = std::fs::metadata(path)?.st_ino();
            let name = format!("{PREFIX}/{port}/{}/{inode}", owner.0);
            let name = UnixAddress::from_abstract_name(name)?;
            Ok((inode, UnixDatagram::bind_addr(&name)?))
        };
        let (inode, named) =
            claimed().map_err(|source| ClaimError::Claim(owner.0.clone(), source))?;
        match stranger(owner, address, inode, &listening(), &claims()) {
            Some(found) => Err(found),
            None => Ok(Self {
                owner: owner.clone(),
                inode,
                _named: named,
            }),
        }
    }

    /// Whether another agent of the same owner listens on exactly this address.
    pub(super) fn has_successor(&self, address: SocketAddr) -> bool {
        let claims = claims();
        let is_ours = |inode: u64| {
            let mut ours = claims.iter();
            ours.any(|claim| claim.inode == inode && claim.owner == self.owner.0)
        };
        listening().into_iter().any(|other| {
            other.address == address && other.inode != self.inode && is_ours(other.inode)
        })
    }
}

/// Who else has a port that could not be bound, if that is known.
pub(super) fn holder(owner: &PortOwner, address: SocketAddr) -> Option<ClaimError> {
    stranger(owner, address, 0, &listening(), &claims())
}

/// A claim as others see it.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    port: u16,
    owner: String,
    inode: u64,
}

/// A listening TCP socket.
#[derive(Debug, PartialEq, Eq)]
struct Listening {
    address: SocketAddr,
    user: u32,
    inode: u64,
}

/// Another process or owner whose socket listens on this address, or is about to.
fn stranger(
    owner: &PortOwner,
    address: SocketAddr,
    own: u64,
    listening: &[Listening],
    claims: &[Claim],
) -> Option<ClaimError> {
    let own_name = || owner.0.clone();
    let claim_of = |inode| claims.iter().find(|claim| claim.inode == inode);
    let mut meeting = listening
        .iter()
        .filter(|other| other.inode != own && meet(other.address, address));
    let listens = meeting.find_map(|other| match claim_of(other.inode) {
        Some(claim) if claim.owner == owner.0 => None,
        Some(claim) => Some(ClaimError::OtherOwner {
            theirs: claim.owner.clone(),
            own: own_name(),
        }),
        None => Some(ClaimError::OtherProcess {
            user: other.user,
            own: own_name(),
        }),
    });
    // Of a claim whose socket does not listen yet, only the port is known.
    let is_starting = |claim: &&Claim| {
        claim.port == address.port()
            && claim.owner != owner.0
            && !listening.iter().any(|other| other.inode == claim.inode)
    };
    listens.or_else(|| {
        let starting = claims.iter().find(is_starting)?;
        Some(ClaimError::OtherOwner {
            theirs: starting.owner.clone(),
            own: own_name(),
        })
    })
}

/// Whether sockets of two addresses can get the same connections.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let covers = |any: IpAddr, ip: IpAddr| match any {
        IpAddr::V4(any) => any.is_unspecified() && ip.is_ipv4(),
        // It may take IPv4 too.
        IpAddr::V6(any) => any.is_unspecified(),
    };
    one.port() == other.port() && (ip == other_ip || covers(ip, other_ip) || covers(other_ip, ip))
}

/// The listening TCP sockets of the network namespace.
fn listening() -> Vec<Listening> {
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let lines = tables.into_iter().flat_map(lines);
    lines.filter_map(|line| listening_of(&line)).collect()
}

/// The claims of all agents in the network namespace.
fn claims() -> Vec<Claim> {
    let lines = lines("/proc/self/net/unix");
    lines.filter_map(|line| claim_of(&line)).collect()
}

/// Line by line, since a node may have many connections.
fn lines(table: &str) -> impl Iterator<Item = String> {
    let file = File::open(table).ok().map(BufReader::new);
    let lines = file.into_iter().flat_map(BufRead::lines);
    lines.map_while(Result::ok)
}

/// Reads a line of the kernel's table of TCP sockets: number, address, peer, state, queues, timer, retransmits,
/// user, timeout, inode.
fn listening_of(line: &str) -> Option<Listening> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let address = fields.next()?;
    if fields.nth(1)? != "0A" {
        return None;
    }
    Some(Listening {
        address: address_of(address)?,
        user: fields.nth(3)?.parse().ok()?,
        inode: fields.nth(1)?.parse().ok()?,
    })
}

/// Reads an address of the kernel's tables: words in native byte order.
fn address_of(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = words.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(word, 16).ok()?.to_ne_bytes())
    };
    let ip = match words.len() {
        8 => IpAddr::from(word(0)?),
        32 => {
            let mut octets = [0; 16];
            for (at, part) in octets.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(octets).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Reads a line of the kernel's table of Unix sockets, whose last field is the name.
fn claim_of(line: &str) -> Option<Claim> {
    let name = line.split_ascii_whitespace().nth(7)?;
    let rest = name.strip_prefix('@')?.strip_prefix(PREFIX)?;
    let mut parts = rest.strip_prefix('/')?.split('/');
    let claim = Claim {
        port: parts.next()?.parse().ok()?,
        owner: parts.next()?.to_owned(),
        inode: parts.next()?.parse().ok()?,
    };
    parts.next().is_none().then_some(claim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> PortOwner {
        PortOwner::parse("x.node").unwrap()
    }

    fn socket(address: &str, inode: u64) -> Listening {
        Listening {
            address: address.parse().unwrap(),
            user: 7,
            inode,
        }
    }

    fn claim(owner: &str, inode: u64) -> Claim {
        Claim {
            port: 4317,
            owner: owner.into(),
            inode,
        }
    }

    /// What keeps the socket 1 from `10.0.0.1:4317`.
    fn found(listening: &[Listening], claims: &[Claim]) -> Option<String> {
        let address = "10.0.0.1:4317".parse().unwrap();
        stranger(&owner(), address, 1, listening, claims).map(|error| error.to_string())
    }

    #[test]
    fn port_is_shared_with_agents_of_the_same_owner_only() {
        let there = [socket("10.0.0.1:4317", 2)];
        assert_eq!(found(&there, &[claim("x.node", 2)]), None);
        let theirs = found(&there, &[claim("x.other", 2)]).unwrap();
        assert!(theirs.contains("agents of `x.other` listen"), "{theirs}");
        let unknown = found(&there, &[]).unwrap();
        assert!(unknown.contains("process of user 7"), "{unknown}");
        let starting = found(&[], &[claim("x.other", 2)]).unwrap();
        assert!(starting.contains("`x.other`"), "{starting}");
        assert_eq!(found(&[], &[claim("x.node", 2)]), None);
    }

    #[test]
    fn sockets_of_other_addresses_do_not_matter() {
        for address in ["10.0.0.2:4317", "10.0.0.1:4318", "[fd00::1]:4317"] {
            assert_eq!(found(&[socket(address, 2)], &[claim("x.other", 2)]), None);
        }
        for address in ["0.0.0.0:4317", "[::]:4317", "[::ffff:10.0.0.1]:4317"] {
            assert!(found(&[socket(address, 2)], &[]).is_some(), "{address}");
        }
    }

    #[test]
    fn kernel_tables_are_read() {
        let words = |octets: &[u8]| -> String {
            let words = octets.chunks(4).map(|word| {
                let word = u32::from_ne_bytes(word.try_into().unwrap());
                format!("{word:08X}")
            });
            words.collect()
        };
        let v4 = words(&[10, 0, 0, 1]);
        let v6 = words(&"fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        let line = |address: &str, state: &str| {
            format!(
                "  12: {address}:10DD 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 65532 0 4711 1 ..."
            )
        };
        let expected = |address: &str| Listening {
            address: address.parse().unwrap(),
            user: 65532,
            inode: 4711,
        };
        assert_eq!(
            listening_of(&line(&v4, "0A")),
            Some(expected("10.0.0.1:4317"))
        );
        assert_eq!(
            listening_of(&line(&v6, "0A")),
            Some(expected("[fd00::1]:4317"))
        );
        assert_eq!(listening_of(&line(&v4, "01")), None);
        let line =
            "0000000000000000: 00000002 00000000 00000000 0002 01 9 @otelagent/4317/x.node/3";
        assert_eq!(claim_of(line), Some(claim("x.node", 3)));
        for line in [
            "",
            "a b c d e f g",
            "a b c d e f g @other/1/a/2",
            &format!("{line}/4"),
        ] {
            assert_eq!(claim_of(line), None);
        }
    }

    #[test]
    fn owner_is_a_name() {
        assert!(PortOwner::parse(&"a".repeat(63)).is_some());
        for text in ["", "a/b", "a b", "a@b", &"a".repeat(64)] {
            assert_eq!(PortOwner::parse(text), None);
        }
    }
}
