//! A bed whose owner is killed goes with it, containers and all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};

use support::{eventually, leftovers, output};
use testbed::{Bed, skip_unless_possible};

/// Names the bed that a copy of this test is to start and hold until it is killed.
const ROLE: &str = "TESTBED_TEST_OWNER";

#[test]
fn killed_owner_leaves_nothing() {
    if !skip_unless_possible("a killed owner leaves nothing") {
        return;
    }
    let (mut owner, ip) = start_owner("death");
    let living = leftovers(ip, "death");
    assert!(
        living.iter().any(|line| line.contains("/pause")),
        "a container runs: {living:#?}"
    );

    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("everything is gone", 20, || match leftovers(ip, "death") {
        left if left.is_empty() => Ok(()),
        left => Err(left.join("\n")),
    });
}

#[test]
fn leftover_bed_is_removed_by_name() {
    if !skip_unless_possible("a leftover bed is removed by name") {
        return;
    }
    // A bed that another test starts cleans up, too, and may come first.
    let is_removed = (0..10).any(|_| a_leftover_bed_is_removed());
    assert!(is_removed, "others removed each of ten beds first");
}

/// False if another process removed the bed before its name was given.
fn a_leftover_bed_is_removed() -> bool {
    let (mut owner, ip) = start_owner("death-of-all");
    for child in children(owner.id()) {
        output(Command::new("kill").args(["-9", &child])).unwrap();
    }
    owner.kill().unwrap();
    owner.wait().unwrap();
    let name = "death-of-all".parse().unwrap();
    let beds = testbed::list().unwrap();
    let Some(abandoned) = beds.into_iter().find(|bed| bed.name == name) else {
        return false;
    };
    assert!(!abandoned.owned);
    let living = leftovers(ip, "death-of-all");
    if !testbed::down(&name).unwrap() {
        return false;
    }
    assert!(!living.is_empty());
    assert_eq!(leftovers(ip, "death-of-all"), Vec::<String>::new());
    true
}

/// A copy of this program that owns a bed with a running pod.
fn start_owner(name: &str) -> (Child, IpAddr) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["own_a_bed_until_killed", "--exact", "--nocapture"])
        .env(ROLE, name)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let ip = lines
        .map_while(Result::ok)
        .find_map(|line| {
            line.split_once("bed at ")
                .map(|(_, ip)| ip.parse().unwrap())
        })
        .expect("the owner says where its bed is");
    (owner, ip)
}

/// Does nothing unless it is the copy.
#[test]
fn own_a_bed_until_killed() {
    let Ok(name) = std::env::var(ROLE) else {
        return;
    };
    let bed = Bed::builder().name(name).nodes(1).start().unwrap();
    // The sandbox image is on every node, so a pod of it needs no other.
    let run = [
        "run",
        "p",
        "--image=bed.local/pause:1",
        "--image-pull-policy=Never",
    ];
    output(bed.kubectl().args(run)).unwrap();
    output(
        bed.kubectl()
            .args(["wait", "--for=condition=Ready", "pod/p", "--timeout=60s"]),
    )
    .unwrap();
    println!("bed at {}", bed.host_ip());
    loop {
        std::thread::park();
    }
}

/// The processes a process started: the fourth field of their stat, counted behind the name.
fn children(of: u32) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let is_child = |path: std::path::PathBuf| {
        let stat = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, fields)| fields.split_whitespace().nth(1));
        parent == Some(&of.to_string())
    };
    entries
        .filter(|entry| is_child(entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
