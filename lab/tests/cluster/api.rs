//! The object as kubectl shows and changes it.

use std::time::Duration;

use demo::wait::{Seen, until};
use serde_json::Value;

use super::{PATIENCE, World, manifest, world};

#[test]
fn apply_reapply_diff_dry_run_edit_and_explain_behave() {
    let Some(world) = world("the object under kubectl") else {
        return;
    };
    let file = std::env::temp_dir().join(format!("otelagent-api-{}.yaml", std::process::id()));
    let path = file.to_str().unwrap();
    let yaml = manifest("otelagent-system", "known", "nobody", "mode: Sidecar");
    std::fs::write(&file, &yaml).unwrap();
    let kubectl = |args: &[&str]| world.kubectl.run(args);

    assert!(
        kubectl(&["apply", "--filename", path])
            .unwrap()
            .contains("created")
    );
    world.until_serving("known", "Sidecar");
    assert!(
        kubectl(&["apply", "--filename", path])
            .unwrap()
            .contains("unchanged"),
        "applying again changes nothing"
    );
    assert_eq!(
        kubectl(&["diff", "--filename", path]).unwrap(),
        "",
        "and differs in nothing"
    );
    std::fs::write(&file, yaml.replace("holdOld: 5s", "holdOld: 6s")).unwrap();
    kubectl(&["diff", "--filename", path]).expect_err("the exit code tells of a difference");
    assert!(
        kubectl(&["apply", "--dry-run=server", "--filename", path])
            .unwrap()
            .contains("configured (server dry run)")
    );
    let before: Value = world.get("known");
    assert_eq!(
        before["spec"]["switchover"]["holdOld"], "5s",
        "a dry run changes nothing"
    );

    // An editor that changes one word, as `kubectl edit` runs it.
    let edit = "KUBE_EDITOR=sed -i s/holdOld:.5s/holdOld:\\ 7s/";
    let (variable, editor) = edit.split_once('=').unwrap();
    let mut command = world.cluster.kubectl().unwrap();
    command.env(variable, editor).args([
        "edit",
        "otelagent",
        "known",
        "--namespace=otelagent-system",
    ]);
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(world.get("known")["spec"]["switchover"]["holdOld"], "7s");

    let mut command = world.cluster.kubectl().unwrap();
    let bogus = "{\"spec\":{\"bogus\":1}}";
    command.args([
        "patch",
        "oa",
        "known",
        "--namespace=otelagent-system",
        "--type=merge",
        "--patch",
        bogus,
    ]);
    let output = command.output().unwrap();
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("unknown field \"spec.bogus\""),
        "an unknown field warns"
    );

    let explained = kubectl(&["explain", "oa.spec.mode"]).unwrap();
    for word in [
        "NodeLocal",
        "Sidecar",
        "HostPort",
        "HostNetwork",
        "running pods keep the mode they were created with",
    ] {
        let flat = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(word), "{word} in: {explained}");
    }
    let table = kubectl(&["get", "otelagents", "--namespace=otelagent-system"]).unwrap();
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        header.join(" "),
        "NAME MODE SERVING READY DELIVERING PODS STALE MISSED AGE"
    );
    let wide = kubectl(&["get", "oa", "--namespace=otelagent-system", "-o", "wide"]).unwrap();
    assert!(
        wide.lines().next().unwrap().contains("ENDPOINT")
            && wide.contains("UPSTREAM")
            && wide.contains("REASON")
    );
    let everything = kubectl(&["get", "all", "--namespace=otelagent-system"]).unwrap();
    assert!(
        !everything.contains("otelagent.otelagent.dev"),
        "not in category all: {everything}"
    );
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn events_are_written_on_transitions_only() {
    let Some(world) = world("events") else { return };
    world.agent("events", "nobody", "mode: NodeLocal");
    world.until_serving("events", "NodeLocal");
    until("the event of what serves", PATIENCE, || {
        let reasons = reasons(&world, "events");
        let reported = reasons.contains(&"Serving".to_owned());
        Ok(Seen::check(reported, format!("{reasons:?}")))
    })
    .unwrap();
    // Time itself is tested: no event announces that no further event comes.
    std::thread::sleep(Duration::from_secs(5));
    let reasons = reasons(&world, "events");
    assert!(
        reasons.len() < 10,
        "a settled object is not talked about: {reasons:?}"
    );
}

/// The reasons of the events of one `OtelAgent`.
fn reasons(world: &World, name: &str) -> Vec<String> {
    let of = |kind: &str, field: &str| -> demo::Result<Value> {
        let selector = format!("--field-selector={field}.name={name}");
        world
            .kubectl
            .get(&[kind, "--namespace=otelagent-system", &selector])
    };
    let events = of("events.v1.events.k8s.io", "regarding")
        .or_else(|_| of("events", "involvedObject"))
        .unwrap();
    let events = events["items"].as_array().into_iter().flatten();
    let reasons = events.filter_map(|event| event["reason"].as_str().map(str::to_owned));
    reasons.collect()
}
