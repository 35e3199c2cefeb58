//! The configuration file: what is taken, what is refused, and in which words.

use otelagent_agent::config::{self, Compression, Protocol};

const CONTRACT: &str = include_str!("contract.yaml");

#[test]
fn the_generated_file_is_taken_as_it_is() {
    let config = config::check(CONTRACT).unwrap();
    assert_eq!(config.receiver.listen.len(), 2);
    assert_eq!(config.pipelines.len(), 3);
    let exporter = &config.exporters[0];
    assert_eq!(exporter.protocol, Protocol::Grpc);
    assert_eq!(exporter.compression, Compression::Gzip);
    assert_eq!(
        exporter.endpoint.to_string(),
        "otel-collector.observability.svc:4317"
    );
}
