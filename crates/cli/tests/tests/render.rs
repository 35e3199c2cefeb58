//! The answers of `render` and `diff`.

use insta::assert_snapshot;
use otelagent_api::OtelAgent;
use otelagent_cli::args::Output;
use otelagent_cli::installation::Installation;
use otelagent_cli::render::{
    Comparison, ProblemReport, Rendered, Rendering, Site, compare, diff_view, render, render_text,
};
use otelagent_core::build::{IpFamily, ServerVersion};

use crate::bed::terminal;
use crate::document::is_documented;

fn agent(yaml: &str) -> OtelAgent {
    let head = "apiVersion: otelagent.dev/v1alpha1\nkind: OtelAgent\nmetadata: {name: agent, namespace: otelagent-system}\n";
    serde_saphyr::from_str(&format!("{head}{yaml}")).unwrap()
}

const NODE_LOCAL: &str = "spec:
  mode: NodeLocal
  export: {endpoint: 'http://otel-collector.observability.svc:4317'}
";

fn rendering(agent: &OtelAgent, minor: u32) -> Rendering {
    let installation = Installation {
        agent_image: "otelagent/agent:test".into(),
        ..Installation::default()
    };
    let server = ServerVersion { major: 1, minor };
    let environment = installation.environment(server, IpFamily::V4);
    let site = Site {
        installation: &installation,
        environment: &environment,
        offers_policies: server.has_policies(),
    };
    Rendering {
        kubernetes: server.to_string(),
        items: vec![render(agent, site, Vec::new())],
    }
}

fn kinds(rendering: &Rendering) -> Vec<String> {
    let objects = rendering.items[0].objects.iter();
    objects.map(|object| object.kind().to_owned()).collect()
}

#[test]
fn otelagent_without_workloads_is_its_agents_and_their_configuration() {
    let text = render_text(&rendering(&agent(NODE_LOCAL), 37)).unwrap();
    // What is in an object is in golden files of its own (tests/pure).
    let is_outline = |line: &&str| {
        ["#", "---", "kind: ", "exporters:", "receivers:"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let outline: Vec<&str> = text.lines().filter(is_outline).collect();
    assert_snapshot!(outline.join("\n"));
    assert!(!text.contains("uid:"), "only a cluster has it");
}

#[test]
fn injection_is_rendered_for_the_engine_that_the_server_has() {
    let selecting = agent(&format!(
        "{NODE_LOCAL}  workloads: {{namespaceSelector: {{}}}}\n"
    ));
    let policies = [
        "DaemonSet",
        "Service",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    assert_eq!(kinds(&rendering(&selecting, 36)), policies);
    let webhook = [
        "DaemonSet",
        "Service",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    assert_eq!(kinds(&rendering(&selecting, 35)), webhook);
}

#[test]
fn spec_that_the_operator_would_refuse_is_rendered_as_its_problems() {
    let refused =
        agent(&NODE_LOCAL.replace("  export", "  nodeLocal: {routing: Prefer}\n  export"));
    let rendering = rendering(&refused, 33);
    assert!(!rendering.is_as_wished());
    is_documented("Rendering", &rendering);
    assert_snapshot!(render_text(&rendering).unwrap());
}

#[test]
fn sidecars_have_their_configuration_too() {
    let side = agent(&NODE_LOCAL.replace("NodeLocal", "Sidecar"));
    let configuration = rendering(&side, 37).items[0]
        .agent_configuration
        .clone()
        .unwrap();
    assert!(
        configuration.contains("otel-collector.observability"),
        "{configuration}"
    );
}

#[test]
fn differences_are_shown_as_unified_diffs() {
    let wanted = rendering(&agent(NODE_LOCAL), 37);
    let live = rendering(
        &agent(&NODE_LOCAL.replace("export:", "ports: {grpc: 5317, http: 5318}\n  export:")),
        37,
    );
    let (wanted, live) = (&wanted.items[0].objects, &live.items[0].objects);
    let service = |all: &[Rendered]| {
        all.iter()
            .find(|object| object.kind() == "Service")
            .unwrap()
            .clone()
    };
    let (wanted, live) = (service(wanted), service(live));
    assert_eq!(compare(Some(&wanted.0), &wanted).unwrap(), None);
    let comparison = Comparison {
        problems: vec![ProblemReport {
            reason: "InvalidValue".into(),
            message: "OtelAgent a/b: too long".into(),
        }],
        items: compare(Some(&live.0), &wanted)
            .unwrap()
            .into_iter()
            .collect(),
        notes: Vec::new(),
    };
    assert!(!comparison.is_as_wished());
    is_documented("Comparison", &comparison);
    assert_snapshot!(
        terminal(80, Output::Text)
            .render("Comparison", &comparison, diff_view)
            .unwrap()
    );
}
