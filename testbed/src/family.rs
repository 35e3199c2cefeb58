//! The kind of addresses a bed has: one of the two, for everything in it.
//!
//! Knows how either kind is spelled where programs are told of it, and nothing of who has which address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Which addresses nodes, pods and Services have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    /// IPv4 only.
    #[default]
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    /// What a program listens on that takes everything.
    pub(crate) fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The destination of a default route.
    pub(crate) fn everything(self) -> String {
        format!("{}/0", self.unspecified())
    }

    /// The kernel parameter that makes a network namespace a router.
    pub(crate) fn forwarding(self) -> &'static str {
        match self {
            Self::V4 => "ipv4/ip_forward",
            Self::V6 => "ipv6/conf/all/forwarding",
        }
    }

    /// What `ip addr add` is told besides: an IPv6 address is used at once, without a second of asking
    /// whether somebody else has it.
    pub(crate) fn address_flags(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => " nodad",
        }
    }
}
