//! A bed with two real nodes, and everything a pod may count on. One bed for all of it: starting
//! it is the slow part.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use support::{eventually, leftovers, output};
use testbed::image::ImageSpec;
use testbed::parts::{self, Part};
use testbed::{Addresses, Bed, Component, skip_unless_possible};

/// The one static program here that is a client and a server, and resolves names: kubectl. Its
/// server shows a file with the pod's name.
const WORKLOAD: &str = r"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: web, namespace: default}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: bed.local/kubectl:1
        args: [proxy, --www=/www, --www-prefix=/, --api-prefix=/api-server/,
               --address=0.0.0.0, --port=8080, --accept-hosts=.*]
        env: [{name: KUBERNETES_SERVICE_HOST, value: kubernetes.default.svc}]
        ports: [{containerPort: 8080, hostPort: 4317}]
        securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: www, mountPath: /www}]
      volumes: [{name: www, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-headless, namespace: default}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
";

struct Web {
    name: String,
    node: String,
    ip: IpAddr,
}

#[test]
fn two_nodes_run_pods() {
    if !skip_unless_possible("two nodes run pods") {
        return;
    }
    let bed = Bed::builder().name("nodes").nodes(2).start().unwrap();
    assert_eq!(bed.node_names(), ["node1", "node2"]);
    let pods = run_web(&bed, WORKLOAD);
    everybody_reaches_whom_a_pod_may_count_on(&bed, &pods);
    logs_and_port_forward_work(&bed, &pods);
    a_killed_kubelet_comes_back(&bed);
    a_node_dies_and_boots(&bed, &pods);

    let ip = bed.host_ip();
    bed.stop().unwrap();
    assert_eq!(leftovers(ip, "nodes"), Vec::<String>::new());
}

#[test]
fn nodes_and_pods_can_have_addresses_of_both_families() {
    if !skip_unless_possible("two nodes with addresses of both families") {
        return;
    }
    let builder = Bed::builder()
        .name("nodes-both")
        .nodes(2)
        .addresses(Addresses::Both);
    let bed = builder.start().unwrap();
    let pods = run_web(
        &bed,
        &WORKLOAD.replace("--address=0.0.0.0", "'--address=[::]'"),
    );
    for pod in &pods {
        assert!(pod.ip.is_ipv6());
        let second = second_ip(&bed, &pod.name);
        assert!(second.is_ipv4());
        eventually("the other address answers", 60, || {
            get(second, 8080).map(|name| assert_eq!(name, pod.name))
        });
    }
    everybody_reaches_whom_a_pod_may_count_on(&bed, &pods);

    let ip = bed.host_ip();
    bed.stop().unwrap();
    assert_eq!(leftovers(ip, "nodes-both"), Vec::<String>::new());
}

/// With `make test-full`: what enforces policies takes a minute to build.
#[test]
fn default_deny_policy_cuts_pods_off_until_it_is_removed() {
    let is_full = std::env::var("OTELAGENT_FULL").is_ok_and(|value| value == "1");
    if !is_full || !skip_unless_possible("enforced NetworkPolicies") {
        return;
    }
    let builder = Bed::builder().name("nodes-policies").nodes(2);
    let bed = builder.with_network_policies().start().unwrap();
    let pods = run_web(&bed, WORKLOAD);
    everybody_reaches_whom_a_pod_may_count_on(&bed, &pods);

    apply(&bed, &policy("default-deny", ""));
    until_reached(&bed, &pods, false, false);
    apply(&bed, &policy("among-web", AMONG_WEB));
    until_reached(&bed, &pods, true, false);
    let policies = ["delete", "networkpolicies", "--all", "--namespace=default"];
    output(bed.kubectl().args(policies)).unwrap();
    until_reached(&bed, &pods, true, true);
    everybody_reaches_whom_a_pod_may_count_on(&bed, &pods);

    let ip = bed.host_ip();
    bed.stop().unwrap();
    assert_eq!(leftovers(ip, "nodes-policies"), Vec::<String>::new());
}

/// Rules that open the port of the workload for the workload itself.
const AMONG_WEB: &str = "
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]
  egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 8080}]}]";

/// A policy for all pods of the namespace, which closes everything but what its rules open.
fn policy(name: &str, rules: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: default}}
spec:
  podSelector: {{}}
  policyTypes: [Ingress, Egress]{rules}
"
    )
}

/// Waits until pods of the two nodes reach each other, and the caller them, or until they are refused.
fn until_reached(bed: &Bed, pods: &[Web], each_other: bool, by_caller: bool) {
    let check = |who: &str, answer: Result<String, String>, expected: bool| match answer {
        Ok(_) if expected => Ok(()),
        Err(why) if !expected && why.contains("refused") => Ok(()),
        other => Err(format!("{who}: {other:?}")),
    };
    for (from, to) in [(0, 1), (1, 0)] {
        let address = SocketAddr::from((pods[to].ip, 8080));
        eventually("a pod reaches the other, or does not", 60, || {
            let answer = get_from_pod(bed, &pods[from], &format!("http://{address}"));
            check("from the other pod", answer, each_other)
        });
        eventually("the caller reaches a pod, or does not", 60, || {
            check("from the caller", get(pods[to].ip, 8080), by_caller)
        });
    }
}

fn everybody_reaches_whom_a_pod_may_count_on(bed: &Bed, pods: &[Web]) {
    each_node_has_a_pod_reachable_from_here(pods);
    host_ports_lead_to_the_nodes_own_pod(bed, pods);
    names_and_services_work_in_a_pod(bed, pods);
    unknown_names_fail_at_once(bed, pods);
    a_pod_reaches_the_api_server(bed, pods);
    a_pod_reaches_the_caller(bed, pods);
}

/// Runs the workload on every node.
fn run_web(bed: &Bed, workload: &str) -> Vec<Web> {
    let image = image();
    bed.load_image(&image).unwrap();
    std::fs::remove_file(image).unwrap();
    apply(bed, workload);
    rolled_out(bed);
    pods(bed)
}

fn image() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("testbed-nodes-{}-{number}.tar", std::process::id());
    let tar = std::env::temp_dir().join(name);
    let spec = ImageSpec {
        name: "bed.local/kubectl:1".to_owned(),
        entrypoint: vec!["/bin/kubectl".to_owned()],
        files: vec![(
            parts::ensure(Part::Kubectl).unwrap(),
            "/bin/kubectl".to_owned(),
        )],
        ..ImageSpec::default()
    };
    spec.write(&tar).unwrap();
    tar
}

fn apply(bed: &Bed, manifest: &str) {
    let mut kubectl = bed
        .kubectl()
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    kubectl
        .stdin
        .take()
        .unwrap()
        .write_all(manifest.as_bytes())
        .unwrap();
    assert!(kubectl.wait().unwrap().success());
}

fn rolled_out(bed: &Bed) {
    output(
        bed.kubectl()
            .args(["rollout", "status", "daemonset/web", "--timeout=60s"]),
    )
    .unwrap();
}

fn pods(bed: &Bed) -> Vec<Web> {
    let columns =
        "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP}{\"\\n\"}{end}";
    let text = output(
        bed.kubectl()
            .args(["get", "pods", "-l", "app=web", "-o", columns]),
    )
    .unwrap();
    let web = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        Web {
            name: words[0].to_owned(),
            node: words[1].to_owned(),
            ip: words[2].parse().unwrap(),
        }
    };
    text.lines().map(web).collect()
}

fn second_ip(bed: &Bed, pod: &str) -> IpAddr {
    let second = "jsonpath={.status.podIPs[1].ip}";
    let ip = output(bed.kubectl().args(["get", "pod", pod, "-o", second])).unwrap();
    ip.parse().unwrap()
}

/// The body a plain HTTP server answers with.
fn get(ip: IpAddr, port: u16) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    let limit = Duration::from_secs(10);
    let mut stream = TcpStream::connect_timeout(&(ip, port).into(), limit).map_err(text)?;
    stream.set_read_timeout(Some(limit)).map_err(text)?;
    write!(stream, "GET /name HTTP/1.0\r\nHost: localhost\r\n\r\n").map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    answer
        .rsplit("\r\n\r\n")
        .next()
        .map(str::to_owned)
        .ok_or(answer)
}

/// What kubectl, run in a pod as an HTTP client, gets from a server.
fn get_from_pod(bed: &Bed, pod: &Web, server: &str) -> Result<String, String> {
    let server = format!("--server={server}");
    output(bed.kubectl().args([
        "exec",
        &pod.name,
        "--",
        "/bin/kubectl",
        &server,
        "get",
        "--raw",
        "/name",
    ]))
}

fn each_node_has_a_pod_reachable_from_here(pods: &[Web]) {
    let mut nodes: Vec<&str> = pods.iter().map(|pod| pod.node.as_str()).collect();
    nodes.sort_unstable();
    assert_eq!(nodes, ["node1", "node2"]);
    for pod in pods {
        eventually("a pod answers", 60, || {
            get(pod.ip, 8080).map(|name| assert_eq!(name, pod.name))
        });
    }
}

fn host_ports_lead_to_the_nodes_own_pod(bed: &Bed, pods: &[Web]) {
    for (number, node) in (1..).zip(bed.node_names()) {
        let own = pods.iter().find(|pod| pod.node == node).unwrap();
        assert_eq!(get(bed.node_ip(number), 4317).unwrap(), own.name);
    }
    // From a pod to its own node, which is how an application finds its agent.
    let own_node = bed.node_ip(if pods[0].node == "node1" { 1 } else { 2 });
    let own_node = format!("http://{}", SocketAddr::from((own_node, 4317)));
    assert_eq!(
        get_from_pod(bed, &pods[0], &own_node).unwrap(),
        pods[0].name
    );
}

fn names_and_services_work_in_a_pod(bed: &Bed, pods: &[Web]) {
    let servers = [
        "http://web",
        "http://web.default.svc.cluster.local",
        "http://web-headless.default:8080",
    ];
    for server in servers {
        for pod in pods {
            eventually(server, 60, || {
                let name = get_from_pod(bed, pod, server)?;
                assert!(pods.iter().any(|pod| pod.name == name), "{name}");
                Ok(())
            });
        }
    }
}

fn unknown_names_fail_at_once(bed: &Bed, pods: &[Web]) {
    for server in [
        "http://nonesuch",
        "http://nonesuch.default.svc.cluster.local",
        "http://www.example.com",
    ] {
        // A query that is not answered takes five seconds, every time.
        let fails_at_once = || {
            let begun = Instant::now();
            let error = get_from_pod(bed, &pods[0], server).unwrap_err();
            assert!(error.contains("no such host"), "{error}");
            begun.elapsed() < Duration::from_secs(5)
        };
        // A busy machine may be slow, too, but not every time.
        assert!((0..20).any(|_| fails_at_once()), "{server} is waited for");
    }
}

/// By its name in the cluster and the CA that every pod is given.
fn a_pod_reaches_the_api_server(bed: &Bed, pods: &[Web]) {
    for pod in pods {
        let who = ["exec", &pod.name, "--", "/bin/kubectl", "auth", "whoami"];
        let answer = output(bed.kubectl().args(who)).unwrap();
        assert!(
            answer.contains("system:serviceaccount:default:default"),
            "{answer}"
        );
    }
}

fn a_pod_reaches_the_caller(bed: &Bed, pods: &[Web]) {
    let listener = std::net::TcpListener::bind((bed.host_ip(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhere").unwrap();
    });
    let url = format!("http://{}", SocketAddr::from((bed.host_ip(), port)));
    assert_eq!(get_from_pod(bed, &pods[0], &url).unwrap(), "here");
    server.join().unwrap();
}

fn logs_and_port_forward_work(bed: &Bed, pods: &[Web]) {
    assert!(
        output(bed.kubectl().args(["logs", &pods[0].name]))
            .unwrap()
            .contains("Starting to serve")
    );
    let pod = format!("pod/{}", pods[1].name);
    let mut forward = bed
        .kubectl()
        .args(["port-forward", &pod, "18080:8080"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the forwarded port answers", 60, || {
        get(Ipv4Addr::LOCALHOST.into(), 18080).map(|name| assert_eq!(name, pods[1].name))
    });
    forward.kill().unwrap();
    forward.wait().unwrap();
}

fn a_killed_kubelet_comes_back(bed: &Bed) {
    bed.kill_process(Component::Kubelet(1)).unwrap();
    assert!(!bed.is_running(Component::Kubelet(1)));
    bed.start_process(Component::Kubelet(1)).unwrap();
    eventually("the kubelet serves again", 60, || {
        output(
            bed.kubectl()
                .args(["get", "--raw", "/api/v1/nodes/node1/proxy/healthz"]),
        )
        .map(drop)
    });
}

fn a_node_dies_and_boots(bed: &Bed, pods: &[Web]) {
    let lost = pods.iter().find(|pod| pod.node == "node2").unwrap();
    bed.stop_node(2).unwrap();
    assert!(get(lost.ip, 8080).is_err());
    assert!(!bed.is_running(Component::Kubelet(2)));
    assert!(bed.is_running(Component::Kubelet(1)));
    bed.start_node(2).unwrap();
    eventually("the node's pod runs again", 60, || {
        let answer = get(bed.node_ip(2), 4317)?;
        if answer == lost.name {
            Ok(())
        } else {
            Err(answer)
        }
    });
}
