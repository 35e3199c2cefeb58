//! Beds without nodes: several at once, options, restarts, and their end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use support::{eventually, leftovers, output};
use testbed::{Bed, Cluster, Component, skip_unless_possible};

#[test]
fn beds_live_side_by_side_and_leave_nothing() {
    if !skip_unless_possible("beds live side by side") {
        return;
    }
    let start = |name: &str| Bed::builder().name(name).start().unwrap();
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| start("side-1"));
        let audited = Bed::builder().name("side-2").audit(true);
        let second = audited
            .apiserver_arg("--runtime-config=batch/v1=false")
            .start()
            .unwrap();
        (first.join().unwrap(), second)
    });
    assert_ne!(first.host_ip(), second.host_ip());

    let create = |bed: &Bed| output(bed.kubectl().args(["create", "namespace", "mine"]));
    create(&first).unwrap();
    create(&second).unwrap();

    // Options reach the server, and requests are noted.
    let resources = |bed: &Bed| output(bed.kubectl().args(["api-versions"])).unwrap();
    assert!(resources(&first).contains("batch/v1"));
    assert!(!resources(&second).contains("batch/v1"));
    assert!(first.audit_log().is_none());
    eventually("the audit log shows the request", 60, || {
        let log =
            fs::read_to_string(second.audit_log().unwrap()).map_err(|error| error.to_string())?;
        let seen = log
            .lines()
            .any(|line| line.contains(r#""verb":"create""#) && line.contains("bed-admin"));
        if seen {
            Ok(())
        } else {
            Err(format!("{} bytes without it", log.len()))
        }
    });

    // A name is used once.
    let again = Bed::builder().name("side-1").start().err().unwrap();
    assert_eq!(again.reason(), "NameInUse");

    restart(&first);

    // The end of a bed: by a panic, by dropping, and neither touches the other.
    let (first_ip, second_ip) = (first.host_ip(), second.host_ip());
    let panicked = catch_unwind(AssertUnwindSafe(move || {
        assert!(first.is_running(Component::Scheduler));
        let _first = first;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(leftovers(first_ip, "side-1"), Vec::<String>::new());
    output(second.kubectl().args(["get", "namespace", "mine"])).unwrap();
    assert!(
        !leftovers(second_ip, "side-2").is_empty(),
        "the search finds a living bed"
    );
    let logs = second.log_dir();
    second.stop().unwrap();
    assert_eq!(leftovers(second_ip, "side-2"), Vec::<String>::new());
    assert!(logs.join("kube-apiserver.log").exists(), "logs stay");
}

/// The API server comes back with its data.
fn restart(bed: &Bed) {
    bed.stop_apiserver().unwrap();
    assert!(!bed.is_running(Component::ApiServer));
    assert!(
        output(
            bed.kubectl()
                .args(["get", "namespaces", "--request-timeout=2s"])
        )
        .is_err()
    );
    bed.start_apiserver().unwrap();
    output(bed.kubectl().args(["get", "namespace", "mine"])).unwrap();
}

#[test]
fn failing_component_is_shown_with_its_log() {
    if !skip_unless_possible("a failing component is shown") {
        return;
    }
    let builder = Bed::builder()
        .name("side-broken")
        .apiserver_arg("--no-such-flag");
    let error = builder.start().err().unwrap();
    assert_eq!(error.reason(), "NotReady");
    let text = error.to_string();
    assert!(
        text.contains("kube-apiserver") && text.contains("unknown flag: --no-such-flag"),
        "{text}"
    );
    assert_eq!(
        Bed::attach("side-broken").err().unwrap().reason(),
        "NoSuchBed"
    );
}

#[test]
fn bed_can_stay_and_be_used_from_a_shell() {
    if !skip_unless_possible("a bed can stay") {
        return;
    }
    let mut bed = Bed::builder().name("side-kept").start().unwrap();
    let (ip, kubeconfig) = (bed.host_ip(), bed.kubeconfig().to_owned());
    bed.keep().unwrap();
    drop(bed);

    let found = Bed::attach("side-kept").unwrap();
    output(found.kubectl().args(["get", "namespaces"])).unwrap();
    drop(found);
    let shell = |words: &str| {
        output(Command::new(env!("CARGO_BIN_EXE_testbed")).args(words.split(' '))).unwrap()
    };
    assert!(
        shell("status")
            .lines()
            .any(|line| line.starts_with("side-kept\t") && line.ends_with("\tup"))
    );
    assert_eq!(
        shell("kubeconfig --name side-kept"),
        kubeconfig.to_string_lossy()
    );
    assert!(shell("kubectl --name side-kept -- get namespaces").contains("kube-system"));

    // A copy of this test that is given the cluster uses it, and leaves it alone.
    let copy = Command::new(std::env::current_exe().unwrap())
        .args(["use_the_named_cluster", "--exact", "--nocapture"])
        .env("KUBECONFIG", &kubeconfig)
        .env(ROLE, "1")
        .status();
    assert!(copy.unwrap().success());

    shell("down --name side-kept");
    assert_eq!(leftovers(ip, "side-kept"), Vec::<String>::new());
    assert!(
        shell("logs --name side-kept kube-apiserver").contains("v1."),
        "logs stay"
    );
    assert!(shell("down --name side-kept").contains("there is no bed named side-kept"));
}

/// Tells the copy of this test that it is one.
const ROLE: &str = "TESTBED_TEST_EXTERNAL";

/// Does nothing unless it is the copy.
#[test]
fn use_the_named_cluster() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let cluster = Cluster::from_env_or_bed(Bed::builder()).unwrap();
    assert!(matches!(cluster, Cluster::External { .. }));
    output(cluster.kubectl().unwrap().args(["get", "namespaces"])).unwrap();
    assert_eq!(cluster.node_names().unwrap(), Vec::<String>::new());
    assert_eq!(
        cluster.bed("stopping a node").err().unwrap().reason(),
        "ExternalCluster"
    );
}

#[test]
fn external_cluster_is_never_touched() {
    let cluster = Cluster::External {
        kubeconfig: "/nowhere".into(),
    };
    let error = cluster.load_image("/nowhere".as_ref()).unwrap_err();
    assert_eq!(error.reason(), "ExternalCluster");
    assert!(
        error
            .to_string()
            .contains("loading an image is not possible on an external cluster")
    );
}
