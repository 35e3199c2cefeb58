//! Which changes of a configuration a running agent can take over.

use otelagent_agent::config::{self, changes, fingerprint};

use super::CONTRACT;

/// What becomes of one change to the contract: the sections that differ, or the problems.
fn change(from: &str, to: &str) -> Result<Vec<String>, Vec<String>> {
    assert!(CONTRACT.contains(from), "{from}");
    let old = config::check(CONTRACT).unwrap();
    let new = config::check(&CONTRACT.replace(from, to)).unwrap();
    match changes(&old, &new) {
        Ok(changes) => Ok(changes.paths),
        Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn limits_destinations_and_edits_change_while_the_agent_runs() {
    for (from, to, paths) in [
        (
            "limit_mib: 64",
            "limit_mib: 65",
            &["processors.memory_limiter"][..],
        ),
        (
            "collector.observability",
            "collector.other",
            &["exporters.otlp_grpc"],
        ),
        ("x-tenant: a", "x-tenant: b", &["exporters.otlp_grpc"]),
        (
            "compression: gzip",
            "compression: zstd",
            &["exporters.otlp_grpc"],
        ),
        (
            "queue_size: 67108864",
            "queue_size: 1000",
            &["exporters.otlp_grpc"],
        ),
        (
            "max_interval: 30s",
            "max_interval: 40s",
            &["exporters.otlp_grpc"],
        ),
        (
            "grpc: {",
            "grpc: {max_recv_msg_size_mib: 8, ",
            &["receivers.otlp"],
        ),
        (
            "http: {",
            "http: {traces_url_path: /t, idle_timeout: 1s, ",
            &["receivers.otlp"],
        ),
        (
            "value: production",
            "value: staging",
            &[
                "service.pipelines.traces.processors",
                "service.pipelines.metrics.processors",
                "service.pipelines.logs.processors",
            ],
        ),
        (
            "level: info",
            "level: debug",
            &["service.telemetry.logs.level"],
        ),
    ] {
        assert_eq!(change(from, to).unwrap(), paths, "{to}");
    }
}

#[test]
fn what_is_pushed_and_where_changes_while_the_agent_runs() {
    let to = "readers: [{periodic: {exporter: {otlp: {protocol: grpc, endpoint: 'https://c'}}}}, ";
    assert_eq!(
        change("readers: [", to).unwrap(),
        ["service.telemetry.metrics.readers"]
    );
    let to = "  telemetry:\n    resource: {k8s.node.name: a}\n";
    assert_eq!(
        change("  telemetry:\n", to).unwrap(),
        ["service.telemetry.resource"]
    );
}

#[test]
fn settings_bound_at_the_start_need_a_restart() {
    for (from, to, problem) in [
        (
            "0.0.0.0:4317",
            "0.0.0.0:4319",
            "receivers.otlp: what is listened on changes; that needs a restart",
        ),
        (
            "0.0.0.0:13133",
            "0.0.0.0:13134",
            "extensions.health_check: what is listened on changes; that needs a restart",
        ),
        (
            "port: 8888",
            "port: 8889",
            "service.telemetry.metrics: what is listened on changes; that needs a restart",
        ),
        (
            "encoding: json",
            "encoding: console",
            "service.telemetry.logs: encoding and output_paths need a restart",
        ),
        (
            "    logs: {receivers: [otlp], processors: [memory_limiter, resource/attributes, resource/host], exporters: [otlp_grpc]}\n",
            "",
            "service.pipelines: a pipeline is added or removed; that needs a restart",
        ),
    ] {
        assert_eq!(change(from, to).unwrap_err(), [problem]);
    }
    let renamed = CONTRACT.replace("otlp_grpc", "otlp_grpc/other");
    let old = config::check(CONTRACT).unwrap();
    let new = config::check(&renamed).unwrap();
    let problems = changes(&old, &new).unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert_eq!(
        problems[0].to_string(),
        "service.pipelines.traces.exporters: another exporter needs a restart"
    );
}

#[test]
fn file_with_equal_settings_changes_nothing() {
    assert_eq!(
        change("receivers:\n", "# a comment\nreceivers:\n"),
        Ok(vec![])
    );
    assert_ne!(fingerprint(CONTRACT), fingerprint(&CONTRACT[1..]));
    // Known answer of FNV-1a, 64 bits.
    assert_eq!(fingerprint("foobar"), 0x8594_4171_f739_67e8);
}
