//! What a mode needs of a cluster, read from what is rendered for it.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{PodSpec, Service};

use crate::build::{DesiredMode, NodePorts, Object};
use crate::inject::environment::HOST_IP;
use otelagent_api::Mode;

/// One thing that not every cluster offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Nodes that run the pods of a `DaemonSet`.
    DaemonSets,
    /// A namespace at Pod Security level `privileged`: all others forbid host ports and the host network.
    Privileged,
    /// A network plugin that maps host ports.
    HostPorts,
    /// A data plane that honours `internalTrafficPolicy: Local`.
    InternalTrafficPolicy,
    /// A data plane that honours `trafficDistribution: PreferSameNode`.
    SameNodePreference,
    /// Addresses of nodes in the form that applications get.
    NodeAddresses,
}

/// What a mode needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// What of the cluster.
    pub of_cluster: BTreeSet<Need>,
    /// Which ports of its nodes.
    pub node_ports: BTreeSet<u16>,
}

impl Needs {
    /// What a rendered mode needs.
    pub fn of(mode: Mode, desired: &DesiredMode) -> Self {
        let mut needs = Self::default();
        if desired.endpoint.contains(HOST_IP) {
            needs.of_cluster.insert(Need::NodeAddresses);
        }
        for object in &desired.objects {
            match object {
                Object::DaemonSet(object) => needs.add_daemon_set(mode, object),
                Object::Service(object) => needs.add_service(object),
            }
        }
        needs
    }

    /// Whether this is among them.
    pub fn has(&self, need: Need) -> bool {
        self.of_cluster.contains(&need)
    }

    fn add_daemon_set(&mut self, mode: Mode, object: &DaemonSet) {
        self.of_cluster.insert(Need::DaemonSets);
        let ports = NodePorts::running(mode, object).map(|ports| ports.ports);
        self.node_ports.extend(ports.into_iter().flatten());
        let spec = object.spec.as_ref();
        let Some(pod) = spec.and_then(|spec| spec.template.spec.as_ref()) else {
            return;
        };
        let has_host_ports = has_host_ports(pod);
        if has_host_ports {
            self.of_cluster.insert(Need::HostPorts);
        }
        if has_host_ports || pod.host_network == Some(true) {
            self.of_cluster.insert(Need::Privileged);
        }
    }

    fn add_service(&mut self, object: &Service) {
        let Some(spec) = &object.spec else { return };
        if spec.internal_traffic_policy.as_deref() == Some("Local") {
            self.of_cluster.insert(Need::InternalTrafficPolicy);
        }
        if spec.traffic_distribution.as_deref() == Some("PreferSameNode") {
            self.of_cluster.insert(Need::SameNodePreference);
        }
    }
}

fn has_host_ports(pod: &PodSpec) -> bool {
    let mut ports = pod
        .containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten());
    ports.any(|port| port.host_port.is_some())
}
