//! The control plane: etcd, API server, controller manager, scheduler, DNS and the simulator of
//! nodes, with their flags.
//!
//! Knows nothing of nodes.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::{command, read, write};
use crate::component::{Component, Launch, http_ok, launch, wait_ready};
use crate::error::Result;
use crate::layout::{Layout, node_name};
use crate::options::Options;
use crate::parts::{Part, ensure_for};
use crate::pins::KubernetesVersion;
use crate::simulated;

/// Every request, without bodies: enough to compare the rights used with the rights granted.
const AUDIT_POLICY: &str = r#"{"apiVersion":"audit.k8s.io/v1","kind":"Policy","omitStages":["RequestReceived"],"rules":[{"level":"Metadata"}]}"#;
/// On a busy machine all of it takes longer than the second it takes otherwise.
const PATIENCE: Duration = Duration::from_mins(2);
/// The administrator's kubeconfig.
pub(crate) const KUBECONFIG: &str = "kubeconfig";
/// The same for the second API server.
pub(crate) const SECOND_KUBECONFIG: &str = "kubeconfig-2";
/// Where the API server listens.
const PORT: u16 = 6443;
/// Where the second one does.
const SECOND_PORT: u16 = 6444;

/// Where the audit log is, when there is one.
pub(crate) fn audit_log(layout: &Layout) -> PathBuf {
    layout.name.log_dir().join("audit.log")
}

/// Starts one component of the control plane and waits until it serves.
pub(crate) fn start(layout: &Layout, options: &Options, component: Component) -> Result<()> {
    start_of(layout, options, component, options.kubernetes)
}

/// The same with a program of another release than the bed's.
pub(crate) fn start_of(
    layout: &Layout,
    options: &Options,
    component: Component,
    kubernetes: KubernetesVersion,
) -> Result<()> {
    let (part, args) = match component {
        Component::Etcd => (Part::Etcd, etcd_args(layout)),
        Component::ApiServer => (Part::KubeApiserver, apiserver_args(layout, options)?),
        Component::SecondApiServer => {
            (Part::KubeApiserver, second_apiserver_args(layout, options)?)
        }
        Component::ControllerManager => (
            Part::KubeControllerManager,
            controller_manager_args(layout, options),
        ),
        Component::Scheduler => (Part::KubeScheduler, scheduler_args(layout, options)),
        Component::Kwok => (Part::Kwok, simulated::kwok_args(layout)),
        _ => (Part::CoreDns, coredns_args(layout)?),
    };
    let program = ensure_for(part, kubernetes)?;
    let netns = layout.control_plane_netns();
    launch(
        layout,
        Launch {
            component,
            netns,
            mounts_of: None,
            program: &program,
            args,
            path: Vec::new(),
        },
    )?;
    match component {
        Component::ApiServer => wait_for_apiserver(layout, options, component, KUBECONFIG),
        Component::SecondApiServer => {
            second_kubeconfig(layout)?;
            wait_for_apiserver(layout, options, component, SECOND_KUBECONFIG)
        }
        Component::CoreDns => {
            let ip = layout.control_plane_ip();
            wait_ready(layout, component, "answer at /ready", PATIENCE, || {
                http_ok(ip, 8181, "/ready")
            })
        }
        _ => Ok(()),
    }
}

/// `/readyz` fails until the built-in roles exist; a controller manager that starts before exits.
fn wait_for_apiserver(
    layout: &Layout,
    options: &Options,
    component: Component,
    kubeconfig: &str,
) -> Result<()> {
    let kubectl = ensure_for(Part::Kubectl, options.kubernetes)?;
    wait_ready(layout, component, "answer at /readyz", PATIENCE, || {
        command(&kubectl)
            .env("KUBECONFIG", layout.file(kubeconfig))
            .args(["get", "--raw", "/readyz", "--request-timeout=2s"])
            .output()
            .is_ok_and(|output| output.status.success())
    })
}

/// The administrator's way to the second API server: the same certificates at another port.
fn second_kubeconfig(layout: &Layout) -> Result<()> {
    let first = read(&layout.file(KUBECONFIG))?;
    let port = |port: u16| format!(":{port}");
    let second = first.replace(&port(PORT), &port(SECOND_PORT));
    write(&layout.file(SECOND_KUBECONFIG), second)
}

fn words<I: IntoIterator<Item = String>>(args: I) -> Vec<OsString> {
    args.into_iter().map(OsString::from).collect()
}

fn etcd_args(layout: &Layout) -> Vec<OsString> {
    let client = "http://127.0.0.1:2379";
    words([
        format!("--data-dir={}", layout.file("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
        // This data is not needed after a power cut.
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ])
}

fn apiserver_args(layout: &Layout, options: &Options) -> Result<Vec<OsString>> {
    apiserver_args_at(layout, options, PORT)
}

/// The same, but for what only one of them can have: a port, the endpoint of the `kubernetes` Service, a log.
fn second_apiserver_args(layout: &Layout, options: &Options) -> Result<Vec<OsString>> {
    let unaudited = Options {
        audit: false,
        ..options.clone()
    };
    let mut args = apiserver_args_at(layout, &unaudited, SECOND_PORT)?;
    args.push("--endpoint-reconciler-type=none".into());
    Ok(args)
}

fn apiserver_args_at(layout: &Layout, options: &Options, port: u16) -> Result<Vec<OsString>> {
    let pki = |name: &str| layout.pki(name).display().to_string();
    let mut args = vec![
        "--etcd-servers=http://127.0.0.1:2379".to_owned(),
        format!("--secure-port={port}"),
        format!("--bind-address={}", layout.addresses.unspecified()),
        format!("--advertise-address={}", layout.control_plane_ip()),
        format!("--tls-cert-file={}", pki("apiserver.crt")),
        format!("--tls-private-key-file={}", pki("apiserver.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--service-cluster-ip-range={}", layout.service_range()),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", pki("service-accounts.pub")),
        format!(
            "--service-account-signing-key-file={}",
            pki("service-accounts.key")
        ),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged".to_owned(),
        // For servers that extend the API, and for components that look these up.
        format!("--requestheader-client-ca-file={}", pki("ca.crt")),
        "--requestheader-allowed-names=bed-front-proxy".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--proxy-client-cert-file={}", pki("front-proxy.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy.key")),
        // There is no kube-proxy beside it: it must dial the Services of webhooks by endpoint.
        "--enable-aggregator-routing=true".to_owned(),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
    ];
    if options.audit {
        let policy = layout.file("audit-policy.json");
        write(&policy, AUDIT_POLICY)?;
        args.push(format!("--audit-policy-file={}", policy.display()));
        args.push(format!("--audit-log-path={}", audit_log(layout).display()));
    }
    args.extend(options.apiserver_args.iter().cloned());
    Ok(words(args))
}

fn controller_manager_args(layout: &Layout, options: &Options) -> Vec<OsString> {
    let kubeconfig = layout
        .file("controller-manager.kubeconfig")
        .display()
        .to_string();
    let pki = |name: &str| layout.pki(name).display().to_string();
    let args = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!(
            "--service-account-private-key-file={}",
            pki("service-accounts.key")
        ),
        "--use-service-account-credentials".to_owned(),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        format!("--cluster-cidr={}", layout.pod_range()),
        "--leader-elect=false".to_owned(),
        // The default of 20 requests a second makes the start of the controllers take five.
        "--kube-api-qps=200".to_owned(),
        "--kube-api-burst=400".to_owned(),
    ];
    words(
        args.into_iter()
            .chain(simulated::controller_manager_args(options))
            .chain(options.controller_manager_args.iter().cloned()),
    )
}

fn scheduler_args(layout: &Layout, options: &Options) -> Vec<OsString> {
    let kubeconfig = layout.file("scheduler.kubeconfig").display().to_string();
    let args = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
    ];
    words(
        args.into_iter()
            .chain(simulated::scheduler_args(options))
            .chain(options.scheduler_args.iter().cloned()),
    )
}

/// Names of the cluster, and a quick "no such name" for all others: there is no other server to
/// ask, and a pod that asks for an unknown name must not wait for a time limit.
fn coredns_args(layout: &Layout) -> Result<Vec<OsString>> {
    let (ip, kubeconfig) = (layout.control_plane_ip(), layout.file("coredns.kubeconfig"));
    let ready = SocketAddr::from((ip, 8181));
    // Two server blocks, because `template` always comes before `kubernetes` within one.
    let corefile = format!(
        "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {{
    bind {ip}
    errors
    ready {ready}
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {}
        ttl 5
    }}
}}
.:53 {{
    bind {ip}
    errors
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
",
        kubeconfig.display()
    );
    let path = layout.file("Corefile");
    write(&path, corefile)?;
    Ok(words(["-conf".to_owned(), path.display().to_string()]))
}

/// Whether the default service account exists: then pods can be created, and the controllers run.
pub(crate) fn wait_for_controllers(layout: &Layout, options: &Options) -> Result<()> {
    let kubectl = ensure_for(Part::Kubectl, options.kubernetes)?;
    wait_ready(
        layout,
        Component::ControllerManager,
        "default service account",
        PATIENCE,
        || {
            command(&kubectl)
                .env("KUBECONFIG", layout.file("kubeconfig"))
                .args(["get", "serviceaccount", "default", "--namespace=default"])
                .output()
                .is_ok_and(|output| output.status.success())
        },
    )
}

/// Waits until a node is Ready since its present kubelet started, and may be scheduled to.
pub(crate) fn wait_for_node(layout: &Layout, options: &Options, node: u8) -> Result<()> {
    let kubectl = ensure_for(Part::Kubectl, options.kubernetes)?;
    let status = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status} {.spec.taints}"#;
    wait_ready(
        layout,
        Component::Kubelet(node),
        "Ready node",
        PATIENCE,
        || {
            command(&kubectl)
                .env("KUBECONFIG", layout.file("kubeconfig"))
                .args(["get", "node", &node_name(node), "--output", status])
                .output()
                .is_ok_and(|output| String::from_utf8_lossy(&output.stdout).trim() == "True")
        },
    )
}
