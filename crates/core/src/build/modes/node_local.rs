//! `NodeLocal`: a `DaemonSet` behind a Service that keeps traffic on the node.
//!
//! `Require` is `internalTrafficPolicy: Local`, `Prefer` is `trafficDistribution: PreferSameNode`, never
//! both: with `Local` set, hints do not matter (KEP-3015).

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::daemon::{Rollout, agents, metadata, selector};
use super::topology::{Topology, variables_only};
use crate::build::agent_pod::{self, RenderInput};
use crate::build::environment::Environment;
use crate::build::objects::Object;
use crate::build::valid_agent::{Placement, ValidAgent};
use otelagent_api::{Mode, Routing};

pub(super) const NODE_LOCAL: Topology = Topology {
    placement: Placement::Pod,
    objects,
    node_ports: |_| Vec::new(),
    endpoint,
    recipe: |input| variables_only(Mode::NodeLocal, input, endpoint),
};

fn objects(input: &RenderInput<'_>) -> Vec<Object> {
    let agent = input.agent;
    let mut container = agent_pod::container(input);
    container.ports = Some(agent_pod::ports(agent, false));
    container.readiness_probe = Some(agent_pod::health_probe(agent, 2, 2));
    let (mode, volumes) = (Mode::NodeLocal, Vec::new());
    let mut objects = agents(input, mode, container, volumes, Rollout::Surge, &[]);
    objects.push(Object::Service(Box::new(service(agent))));
    objects
}

fn endpoint(agent: &ValidAgent, _: &Environment) -> String {
    let (name, namespace) = (&agent.name, &agent.namespace);
    format!("http://{name}.{namespace}.svc:{}", agent.spec.ports.grpc)
}

fn service(agent: &ValidAgent) -> Service {
    let port = |name: &str, number: u16| ServicePort {
        name: Some(name.into()),
        port: number.into(),
        target_port: Some(IntOrString::String(name.into())),
        protocol: Some("TCP".into()),
        ..ServicePort::default()
    };
    let (policy, distribution) = match agent.spec.node_local.routing {
        Routing::Require => ("Local", None),
        Routing::Prefer => ("Cluster", Some("PreferSameNode".to_owned())),
    };
    Service {
        metadata: metadata(agent, Mode::NodeLocal, agent.name.clone()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(selector(agent, Mode::NodeLocal)),
            ports: Some(vec![
                port("otlp-grpc", agent.spec.ports.grpc),
                port("otlp-http", agent.spec.ports.http),
            ]),
            internal_traffic_policy: Some(policy.into()),
            traffic_distribution: distribution,
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
