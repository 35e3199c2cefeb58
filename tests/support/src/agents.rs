//! An installation and `OtelAgent`s to render for it.

use std::collections::BTreeSet;

use otelagent_api::OtelAgent;
use otelagent_core::build::{Environment, IpFamily, ServerVersion};

/// An installation in `otelagent-system` on the newest supported server.
pub fn environment() -> Environment {
    Environment {
        operator_namespace: "otelagent-system".into(),
        platform_namespaces: BTreeSet::from(["otelagent-system".to_owned()]),
        agent_image: "otelagent/agent:test".into(),
        server: ServerVersion {
            major: 1,
            minor: 37,
        },
        nodes: IpFamily::V4,
        operator_version: "0.0.0".into(),
    }
}

/// An `OtelAgent` from its manifest.
pub fn agent(yaml: &str) -> OtelAgent {
    serde_saphyr::from_str(yaml).expect("a manifest that parses")
}

/// The simplest one there is, with a spec fragment of one's own.
pub fn agent_with(namespace: &str, spec: &str) -> OtelAgent {
    agent(&format!(
        "{{apiVersion: otelagent.dev/v1alpha1, kind: OtelAgent, metadata: {{name: node, namespace: {namespace}, uid: u}}, \
         spec: {{export: {{endpoint: 'http://c.o.svc:4317'}}, {spec}}}}}"
    ))
}
