//! The answer of `status`.

use insta::assert_snapshot;
use otelagent_api::Mode;
use otelagent_cli::args::Output;
use otelagent_cli::error::Right;
use otelagent_cli::output::Terminal;
use otelagent_cli::status::{StatusReport, assemble, view};
use serde_json::json;

use crate::bed::{App, Bed, terminal};
use crate::document::is_documented;

fn shown(report: &StatusReport, terminal: Terminal) -> String {
    let is_whole = terminal.style.whole;
    terminal
        .render("Status", report, |report| view(report, is_whole))
        .unwrap()
}

fn answer(bed: &Bed) -> StatusReport {
    assemble(&bed.snapshot, &bed.all())
}

fn text(bed: &Bed, width: usize) -> String {
    shown(&answer(bed), terminal(width, Output::Text))
}

/// A status of all good conditions, and the counts of one mode.
pub(crate) fn settled(mode: &str, pods: i32) -> String {
    let condition = |type_: &str, status: &str, reason: &str| {
        format!(
            "{{type: {type_}, status: '{status}', reason: {reason}, message: as it should be, \
             lastTransitionTime: '2026-11-22T10:05:00Z', observedGeneration: 2}}"
        )
    };
    let conditions = [
        condition("Accepted", "True", "Valid"),
        condition("Ready", "True", "Serving"),
        condition("Switching", "False", "Settled"),
        condition("Injected", "True", "Active"),
        condition("Delivering", "True", "Delivering"),
    ];
    format!(
        "status:
  observedGeneration: 2
  mode: {mode}
  endpoint: http://node-agent.otelagent-system.svc:4317
  paths: [{mode}]
  agents: {{desired: 3, ready: 3, updated: 3}}
  pods: {{injected: {pods}, current: {pods}, stale: 0, missed: 0, orphaned: 0, uninjectable: 0, uncovered: 0}}
  delivery: {{asked: 3, delivering: 2, idle: 1, failing: 0, unanswered: 0}}
  conditions: [{}]
",
        conditions.join(", ")
    )
}

pub(crate) const SPEC: &str = "spec:
  mode: NodeLocal
  export: {endpoint: 'http://otel-collector.observability.svc:4317'}
  workloads: {namespaceSelector: {matchLabels: {telemetry: otelagent}}}
";

/// Everything is as it should be.
fn healthy() -> Bed {
    let mut bed = Bed::new();
    let yaml = format!("{SPEC}{}", settled("NodeLocal", 3));
    let key = bed.agent("otelagent-system", "node-agent", &yaml);
    bed.serve(&key, Mode::NodeLocal);
    bed.daemon_set(&key, Mode::NodeLocal, 3);
    for node in ["n1", "n2", "n3"] {
        bed.agent_pod(&key, Mode::NodeLocal, node, None);
        let labels = bed.injected(&key, Mode::NodeLocal, true);
        bed.app(&App {
            node,
            labels,
            ..App::of("cart")
        });
    }
    bed
}

/// The status of a switch under way, with an upstream that refuses.
const TROUBLED: &str = "status:
  observedGeneration: 2
  mode: NodeLocal
  endpoint: http://node-agent.otelagent-system.svc:4317
  paths: [HostPort, NodeLocal]
  agents: {desired: 3, ready: 2, updated: 2}
  pods: {injected: 5, current: 2, stale: 2, missed: 5, orphaned: 1, uninjectable: 2, uncovered: 1, byMode: {NodeLocal: 4}}
  delivery: {asked: 2, delivering: 1, idle: 0, failing: 1, unanswered: 0}
  conditions:
  - {type: Accepted, status: 'True', reason: Valid, message: the spec is valid, lastTransitionTime: '2026-11-22T10:05:00Z'}
  - type: Ready
    status: 'False'
    reason: AgentsNotReady
    message: 'node n2: agent node-agent-node-local-n2 (ImagePullBackOff) is not ready'
    lastTransitionTime: '2026-11-22T10:05:00Z'
  - type: Switching
    status: 'True'
    reason: OldRouteInUse
    message: '1 of 5 pods still use HostPort (StatefulSet shop/till: 1)'
    lastTransitionTime: '2026-11-22T10:05:00Z'
  - type: Delivering
    status: 'False'
    reason: DeliveryFails
    message: '1 of 2 agents do not deliver: HTTP status 401: the upstream does not accept the token (node n3)'
    lastTransitionTime: '2026-11-22T10:05:00Z'
";

/// A switch under way, an agent that does not start, and pods of every kind.
fn troubled() -> Bed {
    let mut bed = Bed::new();
    let yaml = format!("{SPEC}{TROUBLED}");
    let key = bed.agent("otelagent-system", "node-agent", &yaml);
    bed.serve(&key, Mode::NodeLocal);
    for mode in [Mode::NodeLocal, Mode::HostPort] {
        bed.daemon_set(&key, mode, 3);
        bed.agent_pod(&key, mode, "n1", None);
        bed.agent_pod(&key, mode, "n3", None);
    }
    bed.agent_pod(&key, Mode::NodeLocal, "n2", Some("ImagePullBackOff"));
    bed.agent_pod(&key, Mode::HostPort, "n2", None);
    let present = bed.injected(&key, Mode::NodeLocal, true);
    let older = bed.injected(&key, Mode::NodeLocal, false);
    let before = bed.injected(&key, Mode::HostPort, true);
    let gone = json!({"otelagent.dev/agent": "otelagent-system.gone"});
    let on_host = json!({"hostNetwork": true});
    for app in [
        App {
            labels: present.clone(),
            ..App::of("cart")
        },
        App {
            labels: older,
            ..App::of("cart")
        },
        App {
            labels: present,
            node: "n2",
            ..App::of("lonely")
        },
        App {
            labels: before,
            ..App::of("till")
        },
        App {
            spec: on_host.clone(),
            ..App::of("cni")
        },
        App {
            spec: on_host,
            ..App::of("cni")
        },
        App {
            kind: "Pod",
            ..App::of("one-off")
        },
        App {
            labels: gone,
            ..App::of("orphan")
        },
    ] {
        bed.app(&app);
    }
    bed
}

#[test]
fn healthy_otelagent_is_shown_in_a_few_lines_and_is_as_wished() {
    let bed = healthy();
    assert!(answer(&bed).is_as_wished());
    assert_snapshot!(text(&bed, 80));
}

#[test]
fn troubled_otelagent_is_shown_with_what_is_wrong_at_80_columns() {
    let mut bed = troubled();
    let long = "older-than-the-injection-and-with-a-name-that-is-as-long-as-they-get";
    bed.app(&App::of(long));
    assert!(!answer(&bed).is_as_wished());
    let text = text(&bed, 80);
    let is_short = |line: &str| line.chars().count() <= 80;
    assert!(text.lines().all(is_short), "{text}");
    assert_snapshot!(text);
}

/// The page shows what the program shows.
#[test]
fn documentation_has_the_text_of_a_troubled_otelagent() {
    let page = otelagent_test_support::manifests::text("docs/cli.md");
    let text = text(&troubled(), 100);
    assert!(page.contains(&format!("```text\n{text}```")), "{text}");
}

#[test]
fn troubled_otelagent_is_shown_at_120_columns() {
    assert_snapshot!(text(&troubled(), 120));
}

#[test]
fn colours_are_a_second_sign_of_what_the_text_says() {
    let mut coloured = terminal(100, Output::Text);
    coloured.style.colour = true;
    let shown = shown(&answer(&troubled()), coloured);
    let plain = text(&troubled(), 100);
    let mut without = shown.clone();
    for code in ["0", "1", "2", "31", "32", "33"] {
        without = without.replace(&format!("\x1b[{code}m"), "");
    }
    assert_eq!(without, plain);
    assert_snapshot!(shown.replace('\x1b', "␛"));
}

#[test]
fn document_has_everything_and_its_version() {
    let report = answer(&troubled());
    assert_snapshot!(shown(&report, terminal(80, Output::Yaml)));
    let json: serde_json::Value =
        serde_json::from_str(&shown(&report, terminal(80, Output::Json))).unwrap();
    let yaml: serde_json::Value =
        serde_saphyr::from_str(&shown(&report, terminal(80, Output::Yaml))).unwrap();
    assert_eq!(json, yaml);
    is_documented("Status", &report);
}

/// A thousand nodes of which some are not as they should be.
fn large(unready: usize) -> Bed {
    let mut bed = Bed::new();
    bed.snapshot.nodes.as_mut().unwrap().clear();
    let yaml = format!("{SPEC}{}", settled("NodeLocal", 0));
    let key = bed.agent("otelagent-system", "node-agent", &yaml);
    bed.serve(&key, Mode::NodeLocal);
    bed.daemon_set(&key, Mode::NodeLocal, 1000);
    for number in 0..1000 {
        let node = format!("node-{number:04}");
        bed.node(&node, true);
        let waits = (number % 7 == 3 && number / 7 < unready).then_some("CrashLoopBackOff");
        bed.agent_pod(&key, Mode::NodeLocal, &node, waits);
    }
    let labels = bed.injected(&key, Mode::NodeLocal, true);
    for number in 0..40 {
        let owner = format!("app-{number:02}");
        bed.app(&App {
            labels: labels.clone(),
            node: "node-0001",
            ..App::of(&owner)
        });
    }
    bed
}

#[test]
fn thousand_nodes_are_folded_to_those_that_need_attention() {
    assert_snapshot!(text(&large(3), 80));
}

#[test]
fn more_unready_nodes_than_fit_are_counted() {
    assert_snapshot!(text(&large(25), 80));
    let whole = shown(&answer(&large(25)), terminal(80, Output::Wide));
    assert_eq!(whole.matches("CrashLoopBackOff").count(), 25);
    assert!(whole.lines().count() > 1000);
}

#[test]
fn namespaces_are_folded_to_those_that_need_attention() {
    let mut bed = healthy();
    let key = ("otelagent-system".to_owned(), "node-agent".to_owned());
    let selected = bed.snapshot.namespaces.as_ref().unwrap()["shop"].clone();
    let of_team = |bed: &mut Bed, team: usize, is_present: bool| {
        let namespace = format!("team-{team:02}");
        let namespaces = bed.snapshot.namespaces.as_mut().unwrap();
        namespaces.insert(namespace.clone(), selected.clone());
        bed.app(&App {
            namespace: &namespace,
            labels: bed.injected(&key, Mode::NodeLocal, is_present),
            ..App::of("app")
        });
    };
    (1..12).for_each(|team| of_team(&mut bed, team, true));
    let whole = text(&bed, 80);
    assert!(
        whole.ends_with("  12 namespaces, all as they should be\n"),
        "{whole}"
    );
    of_team(&mut bed, 12, false);
    assert_snapshot!(text(&bed, 80));
    let wide = shown(&answer(&bed), terminal(80, Output::Wide));
    assert_eq!(wide.matches("namespace team-").count(), 12);
}

#[test]
fn what_an_older_operator_does_not_report_is_unknown() {
    let mut bed = Bed::new();
    let yaml = format!(
        "{SPEC}status: {{observedGeneration: 1, pods: {{injected: 1, current: 1, stale: 0, missed: 0}}}}"
    );
    bed.agent("otelagent-system", "node-agent", &yaml);
    assert!(!answer(&bed).is_as_wished());
    assert_snapshot!(text(&bed, 80));
}

#[test]
fn object_that_cannot_be_read_is_shown_with_the_reason() {
    let mut bed = Bed::new();
    bed.agent("shop", "newer", &SPEC.replace("NodeLocal", "FromTheFuture"));
    assert!(!answer(&bed).is_as_wished());
    assert_snapshot!(text(&bed, 80));
}

fn right(resource: &str) -> Right {
    Right {
        verb: "list",
        resource: resource.into(),
        namespace: None,
    }
}

#[test]
fn missing_rights_are_named_with_what_they_hide() {
    let mut bed = troubled();
    bed.snapshot.nodes = None;
    bed.snapshot.active = None;
    bed.snapshot.namespaces = None;
    bed.snapshot.installation.is_known = false;
    bed.snapshot.missing = [
        "nodes",
        "namespaces",
        "mutatingadmissionpolicybindings.admissionregistration.k8s.io",
    ]
    .map(right)
    .into();
    assert_snapshot!(text(&bed, 100));
}

#[test]
fn recipe_is_known_without_bindings_where_the_operator_counts_the_same() {
    let mut bed = healthy();
    bed.snapshot.active = None;
    let report = answer(&bed);
    assert_eq!(report.items[0].namespaces[0].workloads[0].current, Some(3));
    let mut differs = healthy();
    differs.snapshot.active = None;
    let labels = json!({"otelagent.dev/agent": "otelagent-system.node-agent", "otelagent.dev/mode": "NodeLocal"});
    differs.app(&App {
        labels,
        ..App::of("cart")
    });
    assert_eq!(
        answer(&differs).items[0].namespaces[0].workloads[0].current,
        None
    );
}

#[test]
fn pods_that_an_older_otelagent_takes_are_not_missed_by_the_younger() {
    let mut bed = Bed::new();
    let of = |mode: &str| {
        format!("spec: {{mode: {mode}, export: {{endpoint: 'http://c:4317'}}, workloads: {{}}}}")
    };
    let older = bed.agent("shop", "a-side", &of("Sidecar"));
    bed.agent("shop", "b-side", &of("Sidecar"));
    bed.serve(&older, Mode::Sidecar);
    bed.app(&App::of("cart"));
    let report = answer(&bed);
    let missed = |at: usize| -> usize {
        let namespaces = report.items[at].namespaces.iter();
        let workloads = namespaces.flat_map(|namespace| &namespace.workloads);
        workloads.map(|workload| workload.missed).sum()
    };
    assert_eq!((missed(0), missed(1)), (1, 0));
}

#[test]
fn names_and_messages_never_steer_the_terminal() {
    let mut bed = Bed::new();
    let yaml = format!(
        "{SPEC}status:
  observedGeneration: 2
  endpoint: \"a\\e[2Jb\"
  conditions:
  - {{type: \"Re\\e]0;owned\\aady\", status: 'False', reason: \"X\\u202e\", message: \"\\e[31mred\\n\\u009b5m\", lastTransitionTime: '2026-11-22T10:05:00Z'}}
"
    );
    let key = bed.agent("otelagent-system", "node-agent", &yaml);
    let labels = bed.injected(&key, Mode::NodeLocal, false);
    bed.app(&App {
        labels,
        ..App::of("cart\u{1b}[2J\u{7f}")
    });
    let report = answer(&bed);
    for output in [Output::Text, Output::Wide, Output::Json, Output::Yaml] {
        let shown = shown(&report, terminal(80, output));
        let steers = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!shown.contains(steers), "{shown:?}");
    }
    let yaml: serde_json::Value =
        serde_saphyr::from_str(&shown(&report, terminal(80, Output::Yaml))).unwrap();
    assert_eq!(yaml["items"][0]["endpoint"], "a\u{1b}[2Jb");
}
