//! Which kinds of addresses a bed has.
//!
//! Knows how each kind is spelled where programs get it, and nothing of who has which address.

use std::iter;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Which addresses nodes, pods and Services have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Addresses {
    /// IPv4 ones only.
    #[default]
    Ipv4,
    /// IPv6 ones only.
    Ipv6,
    /// One of each, the IPv6 one first, so that a Service which does not ask has an IPv6 one.
    Both,
}

/// One kind of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Addresses {
    /// The families, the one that comes first first.
    pub(crate) fn families(self) -> impl Iterator<Item = Family> {
        let second = (self == Self::Both).then_some(Family::V4);
        iter::once(self.first()).chain(second)
    }

    /// The family for programs that accept only one.
    pub(crate) fn first(self) -> Family {
        match self {
            Self::Ipv4 => Family::V4,
            Self::Ipv6 | Self::Both => Family::V6,
        }
    }

    /// What a program listens on that takes everything.
    pub(crate) fn unspecified(self) -> IpAddr {
        self.first().unspecified()
    }
}

impl Family {
    fn unspecified(self) -> IpAddr {
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

    /// The program that changes its packet filter.
    pub(crate) fn iptables(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    /// The length of a range in bits, which differs by family.
    pub(crate) fn bits(self, v4: u8, v6: u8) -> u8 {
        match self {
            Self::V4 => v4,
            Self::V6 => v6,
        }
    }

    /// Further arguments of `ip addr add`: an IPv6 address is used at once, without a second of asking
    /// whether another host has it.
    pub(crate) fn address_flags(self) -> &'static str {
        match self {
            Self::V4 => "",
            Self::V6 => " nodad",
        }
    }
}
