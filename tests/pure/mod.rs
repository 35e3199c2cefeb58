//! The pure core: golden files, properties, and proof that it is pure.

mod configuration;
mod crd;
mod golden;
mod pods;
mod properties;
mod purity;
mod releases;
mod validation;

use std::collections::BTreeSet;

use otelagent_operator::api::OtelAgent;
use otelagent_operator::desired::{Environment, Family, ServerVersion};

/// An installation in `otelagent-system` on the newest supported server.
pub(crate) fn environment() -> Environment {
    Environment {
        operator_namespace: "otelagent-system".into(),
        platform_namespaces: BTreeSet::from(["otelagent-system".to_owned()]),
        agent_image: "otelagent/agent:test".into(),
        server: ServerVersion {
            major: 1,
            minor: 37,
        },
        nodes: Family::V4,
        operator_version: "0.0.0".into(),
    }
}

/// An `OtelAgent` from its manifest.
pub(crate) fn agent(yaml: &str) -> OtelAgent {
    serde_saphyr::from_str(yaml).expect("a manifest that parses")
}

/// The simplest one there is, with a spec fragment of one's own.
pub(crate) fn agent_with(namespace: &str, spec: &str) -> OtelAgent {
    agent(&format!(
        "{{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, metadata: {{name: node, namespace: {namespace}, uid: u}}, \
         spec: {{export: {{endpoint: 'http://c.o.svc:4317'}}, {spec}}}}}"
    ))
}
