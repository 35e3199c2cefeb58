//! Every pinned Kubernetes release, as a control plane.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use serde_json::Value;
use support::output;
use testbed::{Bed, KubernetesVersion, skip_unless_possible};

// One test for each release, so that each can be selected by its name.
#[test]
fn control_plane_reports_its_release_and_accepts_pods_on_1_33() {
    control_plane_of(KubernetesVersion::V1_33);
}

#[test]
fn control_plane_reports_its_release_and_accepts_pods_on_1_35() {
    control_plane_of(KubernetesVersion::V1_35);
}

#[test]
fn control_plane_reports_its_release_and_accepts_pods_on_1_36() {
    control_plane_of(KubernetesVersion::V1_36);
}

#[test]
fn control_plane_reports_its_release_and_accepts_pods_on_1_37() {
    control_plane_of(KubernetesVersion::V1_37);
}

fn control_plane_of(release: KubernetesVersion) {
    if !skip_unless_possible(&format!("a control plane of {release}")) {
        return;
    }
    let bed = Bed::builder()
        .name(format!("release-{}", release.minor().replace('.', "-")))
        .kubernetes(release)
        .start()
        .unwrap();
    let version = output(bed.kubectl().args(["get", "--raw", "/version"])).unwrap();
    let version: Value = serde_json::from_str(&version).unwrap();
    assert_eq!(version["gitVersion"], release.release(), "{version}");
    let number = |key: &str| version[key].as_str().unwrap().to_owned();
    assert_eq!(
        format!("{}.{}", number("major"), number("minor")),
        release.minor()
    );

    // Controllers do their part at this release as at any other: pods are made of Deployments, and
    // namespaces end.
    output(
        bed.kubectl()
            .args(["create", "deployment", "some", "--image=x"]),
    )
    .unwrap();
    output(bed.kubectl().args([
        "wait",
        "--for=create",
        "--timeout=120s",
        "pod",
        "--selector=app=some",
    ]))
    .unwrap();
    output(bed.kubectl().args(["create", "namespace", "short"])).unwrap();
    output(
        bed.kubectl()
            .args(["delete", "namespace", "short", "--timeout=120s"]),
    )
    .unwrap();
    bed.stop().unwrap();
}

#[test]
fn nodes_of_an_older_release_are_refused_with_what_would_work() {
    for release in KubernetesVersion::ALL
        .iter()
        .filter(|release| !release.has_nodes())
    {
        let bed = || Bed::builder().kubernetes(*release);
        for bed in [bed().nodes(1), bed().simulated_nodes(1)] {
            let error = bed.start().err().unwrap();
            assert_eq!(error.reason(), "Invalid");
            let text = error.to_string();
            for word in [release.minor(), "simulated", "1.37"] {
                assert!(text.contains(word), "{word} in: {text}");
            }
        }
    }
    assert!(KubernetesVersion::default().has_nodes());
}
