//! The built program: its words, its exit codes, and what it says where it has no answer.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};

/// An API server that gives each path one answer, and refuses all others with 403.
struct Server {
    kubeconfig: PathBuf,
}

impl Server {
    fn start(name: &str, answers: &[(&str, u16, Value)]) -> Self {
        let answers = answers
            .iter()
            .map(|(path, code, body)| ((*path).to_owned(), (*code, body.to_string())));
        let answers: Arc<BTreeMap<String, (u16, String)>> = Arc::new(answers.collect());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = Arc::clone(&answers);
                thread::spawn(move || serve(&stream, &answers));
            }
        });
        Self::at(name, &format!("http://{address}"))
    }

    /// What a kubeconfig says of a server, which need not be there.
    fn at(name: &str, url: &str) -> Self {
        let kubeconfig =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [
                {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
                {"name": "there", "context": {"cluster": "c", "user": "u"}},
            ],
        });
        std::fs::write(&kubeconfig, config.to_string()).unwrap();
        Self { kubeconfig }
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut all = vec!["--kubeconfig", self.kubeconfig.to_str().unwrap()];
        all.extend(words);
        run(&all)
    }
}

/// Answers the requests of one connection.
fn serve(stream: &TcpStream, answers: &BTreeMap<String, (u16, String)>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first).unwrap_or_default() == 0 {
            return;
        }
        let (mut header, mut length) = (first.clone(), 0);
        while !header.trim().is_empty() {
            header.clear();
            if reader.read_line(&mut header).unwrap_or_default() == 0 {
                return;
            }
            let given = header.to_ascii_lowercase();
            let given = given.strip_prefix("content-length:");
            length = given.map_or(length, |given| given.trim().parse().unwrap());
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let target = first.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let forbidden = || {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Forbidden",
                "message": "forbidden: User \"jane\" cannot do that", "code": 403,
            });
            (403, status.to_string())
        };
        let (code, body) = answers.get(path).cloned().unwrap_or_else(forbidden);
        let head = format!(
            "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        if stream.write_all((head + &body).as_bytes()).is_err() {
            return;
        }
    }
}

fn run(words: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-otelagent"));
    program
        .args(words)
        .env_remove("KUBECONFIG")
        .env_remove("NO_COLOR")
        .env_remove("COLUMNS");
    program.env("HOME", env!("CARGO_TARGET_TMPDIR"));
    program.output().unwrap()
}

/// The exit code, and what was written to standard output and to standard error.
fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn list(kind: &str, items: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {"resourceVersion": "7"}, "items": items})
}

fn not_served() -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound",
        "message": "the server could not find the requested resource", "code": 404,
    })
}

const AGENTS: &str = "/apis/otelagent.dev/v1alpha1/otelagents";
const AGENTS_OF_SHOP: &str = "/apis/otelagent.dev/v1alpha1/namespaces/shop/otelagents";

fn version() -> (&'static str, u16, Value) {
    let text = "";
    let version = json!({
        "major": "1", "minor": "37", "gitVersion": text, "gitCommit": text, "gitTreeState": text, "buildDate": text,
        "goVersion": text, "compiler": text, "platform": text,
    });
    ("/version", 200, version)
}

#[test]
fn wrong_words_end_with_2_and_say_what_is_right() {
    for words in [
        &["statu"][..],
        &["status", "--nope"],
        &["status", "a", "b"],
        &["explain"],
        &["explain", "deployment", "cart"],
        &["render"],
        &["render", "-f", "/does/not/exist"],
        &["status", "-A", "-n", "shop"],
        &["status", "-o", "xml"],
        &[],
    ] {
        let (code, _, error) = said(&Server::at("words", "http://127.0.0.1:1").run(words));
        assert_eq!(code, 2, "{words:?}: {error}");
        assert!(!error.is_empty());
    }
    let (code, help, _) = said(&run(&["--help"]));
    assert_eq!(code, 0);
    assert!(
        help.contains("kubectl otelagent") && help.contains("Exit codes"),
        "{help}"
    );
}

#[test]
fn version_of_the_program_needs_no_cluster() {
    let (code, out, _) = said(&run(&["version", "--client"]));
    assert_eq!(
        (code, out.contains(env!("CARGO_PKG_VERSION"))),
        (0, true),
        "{out}"
    );
}

#[test]
fn without_a_kubeconfig_or_with_an_unknown_context_the_program_ends_with_3() {
    let (code, _, error) = said(&run(&["status"]));
    assert_eq!(code, 3);
    assert!(error.starts_with("error: no cluster is known"), "{error}");
    let (code, _, error) =
        said(&Server::at("context", "http://127.0.0.1:1").run(&["status", "--context", "nope"]));
    assert_eq!(code, 3);
    assert!(error.contains("nope"), "{error}");
}

#[test]
fn server_that_cannot_be_reached_is_named_and_ends_with_3() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let (code, _, error) = said(&Server::at("nobody", &url).run(&["status"]));
    assert_eq!(code, 3);
    assert!(
        error.contains(&url) && error.contains("cannot be reached"),
        "{error}"
    );
}

#[test]
fn server_that_never_answers_is_given_up_at_the_time_limit() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let (code, _, error) =
        said(&Server::at("silent", &url).run(&["status", "--request-timeout", "1"]));
    assert_eq!(code, 3);
    assert!(error.contains("did not answer within 1 s"), "{error}");
}

#[test]
fn missing_right_is_named_with_what_to_ask_for() {
    let server = Server::start("forbidden", &[version()]);
    let (code, out, error) = said(&server.run(&["status"]));
    assert_eq!((code, out.as_str()), (3, ""));
    let expected = "error: you may not list otelagents.otelagent.dev in namespace shop; ask for a role with this right, as \
                    kubectl create role NAME -n shop --verb=list --resource=otelagents.otelagent.dev makes it, and for a \
                    binding to it\n";
    assert_eq!(error, expected);
}

#[test]
fn user_who_is_not_known_is_told_to_log_in() {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Unauthorized",
        "message": "Unauthorized", "code": 401,
    });
    let server = Server::start("unauthorized", &[(AGENTS, 401, status)]);
    let (code, _, error) = said(&server.run(&["status"]));
    assert_eq!(code, 3);
    assert!(error.contains("log in"), "{error}");
}

#[test]
fn cluster_without_the_crd_says_that_otelagent_is_not_installed() {
    let server = Server::start("bare", &[(AGENTS, 404, not_served()), version()]);
    let (code, _, error) = said(&server.run(&["status", "-A"]));
    assert_eq!(code, 1);
    assert!(error.contains("otelagent is not installed"), "{error}");
}

fn agent(name: &str) -> Value {
    json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "generation": 1, "creationTimestamp": "2026-11-22T10:00:00Z"},
        "spec": {"mode": "Sidecar", "export": {"endpoint": "http://c.o.svc:4317"}, "workloads": {}},
    })
}

#[test]
fn with_few_rights_the_rest_is_shown_and_the_rights_are_named() {
    let found = list("OtelAgentList", &json!([agent("side")]));
    let server = Server::start("few", &[(AGENTS_OF_SHOP, 200, found), version()]);
    let (code, out, _) = said(&server.run(&["status", "-o", "json"]));
    assert_eq!(code, 1, "it has no status yet");
    let answer: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(answer["kind"], "Status");
    assert_eq!(answer["items"][0]["name"], "side");
    let notes = answer["notes"].to_string();
    for right in [
        "list pods in namespace shop",
        "list nodes in the whole cluster",
        "list deployments.apps",
    ] {
        assert!(notes.contains(right), "{right}: {notes}");
    }
}

#[test]
fn top_names_the_right_by_which_agents_are_asked() {
    let found = list("OtelAgentList", &json!([agent("side")]));
    let pod = json!({
        "metadata": {"name": "cart-1", "namespace": "shop", "labels": {
            "otelagent.dev/agent": "shop.side", "otelagent.dev/mode": "Sidecar", "otelagent.dev/config": "x",
        }},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    });
    let server = Server::start(
        "top",
        &[
            (AGENTS, 200, found),
            version(),
            (
                "/api/v1/namespaces/shop/pods",
                200,
                list("PodList", &json!([pod])),
            ),
        ],
    );
    let (code, _, error) = said(&server.run(&["top"]));
    assert_eq!(code, 3);
    assert!(
        error.contains("you may not get pods/proxy in namespace shop"),
        "{error}"
    );
}

#[test]
fn otelagent_that_does_not_exist_is_told_with_those_that_do() {
    let found = list("OtelAgentList", &json!([agent("side"), agent("other")]));
    let server = Server::start("absent", &[(AGENTS, 200, found), version()]);
    let (code, _, error) = said(&server.run(&["status", "sid"]));
    assert_eq!(code, 1);
    assert_eq!(
        error,
        "error: no OtelAgent sid in namespace shop; there is shop/other, shop/side\n"
    );
}

#[test]
fn namespace_without_otelagents_is_no_fault() {
    let found = list("OtelAgentList", &json!([]));
    let server = Server::start("empty", &[(AGENTS, 200, found), version()]);
    let (code, _, error) = said(&server.run(&["status"]));
    assert_eq!(code, 0);
    assert!(
        error.contains("-A shows those of all namespaces"),
        "{error}"
    );
}

#[test]
fn rendering_needs_no_cluster_and_ends_with_1_if_the_operator_would_refuse() {
    let manifest = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("render.yaml");
    std::fs::write(&manifest, agent("side").to_string()).unwrap();
    let file = manifest.to_str().unwrap();
    let (code, out, error) = said(&run(&["render", "-f", file]));
    assert_eq!(code, 0, "{error}");
    assert!(
        out.starts_with("# OtelAgent shop/side, mode Sidecar, on Kubernetes 1.37\n"),
        "{out}"
    );
    let (code, out, _) = said(&run(&["render", "-f", file, "--kube-version", "1.32"]));
    assert_eq!(code, 1);
    assert!(out.contains("# refused: ServerTooOld"), "{out}");
}

#[test]
fn words_that_are_being_typed_are_completed() {
    let found = list("OtelAgentList", &json!([agent("side"), agent("other")]));
    let server = Server::start("complete", &[(AGENTS_OF_SHOP, 200, found)]);
    let kubeconfig = server.kubeconfig.to_str().unwrap();
    let (code, out, _) = said(&run(&[
        "__complete",
        "--kubeconfig",
        kubeconfig,
        "status",
        "s",
    ]));
    assert_eq!((code, out.as_str()), (0, "side\n:4\n"));
    let (_, out, _) = said(&run(&[
        "__complete",
        "--kubeconfig",
        kubeconfig,
        "--context",
        "",
    ]));
    assert_eq!(out, "here\nthere\n:4\n");
    let (_, out, _) = said(&run(&["__complete", "status", "--wat"]));
    assert!(out.starts_with("--watch\t"), "{out}");
    let (code, out, _) = said(&run(&[
        "__complete",
        "--kubeconfig",
        "/nowhere",
        "status",
        "",
    ]));
    assert_eq!((code, out.as_str()), (0, ":4\n"), "no error in a shell");
}

#[test]
fn check_finds_what_is_missing_and_says_what_to_do() {
    let kinds = json!({"kind": "APIResourceList", "groupVersion": "admissionregistration.k8s.io/v1", "resources": []});
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}, "spec": {},
        "status": {"allowed": false},
    });
    let server = Server::start(
        "check",
        &[
            version(),
            (AGENTS, 404, not_served()),
            ("/apis/admissionregistration.k8s.io/v1", 200, kinds),
            (
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                201,
                review,
            ),
        ],
    );
    let (code, out, error) = said(&server.run(&["check", "--pre"]));
    assert_eq!(code, 0, "{error}");
    assert!(
        out.contains("you may not create deployments.apps in namespace otelagent-system"),
        "{out}"
    );
    assert!(out.contains("needs the webhook"), "{out}");
    let (code, out, error) = said(&server.run(&["check"]));
    assert_eq!(code, 1, "{error}");
    assert!(out.contains("the API server knows no OtelAgents"), "{out}");
    assert!(
        out.contains("the operator's Deployment may not be read"),
        "{out}"
    );
}
