//! The agent's configuration of every shape, as golden files of their own: the tests of the agent start
//! the agent and an unmodified collector with exactly these.

use std::path::{Path, PathBuf};

use otelagent_core::build::{ValidAgent, validate};

use super::{agent, configuration, desired, environment};

/// Those with an image of their own are the same in all but the image.
fn inputs() -> Vec<(String, ValidAgent)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pure");
    let files = |folder: &str| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(directory.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let mut inputs = Vec::new();
    for file in files("fixtures").into_iter().chain(files("configurations")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let valid = validate(&agent(&text), &environment()).expect("a valid OtelAgent");
        if valid.own_image().is_none() {
            let name = file.file_stem().unwrap().to_string_lossy().into_owned();
            if name == "host-network" {
                let second = valid.moved_ports();
                let valid = valid.clone().with_second_ports(second);
                inputs.push(("second-ports".to_owned(), valid));
            }
            inputs.push((name, valid));
        }
    }
    inputs
}

#[test]
fn configuration_of_each_shape_is_the_golden_one() {
    for (name, agent) in inputs() {
        insta::with_settings!({snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(format!("configuration-{name}"), configuration(&desired(&agent)));
        });
    }
}

#[test]
fn bundled_agent_accepts_the_configuration_of_each_shape() {
    for (name, agent) in inputs() {
        let taken = otelagent_agent::config::check(&configuration(&desired(&agent)));
        assert_eq!(taken.err(), None, "{name}");
    }
}

/// What `grpc:` alone on its line gives, at every level and in lists.
#[test]
fn null_in_spec_config_changes_nothing() {
    let rendered = |config: &str| {
        let spec = format!("mode: NodeLocal, hostMetadata: true, {config}");
        let agent = super::agent_with("otelagent-system", &spec);
        let valid = validate(&agent, &environment()).expect("a valid OtelAgent");
        configuration(&desired(&valid))
    };
    let generated = rendered("");
    for config in [
        "receivers: {otlp: {protocols: {grpc: null, http: null}}}",
        "receivers: {otlp: {protocols: {grpc: {endpoint: null}}}}",
        "receivers: {otlp: null}",
        "receivers: null, processors: null, exporters: null, extensions: null, service: null",
        "processors: {memory_limiter: null, resource/host: {attributes: null}}",
        "exporters: {otlp_grpc: {sending_queue: null, endpoint: null}}",
        "service: {extensions: null, telemetry: null, pipelines: {traces: null, logs: {exporters: null}}}",
        "service: {pipelines: {traces: {receivers: [otlp, null]}}}",
    ] {
        assert_eq!(
            rendered(&format!("config: {{{config}}}")),
            generated,
            "{config}"
        );
    }
}
