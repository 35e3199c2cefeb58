//! The networks of a bed: one namespace for the control plane with a bridge, one per node, and a
//! link into the caller's namespace so that tests reach everything directly.
//!
//! Knows addresses from the layout, and nothing of what listens on them.

use std::net::IpAddr;

use crate::command::run_words;
use crate::error::Result;
use crate::layout::{Layout, Links};

/// Runs an `ip` command given as one line without quotes.
fn ip(line: &str) -> Result<()> {
    let mut words = vec!["ip"];
    words.extend(line.split(' '));
    run_words(&words).map(drop)
}

/// Writes a kernel parameter of a network namespace. Entered with nsenter, because `ip netns exec`
/// remounts /sys.
fn sysctl(netns: &str, name: &str, value: &str) -> Result<()> {
    let script = format!("echo {value} > /proc/sys/net/{name}");
    run_words(&[
        "nsenter",
        &format!("--net=/run/netns/{netns}"),
        "sh",
        "-c",
        &script,
    ])
    .map(drop)
}

/// Makes the control plane's namespace and the link into the caller's.
pub(crate) fn create_control_plane(layout: &Layout) -> Result<()> {
    let cp = layout.control_plane_netns();
    let host_link = layout.slot.host_link();
    ip(&format!("netns add {cp}"))?;
    ip(&format!("-n {cp} link set lo up"))?;
    ip(&format!("-n {cp} link add br0 type bridge"))?;
    ip(&format!("-n {cp} link set br0 up"))?;
    ip(&format!(
        "link add {host_link} type veth peer name host netns {cp}"
    ))?;
    ip(&format!("-n {cp} link set host master br0 up"))?;
    ip(&format!("link set {host_link} up"))?;
    for links in layout.each_links() {
        let (control_plane, host) = (links.add(links.control_plane()), links.add(links.host()));
        ip(&format!("-n {cp} addr add {control_plane} dev br0"))?;
        ip(&format!("addr add {host} dev {host_link}"))?;
        sysctl(&cp, links.family.forwarding(), "1")?;
    }
    Ok(())
}

/// Makes a node's namespace, and the ways to its pods from the gateway and the caller.
pub(crate) fn create_node(layout: &Layout, node: u8) -> Result<()> {
    let (cp, netns) = (layout.control_plane_netns(), layout.node_netns(node));
    let link = format!("n{node}");
    ip(&format!("netns add {netns}"))?;
    ip(&format!(
        "-n {cp} link add {link} type veth peer name eth0 netns {netns}"
    ))?;
    ip(&format!("-n {cp} link set {link} master br0 up"))?;
    ip(&format!("-n {netns} link set lo up"))?;
    ip(&format!("-n {netns} link set eth0 up"))?;
    layout
        .each_links()
        .try_for_each(|links| connect_node(layout, links, node))
}

/// Gives a node its address of one family, and makes the ways to its pods.
fn connect_node(layout: &Layout, links: Links<'_>, node: u8) -> Result<()> {
    let (cp, netns) = (layout.control_plane_netns(), layout.node_netns(node));
    let (address, pods) = (links.node(node), links.pods(node));
    let (own, gateway) = (links.add(address), links.control_plane());
    let host_link = layout.slot.host_link();
    ip(&format!("-n {netns} addr add {own} dev eth0"))?;
    ip(&format!("-n {netns} route add default via {gateway}"))?;
    sysctl(&netns, links.family.forwarding(), "1")?;
    ip(&format!("-n {cp} route replace {pods} via {address}"))?;
    ip(&format!(
        "route replace {pods} via {address} dev {host_link}"
    ))
}

/// Gives a node the routes to the pods of another; without them packets take a detour over the
/// gateway, whose redirects make the first ones slow.
pub(crate) fn connect_nodes(layout: &Layout, from: u8, to: u8) -> Result<()> {
    let netns = layout.node_netns(from);
    layout.each_links().try_for_each(|links| {
        let (pods, address) = (links.pods(to), links.node(to));
        ip(&format!("-n {netns} route replace {pods} via {address}"))
    })
}

/// Drops what a node and its pods send to one address, or no longer.
pub(crate) fn cut_off(layout: &Layout, node: u8, address: IpAddr, is_cut: bool) -> Result<()> {
    let netns = layout.node_netns(node);
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    let change = if is_cut { "add" } else { "del" };
    ip(&format!(
        "{family} -n {netns} rule {change} to {address} pref 10 blackhole"
    ))
}

/// Removes a node's namespace: from now on its addresses do not answer.
pub(crate) fn remove_node(layout: &Layout, node: u8) -> Result<()> {
    let _ = ip(&format!(
        "-n {} link del n{node}",
        layout.control_plane_netns()
    ));
    ip(&format!("netns del {}", layout.node_netns(node)))
}
