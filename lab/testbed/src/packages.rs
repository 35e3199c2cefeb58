//! Programs that come with the system: installed from Debian packages when that is possible,
//! otherwise named together with the command that installs them.

use std::path::Path;

use crate::command::{command, find_program, run};
use crate::error::{Error, Result};
use crate::progress::Step;

/// A program and the package it is in.
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
}

const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// What every bed needs.
pub(crate) const BED: &[Need] = &[
    need("ip", "iproute2"),
    need("nsenter", "util-linux"),
    need("setsid", "util-linux"),
    need("flock", "util-linux"),
    need("find", "findutils"),
];

/// What nodes need besides.
pub(crate) const NODE: &[Need] = &[
    need("runc", "runc"),
    need("nft", "nftables"),
    need("mount", "mount"),
    need("unshare", "util-linux"),
];

/// What nodes need to forward by iptables.
pub(crate) const IPTABLES: &[Need] = &[
    need("iptables", "iptables"),
    need("iptables-restore", "iptables"),
];

/// What nodes need to enforce network policies.
pub(crate) const NETWORK_POLICIES: &[Need] = &[
    need("ipset", "ipset"),
    need("iptables", "iptables"),
    need("ip6tables", "iptables"),
];

/// What building the pause program needs.
pub(crate) const COMPILER: &[Need] = &[need("cc", "build-essential")];

/// Makes sure the programs are there.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs
        .iter()
        .filter(|need| find_program(need.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    if !may_install() {
        let programs: Vec<&str> = missing.iter().map(|need| need.program).collect();
        return Err(Error::Missing {
            what: programs.join(", "),
            remedy: format!("on Debian: sudo apt-get install {}", packages.join(" ")),
        });
    }
    install(&packages)
}

fn may_install() -> bool {
    rustix::process::geteuid().is_root()
        && Path::new("/etc/debian_version").exists()
        && find_program("apt-get").is_some()
}

fn install(packages: &[&str]) -> Result<()> {
    let step = Step::long(format!("install Debian packages {}", packages.join(" ")));
    let apt = |words: &[&str]| {
        run(command("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            // Another process may be installing: wait for it instead of failing.
            .args(["-qq", "-y", "-o", "DPkg::Lock::Timeout=300"])
            .args(words))
    };
    let mut words = vec!["install", "--no-install-recommends"];
    words.extend_from_slice(packages);
    if apt(&words).is_err() {
        apt(&["update"])?;
        apt(&words)?;
    }
    step.finish();
    Ok(())
}
