//! Nodes that forward connections in another way, or not at all.

use testbed::PacketFilter;

use super::programs::COMPILED;
use super::{SharedCluster, cluster_with, condition, sdks, world_on};
use crate::test_scale::is_full;
use serde_json::json;

/// Services by iptables, as in most clusters, and host ports not at all.
#[test]
fn host_port_is_never_used_where_nothing_maps_it_and_the_status_says_so() {
    static SHARED: SharedCluster = SharedCluster::new(|| {
        cluster_with("unmapped", |bed| {
            bed.packet_filter(PacketFilter::Iptables).without_port_map()
        })
    });
    let Some(world) = world_on("a network plugin that maps no host ports", &SHARED) else {
        return;
    };
    world.agent("unmapped", "nobody", "mode: NodeLocal");
    world.until_serving("unmapped", "NodeLocal");
    world.patch("unmapped", &json!({"spec": {"mode": "HostPort"}}));
    let agent = world.until_status("unmapped", "the reason", |status| {
        let message = condition(status, "Switching")["message"].as_str();
        message.is_some_and(|text| {
            text.starts_with("HostPort is not ready, NodeLocal keeps serving: node ")
                && text.contains(":4317 refuses connections")
                && text.contains("map host ports?")
        })
    });
    assert_eq!(agent["status"]["mode"], "NodeLocal");
    assert_eq!(condition(&agent["status"], "Ready")["status"], "True");

    world.patch("unmapped", &json!({"spec": {"mode": "HostNetwork"}}));
    world.until_serving("unmapped", "HostNetwork");
    world.end_bed();
}

/// With `make test-full`: the usual programs do not see what forwards them.
#[test]
fn sdks_send_all_signals_where_iptables_forwards() {
    static SHARED: SharedCluster = SharedCluster::new(|| {
        cluster_with("iptables", |bed| bed.packet_filter(PacketFilter::Iptables))
    });
    if !is_full() {
        return;
    }
    let Some(world) = world_on("SDKs where iptables forwards", &SHARED) else {
        return;
    };
    sdks::all_send_in_every_mode(&world, &COMPILED);
    world.end_bed();
}
