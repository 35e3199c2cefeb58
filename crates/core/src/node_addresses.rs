//! The addresses of nodes that pods get as `status.hostIP`.

use k8s_openapi::api::core::v1::Node;
use otelagent_api::ResourceExt;

use crate::build::IpFamily;

/// What tells nodes that are no machines with Linux.
const OS_LABEL: &str = "kubernetes.io/os";
const VIRTUAL_TAINT: &str = "virtual-kubelet.io/provider";

/// The family of the first node that has an address. Virtual nodes have what their provider likes: Linux nodes that a
/// kubelet runs come first.
pub fn family(nodes: &[Node]) -> Option<IpFamily> {
    families(nodes)
        .next()
        .or_else(|| nodes.iter().find_map(family_of))
}

/// The families of the Linux nodes that a kubelet runs.
pub fn families(nodes: &[Node]) -> impl Iterator<Item = IpFamily> {
    let real = nodes.iter().filter(|node| !is_virtual(node));
    real.filter_map(family_of)
}

fn is_virtual(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let mut taints = taints.into_iter().flatten();
    let is_windows = node.labels().get(OS_LABEL).is_some_and(|os| os != "linux");
    is_windows || taints.any(|taint| taint.key == VIRTUAL_TAINT)
}

/// The family of the address that the kubelet gives to pods (`GetNodeHostIPs`): the first internal one, else the first
/// external one. A node that is not initialized has neither.
fn family_of(node: &Node) -> Option<IpFamily> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_ref()?;
    let of = |type_: &str| addresses.iter().find(|address| address.type_ == type_);
    let first = of("InternalIP").or_else(|| of("ExternalIP"))?;
    Some(if first.address.contains(':') {
        IpFamily::V6
    } else {
        IpFamily::V4
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn family_is_that_of_the_first_linux_node_with_an_address() {
        let node = |labels: Value, taint: &str, addresses: &[(&str, &str)]| -> Node {
            let addresses = addresses.iter();
            let addresses: Vec<Value> = addresses
                .map(|(type_, address)| json!({"type": type_, "address": address}))
                .collect();
            let taints = json!([{"key": taint, "effect": "NoSchedule"}]);
            serde_json::from_value(json!({
                "metadata": {"labels": labels}, "spec": {"taints": taints}, "status": {"addresses": addresses},
            }))
            .unwrap()
        };
        let (linux, windows) = (json!({OS_LABEL: "linux"}), json!({OS_LABEL: "windows"}));
        let new = node(linux.clone(), "own", &[("Hostname", "n1")]);
        let virtual_node = node(linux.clone(), VIRTUAL_TAINT, &[("InternalIP", "10.0.0.1")]);
        let other = node(windows, "own", &[("InternalIP", "10.0.0.2")]);
        let v6 = node(
            linux.clone(),
            "own",
            &[("ExternalIP", "1.2.3.4"), ("InternalIP", "fd00::1")],
        );
        let outside = node(linux, "own", &[("ExternalIP", "2001:db8::1")]);
        let first = [new.clone(), virtual_node.clone(), other];
        assert_eq!(family(&[]), None);
        assert_eq!(family(std::slice::from_ref(&new)), None);
        assert_eq!(family(&first), Some(IpFamily::V4));
        for real in [v6, outside] {
            let nodes = [&first[..], &[real]].concat();
            assert_eq!(family(&nodes), Some(IpFamily::V6));
        }
    }
}
