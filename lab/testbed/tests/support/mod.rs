//! What the tests of the bed share: waiting, running commands, and looking for leftovers.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::{Duration, Instant};

/// Waits until the check returns nothing to complain about.
pub(crate) fn eventually(what: &str, limit: u64, mut check: impl FnMut() -> Result<(), String>) {
    let begun = Instant::now();
    loop {
        match check() {
            Ok(()) => return,
            Err(why) if begun.elapsed() > Duration::from_secs(limit) => {
                panic!("{what}: not within {limit} s: {why}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// What a command printed, if it ended well.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }
}

/// Everything on this machine that belongs to the bed with this address: control groups, processes,
/// network namespaces, links, routes and mounts.
pub(crate) fn leftovers(host_ip: IpAddr, name: &str) -> Vec<String> {
    let second = second(host_ip);
    let (family, range) = match host_ip {
        IpAddr::V4(_) => ("-4", format!("10.{second}.")),
        IpAddr::V6(_) => ("-6", format!("fd0a:{second:x}:")),
    };
    let slot = second - 64;
    let (group, netns) = (format!("otelagent-bed-{slot}"), format!("oab{slot}-"));
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let dir = entry.path().join(&group);
        if dir.exists() {
            found.push(dir.display().to_string());
        }
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let part = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let text = |name: &str| String::from_utf8_lossy(&part(name)).replace('\0', " ");
        // A zombie holds nothing; it only waits for init to take note of it.
        let zombie = text("stat").contains(") Z ");
        let command = text("cmdline");
        let of_bed = text("cgroup").contains(&format!("/{group}/"))
            || command.contains(&format!("beds/{name}/"));
        if of_bed && !zombie {
            found.push(format!(
                "process {}: {command}",
                entry.file_name().to_string_lossy()
            ));
        }
    }
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&netns) {
            found.push(format!(
                "network namespace {}",
                entry.file_name().to_string_lossy()
            ));
        }
    }
    let mut lines_with = |what: &str, text: &str, needle: &str| {
        found.extend(
            text.lines()
                .filter(|line| line.contains(needle))
                .map(|line| format!("{what} {line}")),
        );
    };
    let routes =
        output(Command::new("ip").args([family, "route", "show", "table", "all"])).unwrap();
    lines_with("route", &routes, &range);
    lines_with(
        "link",
        &output(Command::new("ip").args(["-o", "link"])).unwrap(),
        &netns,
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    lines_with("mount", &mounts, &format!("beds/{name}/"));
    lines_with("mount", &mounts, &format!("/{netns}"));
    if std::path::Path::new("/var/lib/otelagent-testbed/beds")
        .join(name)
        .exists()
    {
        found.push("its directory".to_owned());
    }
    if is_taken_from(host_ip, name) {
        // Another bed has the slot by now, and what was found is its own.
        found.clear();
    }
    found
}

/// What the addresses of a bed's slot have in common, of whichever family they are.
fn second(host_ip: IpAddr) -> u16 {
    match host_ip {
        IpAddr::V4(ip) => ip.octets()[1].into(),
        IpAddr::V6(ip) => ip.segments()[1],
    }
}

/// Whether a bed of another name has the slot of these addresses.
fn is_taken_from(host_ip: IpAddr, name: &str) -> bool {
    let others = testbed::list().unwrap().into_iter();
    let mut others = others.map(|bed| bed.name.to_string());
    let has_slot = |bed: testbed::Bed| second(bed.host_ip()) == second(host_ip);
    others.any(|other| other != name && testbed::Bed::attach(&other).is_ok_and(has_slot))
}
