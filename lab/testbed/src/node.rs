//! One node: mount namespace, containerd, kubelet, kube-proxy and what enforces network policies, with their files.
//!
//! Everything of a node runs in its own network and mount namespaces, so several fit one machine.
//! Knows nothing of the control plane but its address.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::addresses::Family;
use crate::cgroup;
use crate::command::{command, make_dir, run, run_words, write};
use crate::component::{
    self, Component, Launch, http_ok, launch, not_ready, system_program, wait_ready,
};
use crate::error::{Error, Result};
use crate::image::ImageSpec;
use crate::layout::{Layout, Links, node_name};
use crate::net;
use crate::options::Options;
use crate::parts::{Part, ensure_for};

/// The name of the sandbox image.
const PAUSE_IMAGE: &str = "bed.local/pause:1";
const PATIENCE: Duration = Duration::from_mins(2);

/// Runs as the node's mount holder: what the kubelet and containers expect at fixed paths is the
/// node's own, and mounts made in here are never seen outside.
const HOLD_MOUNTS: &str = r#"set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock /run/containerd /var/lib/kubelet
ln -s "$1/containerd.sock" /run/containerd/containerd.sock
mount --bind "$1/kubelet" /var/lib/kubelet
mount --bind "$1/log" /var/log
mount --make-rshared /
touch "$1/mounted"
exec sleep infinity"#;

/// Makes the node's network and starts its container runtime; needs no API server.
pub(crate) fn start_runtime(layout: &Layout, options: &Options, node: u8) -> Result<()> {
    net::create_node(layout, node)?;
    let dir = layout.node_dir(node);
    // What a real node keeps in memory only.
    for fresh in ["containerd-state", "cni-state", "mounted"] {
        let path = dir.join(fresh);
        let _ = if path.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
    }
    for part in [
        "kubelet",
        "log",
        "containerd",
        "containerd-state",
        "cni-conf",
        "cni-state",
    ] {
        make_dir(&dir.join(part))?;
    }
    cgroup::create(&layout.node_cgroup(node))?;
    start(layout, options, Component::Mounts(node))?;
    start(layout, options, Component::Containerd(node))?;
    import(layout, options, node, &pause_image(layout, options)?)
}

/// Starts what talks to the API server.
pub(crate) fn start_agents(layout: &Layout, options: &Options, node: u8) -> Result<()> {
    start(layout, options, Component::KubeProxy(node))?;
    start(layout, options, Component::Kubelet(node))
}

/// Starts one of a node's processes and, where that needs no API server, waits until it serves.
pub(crate) fn start(layout: &Layout, options: &Options, component: Component) -> Result<()> {
    match component {
        Component::Mounts(node) => start_mounts(layout, node),
        Component::Containerd(node) => start_containerd(layout, options, node),
        Component::Kubelet(node) => {
            let args = kubelet_args(layout, node)?;
            start_inside(layout, options, component, node, Part::Kubelet, args)
        }
        Component::KubeProxy(node) => {
            let args = kube_proxy_args(layout, options, node)?;
            start_inside(layout, options, component, node, Part::KubeProxy, args)
        }
        Component::KubeRouter(node) => {
            let args = kube_router_args(layout, node);
            start_inside(layout, options, component, node, Part::KubeRouter, args)
        }
        _ => Err(Error::Invalid(format!("{component} belongs to no node"))),
    }
}

/// Waits until Services work on the node. Whether it is Ready, the API server says.
pub(crate) fn wait_for_proxy(layout: &Layout, node: u8) -> Result<()> {
    let ip = layout.node_ip(node);
    wait_ready(
        layout,
        Component::KubeProxy(node),
        "answer at /healthz",
        PATIENCE,
        || http_ok(ip, 10256, "/healthz"),
    )
}

/// Starts what enforces network policies, if the bed has it, and waits until it does. The node must be registered: its
/// enforcer ends if it does not find it.
pub(crate) fn start_enforcer(layout: &Layout, options: &Options, node: u8) -> Result<()> {
    if !options.network_policies {
        return Ok(());
    }
    let component = Component::KubeRouter(node);
    start(layout, options, component)?;
    let inside = format!("--net=/run/netns/{}", layout.node_netns(node));
    let iptables = layout.addresses.first().iptables();
    // Its last rule there is written together with those for pods.
    let list = [
        "nsenter",
        &inside,
        iptables,
        "--list-rules",
        "KUBE-ROUTER-FORWARD",
    ];
    wait_ready(layout, component, "rules", PATIENCE, || {
        run_words(&list).is_ok_and(|rules| rules.contains("-j ACCEPT"))
    })
}

fn start_mounts(layout: &Layout, node: u8) -> Result<()> {
    let (component, dir) = (Component::Mounts(node), layout.node_dir(node));
    let unshare = system_program("unshare")?;
    let words: [&std::ffi::OsStr; 6] = [
        "--mount".as_ref(),
        "sh".as_ref(),
        "-c".as_ref(),
        HOLD_MOUNTS.as_ref(),
        "mounts".as_ref(),
        dir.as_ref(),
    ];
    launch(
        layout,
        Launch {
            component,
            netns: layout.node_netns(node),
            mounts_of: None,
            program: &unshare,
            args: words.iter().map(OsString::from).collect(),
            path: Vec::new(),
        },
    )?;
    wait_ready(layout, component, "mounts", PATIENCE, || {
        dir.join("mounted").exists()
    })
}

fn start_inside(
    layout: &Layout,
    options: &Options,
    component: Component,
    node: u8,
    part: Part,
    args: Vec<OsString>,
) -> Result<()> {
    let holder = Component::Mounts(node);
    let Some(mounts_of) = component::pid(layout, holder) else {
        return Err(not_ready(
            layout,
            holder,
            "its process has ended; the node is down",
        ));
    };
    let program = ensure_for(part, options.kubernetes)?;
    let shim = ensure_for(Part::ContainerdShim, options.kubernetes)?;
    let path = shim.parent().map(Path::to_owned).into_iter().collect();
    let netns = layout.node_netns(node);
    launch(
        layout,
        Launch {
            component,
            netns,
            mounts_of: Some(mounts_of),
            program: &program,
            args,
            path,
        },
    )
}

fn socket(layout: &Layout, node: u8) -> PathBuf {
    layout.node_dir(node).join("containerd.sock")
}

fn start_containerd(layout: &Layout, options: &Options, node: u8) -> Result<()> {
    let component = Component::Containerd(node);
    let config = layout.node_dir(node).join("containerd.toml");
    write(&config, containerd_config(layout, options, node)?)?;
    write_cni_config(layout, options, node)?;
    let args = vec!["--config".into(), config.into()];
    start_inside(layout, options, component, node, Part::Containerd, args)?;
    let ctr = ensure_for(Part::Ctr, options.kubernetes)?;
    let socket = socket(layout, node);
    wait_ready(layout, component, "answer on its socket", PATIENCE, || {
        socket.exists() && run(command(&ctr).arg("--address").arg(&socket).arg("version")).is_ok()
    })
}

fn containerd_config(layout: &Layout, options: &Options, node: u8) -> Result<String> {
    let dir = layout.node_dir(node).display().to_string();
    let runc = system_program("runc")?;
    let plugins = ensure_for(Part::CniPtp, options.kubernetes)?;
    let plugins = plugins.parent().unwrap_or(Path::new("/")).display();
    Ok(format!(
        "version = 3
root = '{dir}/containerd'
state = '{dir}/containerd-state'
[grpc]
address = '{}'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_apparmor = true
disable_hugetlb_controller = true
enable_selinux = false
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{plugins}']
conf_dir = '{dir}/cni-conf'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = '{}'
SystemdCgroup = false
[plugins.'io.containerd.cri.v1.images']
snapshotter = 'overlayfs'
[plugins.'io.containerd.cri.v1.images'.registry]
config_path = '{dir}/registries'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE_IMAGE}'
",
        socket(layout, node).display(),
        runc.display()
    ))
}

fn write_cni_config(layout: &Layout, options: &Options, node: u8) -> Result<()> {
    let dir = layout.node_dir(node);
    let range = |links: Links<'_>| json!([{"subnet": links.pods(node)}]);
    let route = |links: Links<'_>| json!({"dst": links.family.everything()});
    let mut plugins = vec![json!({
        "type": "ptp", "mtu": 1500, "ipMasq": false, "ipam": {
            "type": "host-local",
            "dataDir": dir.join("cni-state"),
            "ranges": layout.each_links().map(range).collect::<Vec<_>>(),
            "routes": layout.each_links().map(route).collect::<Vec<_>>(),
        },
    })];
    if !options.without_port_map {
        plugins.push(json!({
            "type": "portmap",
            "backend": options.packet_filter.name(),
            "snat": true,
            "capabilities": {"portMappings": true},
        }));
    }
    let config = json!({"cniVersion": "1.0.0", "name": "bed", "plugins": plugins});
    write(
        &dir.join("cni-conf").join("10-bed.conflist"),
        serde_json::to_vec_pretty(&config)?,
    )
}

fn kubelet_args(layout: &Layout, node: u8) -> Result<Vec<OsString>> {
    let (dir, name) = (layout.node_dir(node), node_name(node));
    let resolv_conf = dir.join("resolv.conf");
    write(
        &resolv_conf,
        format!("nameserver {}\n", layout.control_plane_ip()),
    )?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        // Refusing version 1 is the default since 1.35; 1.37 still runs on it.
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", layout.node_cgroup(node)),
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": format!("unix://{}", socket(layout, node).display()),
        "clusterDNS": [layout.control_plane_ip()],
        "clusterDomain": "cluster.local",
        "address": layout.addresses.unspecified(),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": layout.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": layout.pki(&format!("{name}.crt")),
        "tlsPrivateKeyFile": layout.pki(&format!("{name}.key")),
        "oomScoreAdj": 0,
        "maxPods": 110,
        // All nodes share one machine: its pressure is not theirs.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "resolvConf": resolv_conf,
        "localStorageCapacityIsolation": false,
    });
    let path = dir.join("kubelet.json");
    write(&path, serde_json::to_vec_pretty(&config)?)?;
    let args = [
        format!("--config={}", path.display()),
        format!(
            "--kubeconfig={}",
            layout.file(&format!("{name}.kubeconfig")).display()
        ),
        format!("--hostname-override={name}"),
        format!("--root-dir={}", dir.join("kubelet").display()),
        format!("--node-ip={}", layout.node_ips(node)),
    ];
    Ok(args.into_iter().map(OsString::from).collect())
}

fn kube_proxy_args(layout: &Layout, options: &Options, node: u8) -> Result<Vec<OsString>> {
    let unspecified = layout.addresses.unspecified();
    let config = json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": options.packet_filter.name(),
        "hostnameOverride": node_name(node),
        "clusterCIDR": layout.pod_range(),
        "clientConnection": {"kubeconfig": layout.file("kube-proxy.kubeconfig")},
        // Zero leaves the machine's connection tracking alone.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "bindAddress": unspecified,
        "healthzBindAddress": SocketAddr::from((unspecified, 10256)),
    });
    let path = layout.node_dir(node).join("kube-proxy.json");
    write(&path, serde_json::to_vec_pretty(&config)?)?;
    Ok(vec![format!("--config={}", path.display()).into()])
}

/// As nothing but an enforcer of network policies, beside the bed's network plugin and kube-proxy.
fn kube_router_args(layout: &Layout, node: u8) -> Vec<OsString> {
    let kubeconfig = layout.file("kube-router.kubeconfig");
    let has = |wanted| layout.addresses.families().any(|family| family == wanted);
    let args = [
        "--run-firewall=true".to_owned(),
        "--run-router=false".to_owned(),
        "--run-service-proxy=false".to_owned(),
        "--enable-cni=false".to_owned(),
        format!("--enable-ipv4={}", has(Family::V4)),
        format!("--enable-ipv6={}", has(Family::V6)),
        format!("--service-cluster-ip-range={}", layout.service_range()),
        format!("--hostname-override={}", node_name(node)),
        format!("--kubeconfig={}", kubeconfig.display()),
    ];
    args.into_iter().map(OsString::from).collect()
}

/// The sandbox image, written by the first node.
fn pause_image(layout: &Layout, options: &Options) -> Result<PathBuf> {
    let tar = layout.file("pause.tar");
    if !tar.exists() {
        let spec = ImageSpec {
            name: PAUSE_IMAGE.to_owned(),
            entrypoint: vec!["/pause".to_owned()],
            files: vec![(
                ensure_for(Part::Pause, options.kubernetes)?,
                "/pause".to_owned(),
            )],
            user: "65535:65535".to_owned(),
            ..ImageSpec::default()
        };
        spec.write(&tar)?;
    }
    Ok(tar)
}

/// Gives the node's runtime an image.
pub(crate) fn import(layout: &Layout, options: &Options, node: u8, tar: &Path) -> Result<()> {
    run(images(layout, options, node)?.arg("import").arg(tar)).map(drop)
}

/// Sends an image that the node has to a registry that speaks plain HTTP, under another name. `user` is `NAME:PASSWORD`.
pub(crate) fn push(
    layout: &Layout,
    options: &Options,
    node: u8,
    (image, to): (&str, &str),
    user: &str,
) -> Result<()> {
    let words: [&[&str]; 3] = [
        &["tag", "--force", image, to],
        &["push", "--local", "--plain-http", "--user", user, to],
        &["remove", to],
    ];
    for words in words {
        run(images(layout, options, node)?.args(words))?;
    }
    Ok(())
}

/// Has the node pull from a registry, as in `10.0.0.1:5000`, without encryption.
pub(crate) fn trust_registry(layout: &Layout, node: u8, registry: &str) -> Result<()> {
    let dir = layout.node_dir(node).join("registries").join(registry);
    make_dir(&dir)?;
    write(
        &dir.join("hosts.toml"),
        format!("server = 'http://{registry}'\n"),
    )
}

/// `ctr images` for the images of pods.
fn images(layout: &Layout, options: &Options, node: u8) -> Result<std::process::Command> {
    let mut ctr = command(&ensure_for(Part::Ctr, options.kubernetes)?);
    ctr.arg("--address").arg(socket(layout, node));
    ctr.args(["--namespace", "k8s.io", "images"]);
    Ok(ctr)
}
