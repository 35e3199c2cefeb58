//! Ports of the nodes that pods take.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use otelagent_core::names;
use serde::Deserialize;

/// The ports that a pod takes of its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortsOfPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its node.
    pub node: String,
    /// Whether it is an agent of otelagent.
    pub is_agent: bool,
    /// The ports.
    pub ports: BTreeSet<u16>,
}

/// The fields that are read of a pod.
#[derive(Clone, Debug, Deserialize)]
pub struct PortPod {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PortSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortSpec {
    node_name: String,
    host_network: bool,
    containers: Vec<PortContainer>,
    init_containers: Vec<PortContainer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PortContainer {
    ports: Vec<DeclaredPort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeclaredPort {
    container_port: u16,
    host_port: u16,
    protocol: String,
}

impl PortPod {
    /// The ports that it takes; `None` without any. On the host network every declared port is one of the node.
    pub fn taken(self) -> Option<PortsOfPod> {
        let spec = self.spec;
        let containers = spec.containers.iter().chain(&spec.init_containers);
        let declared = containers.flat_map(|container| &container.ports);
        let tcp = declared.filter(|port| matches!(port.protocol.as_str(), "" | "TCP"));
        let of_node = tcp.map(|port| match port.host_port {
            0 if spec.host_network => port.container_port,
            port => port,
        });
        let ports: BTreeSet<u16> = of_node.filter(|port| *port > 0).collect();
        let labels = self.metadata.labels.unwrap_or_default();
        (!ports.is_empty()).then(|| PortsOfPod {
            namespace: self.metadata.namespace.unwrap_or_default(),
            name: self.metadata.name.unwrap_or_default(),
            node: spec.node_name,
            is_agent: labels.contains_key(names::LABEL_OWNER),
            ports,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_takes_its_host_ports_and_on_the_host_network_all_that_it_declares() {
        let ports = |host_network: bool| {
            let pod: PortPod = serde_json::from_value(json!({
                "metadata": {"name": "a", "namespace": "b"},
                "spec": {"nodeName": "n1", "hostNetwork": host_network, "containers": [{"ports": [
                    {"containerPort": 1, "hostPort": 4317}, {"containerPort": 8888},
                    {"containerPort": 2, "hostPort": 53, "protocol": "UDP"},
                ]}]},
            }))
            .unwrap();
            pod.taken().unwrap().ports
        };
        assert_eq!(ports(false), [4317].into());
        assert_eq!(ports(true), [4317, 8888].into());
        let none: PortPod = serde_json::from_value(json!({"metadata": {}})).unwrap();
        assert_eq!(none.taken(), None);
    }
}
