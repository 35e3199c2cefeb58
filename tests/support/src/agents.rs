//! An installation and `OtelAgent`s to render for it.

use std::collections::BTreeSet;

use otelagent_api::{Mode, OtelAgent};
use otelagent_core::build::{
    DesiredMode, Environment, IpFamily, Object, ServerVersion, ValidAgent, build,
};
use otelagent_core::names;

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

/// What a mode of an `OtelAgent` needs in that installation.
pub fn desired_in(mode: Mode, agent: &ValidAgent) -> DesiredMode {
    let mut desired = build(agent, &environment(), [mode]);
    desired.modes.remove(&mode).expect("the mode asked for")
}

/// The same of the wanted mode.
pub fn desired(agent: &ValidAgent) -> DesiredMode {
    desired_in(agent.wanted(), agent)
}

/// The configuration of a mode's agents, wherever it is.
pub fn configuration(desired: &DesiredMode) -> String {
    let mounted = desired.objects.iter().find_map(|object| match object {
        Object::ConfigMap(map) => map.data.as_ref()?.values().next(),
        _ => None,
    });
    let annotations = &desired.recipe.annotations;
    let text = mounted.or_else(|| annotations.get(names::ANNOTATION_CONFIG));
    text.expect("a configuration").clone()
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
