//! A bed whose owner is killed goes with it, containers and all.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use support::{eventually, leftovers, output};
use testbed::{Bed, skip_unless_possible};

/// Tells the copy of this test that it is to start a bed and wait for its death.
const ROLE: &str = "TESTBED_TEST_OWNER";
const NAME: &str = "death";

#[test]
fn a_killed_owner_leaves_nothing() {
    if !skip_unless_possible("a killed owner leaves nothing") {
        return;
    }
    if std::env::var_os(ROLE).is_some() {
        own_a_bed_until_killed();
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["a_killed_owner_leaves_nothing", "--exact", "--nocapture"])
        .env(ROLE, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let ip: Ipv4Addr = lines
        .map_while(Result::ok)
        .find_map(|line| {
            line.split_once("bed at ")
                .map(|(_, ip)| ip.parse().unwrap())
        })
        .expect("the owner says where its bed is");
    let living = leftovers(ip, NAME);
    assert!(
        living.iter().any(|line| line.contains("/pause")),
        "a container runs: {living:#?}"
    );

    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("everything is gone", 20, || match leftovers(ip, NAME) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join("\n")),
    });
}

/// Never returns.
fn own_a_bed_until_killed() {
    let bed = Bed::builder().name(NAME).nodes(1).start().unwrap();
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
