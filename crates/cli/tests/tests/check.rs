//! The answer of `check`.

use insta::assert_snapshot;
use k8s_openapi::jiff::Timestamp;
use otelagent_cli::args::Output;
use otelagent_cli::check::{
    Access, CheckReport, Facts, Holder, Needed, PortsOfPod, installed, prepared, view,
};
use otelagent_cli::error::Right;
use otelagent_cli::snapshot::Snapshot;
use otelagent_core::build::{Choice, ServerVersion};
use otelagent_webhook::issue::issuer;
use serde_json::{Value, json};
use std::time::Duration;

use crate::bed::{Bed, terminal};
use crate::document::is_documented;
use crate::status::{SPEC, settled};

fn now() -> Timestamp {
    "2026-12-01T12:00:00Z".parse().unwrap()
}

fn own_crd() -> Value {
    serde_saphyr::from_str(&otelagent_api::crd_yaml().unwrap()).unwrap()
}

fn text(items: Vec<otelagent_cli::check::CheckLine>) -> String {
    let report = CheckReport { items };
    terminal(100, Output::Text)
        .render("Check", &report, view)
        .unwrap()
}

fn right(verb: &'static str, resource: &str) -> Right {
    Right {
        verb,
        resource: resource.into(),
        namespace: None,
    }
}

fn node(os: &str, arch: &str) -> (std::collections::BTreeMap<String, String>, String) {
    let labels = [("kubernetes.io/os", os), ("kubernetes.io/arch", arch)];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    (labels.into(), "v1.37.2".into())
}

fn server(minor: u32) -> ServerVersion {
    ServerVersion { major: 1, minor }
}

/// A whole installation with one `OtelAgent` that does what it should.
fn whole() -> Facts {
    let mut bed = Bed::new();
    let yaml = format!("{SPEC}{}", settled("NodeLocal", 3));
    bed.agent("otelagent-system", "node-agent", &yaml);
    let mut snapshot: Snapshot = bed.snapshot;
    snapshot.installation.version = Some(env!("CARGO_PKG_VERSION").into());
    snapshot.installation.replicas = Some((2, 2));
    let canary = snapshot.installation.canary_namespace.clone();
    snapshot
        .namespaces
        .as_mut()
        .unwrap()
        .insert(canary, [].into());
    let mut crd = own_crd();
    crd["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
    Facts {
        now: now(),
        server: Some(server(37)),
        offers_policies: true,
        nodes: Access::Found(vec![node("linux", "amd64"), node("linux", "arm64")]),
        crd: Access::Found(crd),
        rights: vec![Needed {
            right: right("list", "pods"),
            is_granted: true,
        }],
        ports: Access::Found(Vec::new()),
        snapshot,
        holder: Access::Found(Holder {
            name: "otelagent-operator-7d9f-abc".into(),
            renewed: Some(now()),
            seconds: 15,
        }),
        owner: Access::Found(()),
        ..Facts::default()
    }
}

fn of(facts: &Facts) -> String {
    let mut lines = prepared(facts, Choice::Auto);
    lines.extend(installed(facts, &own_crd()));
    text(lines)
}

#[test]
fn whole_installation_has_no_line_to_look_at() {
    let facts = whole();
    let mut items = prepared(&facts, Choice::Auto);
    items.extend(installed(&facts, &own_crd()));
    let report = CheckReport { items };
    assert!(report.is_as_wished());
    assert_snapshot!(of(&facts));
}

#[test]
fn cluster_that_cannot_have_it_is_told_why_before_an_installation() {
    let taken = PortsOfPod {
        namespace: "monitoring".into(),
        name: "collector-x".into(),
        node: "n1".into(),
        is_agent: false,
        ports: [4317].into(),
    };
    let facts = Facts {
        server: Some(server(32)),
        nodes: Access::Found(vec![node("linux", "s390x"), node("windows", "amd64")]),
        ports: Access::Found(vec![taken]),
        rights: vec![Needed {
            right: right("create", "clusterroles.rbac.authorization.k8s.io"),
            is_granted: false,
        }],
        ..Facts::default()
    };
    let items = prepared(&facts, Choice::Auto);
    is_documented(
        "Check",
        &CheckReport {
            items: items.clone(),
        },
    );
    assert_snapshot!(text(items));
}

#[test]
fn broken_installation_is_told_line_by_line_with_what_to_do() {
    let mut facts = whole();
    facts.server = Some(server(35));
    facts.offers_policies = false;
    let Access::Found(crd) = &mut facts.crd else {
        panic!("a CRD");
    };
    let status =
        crd.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/status/properties");
    status.unwrap().as_object_mut().unwrap().remove("delivery");
    facts.snapshot.installation.version = Some("0.0.9".into());
    facts.snapshot.installation.replicas = Some((0, 2));
    facts.snapshot.namespaces = Some([].into());
    facts.holder = Access::Found(Holder {
        name: "gone".into(),
        renewed: Some("2026-12-01T11:00:00Z".parse().unwrap()),
        seconds: 15,
    });
    facts.owner = Access::Absent;
    facts.webhook = Access::Found((0, 2));
    let days = |days: u64| Duration::from_hours(24 * days);
    let made = "2026-11-01T12:00:00Z".parse().unwrap();
    facts.trusted = Access::Found(issuer(made, days(37)).unwrap().certificate);
    let mut bed = Bed::new();
    let yaml = format!("{SPEC}{}", settled("HostPort", 3).replace(
        "{type: Delivering, status: 'True', reason: Delivering, message: as it should be,",
        "{type: Delivering, status: 'False', reason: DeliveryFails, message: 3 of 3 agents do not deliver,",
    ))
    .replace("mode: NodeLocal", "mode: HostPort");
    bed.agent("otelagent-system", "on-host", &yaml);
    bed.agent("shop", "new", SPEC);
    facts.snapshot.agents = bed.snapshot.agents;
    facts.ports = Access::Found(vec![PortsOfPod {
        namespace: "monitoring".into(),
        name: "collector-x".into(),
        node: "n1".into(),
        is_agent: false,
        ports: [4318].into(),
    }]);
    assert_snapshot!(of(&facts));
}

#[test]
fn what_may_not_be_read_is_unknown_and_no_fault() {
    let mut facts = Facts {
        now: now(),
        server: Some(server(37)),
        offers_policies: true,
        nodes: Access::Denied(right("list", "nodes")),
        crd: Access::Denied(right(
            "get",
            "customresourcedefinitions.apiextensions.k8s.io",
        )),
        ports: Access::Denied(right("list", "pods")),
        holder: Access::Denied(right("get", "leases.coordination.k8s.io")),
        owner: Access::Denied(right("get", "clusterroles.rbac.authorization.k8s.io")),
        ..Facts::default()
    };
    facts
        .snapshot
        .missing
        .insert(right("list", "deployments.apps"));
    let mut items = prepared(&facts, Choice::Auto);
    items.extend(installed(&facts, &own_crd()));
    assert!(CheckReport { items }.is_as_wished());
    assert_snapshot!(of(&facts));
}
