use super::*;
use std::os::unix::fs::PermissionsExt;

#[test]
fn ready_binary_is_used_only_in_the_pinned_version() {
    let dir = env::temp_dir().join(format!("testbed-assets-{}", std::process::id()));
    make_dir(&dir).unwrap();
    let version = KubernetesVersion::default();
    let found = |says: &str| {
        let path = dir.join("kube-scheduler");
        write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        ready_binary(Part::KubeScheduler, version, Some(&dir)) == Some(path)
    };
    assert!(found(&format!("Kubernetes {}", version.release())));
    assert!(!found("Kubernetes v1.30.0"));
    assert!(!found(&format!("Kubernetes {}0", version.release())));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn every_part_has_a_directory_that_names_its_version() {
    for version in KubernetesVersion::ALL {
        for part in CONTROL_PLANE.iter().chain(NODE).chain(&[
            Part::Collector,
            Part::CollectorWithoutZstd,
            Part::Kwok,
            Part::H2spec,
            Part::Registry,
            Part::ArgoRollouts,
            Part::KubeRouter,
            Part::Helm,
            Part::Helm3,
            Part::Kstatus,
            Part::Prometheus,
            Part::DashboardSchema,
        ]) {
            let name = part.source(*version).cache_name();
            assert!(name.contains("-v"), "{part:?}: {name}");
        }
    }
}
