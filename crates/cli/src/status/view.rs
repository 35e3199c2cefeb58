//! The answer of `status` as text.

use std::fmt::Write;

use otelagent_api::{AgentCounts, DeliveryCounts, Mode, PodCounts, RestartCounts};

use super::report::{
    AgentPodReport, AgentReport, AgentWorkloadReport, NamespaceReport, NodeReport, StatusReport,
    WorkloadReport,
};
use crate::text::{Column, Line, Page, Span, Table, bad, dim, good, plain, strong, warn};

/// How many nodes of a workload, namespaces, and workloads of a namespace are shown without `-o wide`.
const SHOWN: usize = 10;
/// The sign of what is not known.
const UNKNOWN: &str = "-";

/// The text. `is_whole` folds nothing.
pub fn view(report: &StatusReport, is_whole: bool) -> Page {
    let mut page = Page::default();
    for (at, item) in report.items.iter().enumerate() {
        if at > 0 {
            page.blank();
        }
        page.append(of_agent(item, is_whole));
    }
    for note in &report.notes {
        page.blank();
        page.line(Line::behind("", [warn("! ")], [plain(note)]));
    }
    page
}

fn sign(is_as_wished: bool) -> Span {
    if is_as_wished {
        good("✓ ")
    } else {
        bad("✗ ")
    }
}

fn of_agent(item: &AgentReport, is_whole: bool) -> Page {
    let mut page = Page::default();
    let name = format!("OtelAgent {}/{}", item.namespace, item.name);
    page.text([sign(item.is_as_wished), strong(name)]);
    if let Some(why) = &item.unreadable {
        page.line(field("object", [bad(format!("it cannot be read: {why}"))]));
        return page;
    }
    if !item.is_observed {
        let text =
            "the operator has not seen the present spec yet; what follows is of an earlier one";
        page.line(field("spec", [warn(text)]));
    }
    page.line(field("mode", [plain(mode(item))]));
    let text = |text: &Option<String>| plain(text.as_deref().unwrap_or("unknown"));
    page.line(field("endpoint", [text(&item.endpoint)]));
    page.line(field("upstream", [text(&item.upstream)]));
    page.line(field("agents", [plain(agents(item.agents.as_ref()))]));
    page.line(field("pods", [plain(pods(item.pods.as_ref()))]));
    page.line(field("delivery", [plain(delivery(item.delivery.as_ref()))]));
    if let Some(counts) = &item.restarts {
        page.line(field("restarts", [plain(restarts(counts))]));
    }
    for condition in item.conditions.iter().filter(|one| !one.is_as_wished) {
        let head = format!("{} {}", condition.type_, condition.status);
        let text = format!(" ({}): {}", condition.reason, condition.message);
        page.line(Line::behind("  ", [bad("✗ ")], [strong(head), plain(text)]));
    }
    for (at, workload) in item.agent_workloads.iter().enumerate() {
        let is_last = at + 1 == item.agent_workloads.len();
        agent_workload(&mut page, workload, is_last, is_whole);
    }
    of_namespaces(&mut page, &item.namespaces, is_whole);
    page
}

fn of_namespaces(page: &mut Page, namespaces: &[NamespaceReport], is_whole: bool) {
    let shown = if is_whole {
        namespaces.len()
    } else {
        fold(namespaces, NamespaceReport::is_as_wished)
    };
    let (first, rest) = namespaces.split_at(shown);
    for namespace in first {
        of_namespace(page, namespace, is_whole);
    }
    if !rest.is_empty() {
        let (and, more) = if first.is_empty() {
            ("", "")
        } else {
            ("and ", " more")
        };
        let what = format!("{and}{}{more} namespaces", rest.len());
        let text = rest_of(&what, rest, NamespaceReport::is_as_wished);
        page.text([dim(format!("  {text}"))]);
    }
}

/// What is said of items that are not shown.
fn rest_of<T>(what: &str, rest: &[T], is_as_wished: impl Fn(&T) -> bool) -> String {
    match rest.iter().filter(|item| !is_as_wished(item)).count() {
        0 => format!("{what}, all as they should be"),
        wanting => format!("{what}, {wanting} not as they should be (-o wide shows them)"),
    }
}

fn field(name: &str, text: impl IntoIterator<Item = Span>) -> Line {
    Line::behind("  ", [dim(format!("{name:<10}"))], text)
}

fn mode(item: &AgentReport) -> String {
    match (item.wanted, item.serving) {
        (Some(wanted), Some(serving)) if wanted == serving => wanted.to_string(),
        (Some(wanted), Some(serving)) => format!("{wanted} is wanted, {serving} serves"),
        (Some(wanted), None) => format!("{wanted} is wanted, none serves"),
        (None, Some(serving)) => format!("{serving} serves"),
        (None, None) => "unknown".into(),
    }
}

fn agents(counts: Option<&AgentCounts>) -> String {
    let Some(counts) = counts else {
        return "unknown".into();
    };
    let AgentCounts {
        desired,
        ready,
        updated,
    } = counts;
    format!("{ready} of {desired} ready, {updated} of the present spec")
}

fn pods(counts: Option<&PodCounts>) -> String {
    let Some(counts) = counts else {
        return "unknown".into();
    };
    let mut text = format!("{} injected", counts.injected);
    let parts = [
        (counts.current, "current"),
        (counts.stale, "stale"),
        (counts.uncovered, "uncovered"),
    ];
    text += &some_of(": ", &parts);
    if counts.missed > 0 {
        // A String takes everything.
        let _ = write!(text, "; {} missed", counts.missed);
        let parts = [
            (counts.orphaned, "orphaned"),
            (counts.uninjectable, "not injectable"),
        ];
        text += &some_of(", of these ", &parts);
    }
    text
}

/// The parts that are not zero.
fn some_of(before: &str, parts: &[(i32, &str)]) -> String {
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if parts.is_empty() {
        String::new()
    } else {
        before.to_owned() + &parts.join(", ")
    }
}

fn delivery(counts: Option<&DeliveryCounts>) -> String {
    let Some(counts) = counts else {
        return "unknown".into();
    };
    let parts = [
        (counts.delivering, "deliver"),
        (counts.idle, "idle"),
        (counts.failing, "failing"),
        (counts.unanswered, "did not answer"),
    ];
    format!("{} agents asked{}", counts.asked, some_of(": ", &parts))
}

fn restarts(counts: &RestartCounts) -> String {
    let parts = [
        (counts.running, "running"),
        (counts.waiting, "waiting"),
        (counts.stuck, "unchanged after a restart"),
        (counts.not_restartable, "left to you"),
    ];
    let text = some_of("", &parts);
    if text.is_empty() {
        "none needed".into()
    } else {
        text
    }
}

fn agent_workload(page: &mut Page, workload: &AgentWorkloadReport, is_last: bool, is_whole: bool) {
    let (branch, below) = if is_last {
        ("  └─ ", "     ")
    } else {
        ("  ├─ ", "  │  ")
    };
    let is_as_wished =
        workload.ready >= workload.desired && workload.nodes.iter().all(|node| node.is_as_wished);
    let what = if workload.mode == Mode::Sidecar {
        "sidecars".to_owned()
    } else {
        format!("{} {}", workload.kind, workload.name)
    };
    let unit = if workload.mode == Mode::Sidecar {
        "pods"
    } else {
        "nodes"
    };
    let text = format!(
        " in mode {}: ready on {} of {} {unit}",
        workload.mode, workload.ready, workload.desired
    );
    let head = [strong(what), plain(text)];
    page.line(Line::branch(branch, below, [sign(is_as_wished)], head));
    let shown = if is_whole {
        workload.nodes.len()
    } else {
        fold(&workload.nodes, |node| node.is_as_wished)
    };
    let (first, rest) = workload.nodes.split_at(shown);
    for (at, node) in first.iter().enumerate() {
        of_node(page, node, below, rest.is_empty() && at + 1 == shown);
    }
    if !rest.is_empty() {
        let text = rest_of_nodes(rest, first.is_empty());
        let is_as_wished = rest.iter().all(|node| node.is_as_wished);
        page.line(Line::behind(
            below,
            [dim("└─ "), sign(is_as_wished)],
            [plain(text)],
        ));
    }
}

/// How many of the items are shown: all if they are few, else those that need attention, of which there may be many.
fn fold<T>(items: &[T], is_as_wished: impl Fn(&T) -> bool) -> usize {
    if items.len() <= SHOWN {
        return items.len();
    }
    let wanting = items.iter().take_while(|item| !is_as_wished(item)).count();
    wanting.min(SHOWN)
}

fn rest_of_nodes(rest: &[NodeReport], is_all: bool) -> String {
    let more = if is_all { "" } else { " more" };
    let wanting = rest.iter().filter(|node| !node.is_as_wished).count();
    let left_out = rest.iter().filter(|node| node.state == "LeftOut").count();
    let ready = rest.len() - wanting - left_out;
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    if wanting == 0 && left_out == 0 {
        return format!("{}{more} nodes, all ready", rest.len());
    }
    let parts = [
        (number(wanting), "not as they should be"),
        (number(ready), "ready"),
        (number(left_out), "left out"),
    ];
    format!(
        "{}{more} nodes{} (-o wide shows them)",
        rest.len(),
        some_of(": ", &parts)
    )
}

fn of_node(page: &mut Page, node: &NodeReport, margin: &str, is_last: bool) {
    let branch = format!("{margin}{}", if is_last { "└─ " } else { "├─ " });
    let below = format!("{margin}{}", if is_last { "   " } else { "│  " });
    let mut text = vec![strong(format!("{} ", node.name)), plain(state(node))];
    if let Some(why) = &node.why {
        text.push(plain(format!(": {why}")));
    }
    let agents: Vec<String> = node.agents.iter().map(agent_pod).collect();
    if !agents.is_empty() {
        text.push(dim(format!("  {}", agents.join(", "))));
    }
    page.line(Line::branch(
        &branch,
        &below,
        [sign(node.is_as_wished)],
        text,
    ));
}

fn state(node: &NodeReport) -> &'static str {
    match node.state {
        "Ready" => "ready",
        "Outdated" => "serves, but its agent is of an older configuration",
        "NotReady" => "no ready agent",
        "Missing" => "no agent",
        "NodeDown" => "the node is not ready",
        "LeftOut" => "left out",
        _ => "unknown",
    }
}

fn agent_pod(agent: &AgentPodReport) -> String {
    let state = match (agent.is_ready, &agent.waits_for) {
        (true, _) if agent.is_updated => "",
        (true, _) => " (older configuration)",
        (false, None) => " (not ready)",
        (false, Some(why)) => return format!("{} ({why})", agent.pod),
    };
    format!("{}{state}", agent.pod)
}

fn of_namespace(page: &mut Page, namespace: &NamespaceReport, is_whole: bool) {
    page.text([plain("  "), strong(format!("namespace {}", namespace.name))]);
    let all = &namespace.workloads;
    let shown = if is_whole || all.len() <= SHOWN {
        all.len()
    } else {
        fold(all, |workload| workload.is_as_wished).max(1)
    };
    let (first, rest) = all.split_at(shown);
    page.table(table(first));
    if !rest.is_empty() {
        let what = format!("and {} more", rest.len());
        let text = rest_of(&what, rest, |workload| workload.is_as_wished);
        page.text([dim(format!("    {text}"))]);
    }
    for workload in first {
        let named = format!("{} {}: ", workload.kind, workload.name);
        for missed in &workload.why_missed {
            let what = if missed.is_orphaned {
                "orphaned"
            } else {
                "missed"
            };
            let text = format!("{} {what}: {}", missed.pods, missed.why);
            page.line(Line::behind(
                "    ",
                [bad("✗ ")],
                [plain(named.clone() + &text)],
            ));
        }
        let is_said = |why: &String| workload.why_missed.iter().any(|missed| missed.why == *why);
        if let Some(why) = workload.why_in_vain.as_ref().filter(|why| !is_said(why)) {
            let text = format!("a restart would not help: {why}");
            page.line(Line::behind("    ", [warn("! ")], [plain(named + &text)]));
        }
    }
}

/// What a column shows of a workload.
type Cell = fn(&WorkloadReport) -> Span;

/// The workloads, without columns of which nothing is to be seen.
fn table(workloads: &[WorkloadReport]) -> Table {
    let any = |of: fn(&WorkloadReport) -> usize| workloads.iter().any(|workload| of(workload) > 0);
    let mut columns: Vec<(Column, Cell)> = vec![
        (Column::text("WORKLOAD"), |workload| {
            plain(format!("{} {}", workload.kind, workload.name))
        }),
        (Column::text("MODE"), |workload| plain(modes(workload))),
        (Column::number("CURRENT"), |workload| {
            known(workload.current)
        }),
        (Column::number("STALE"), |workload| match workload.stale {
            Some(stale) => wrong(stale, warn),
            None => dim(UNKNOWN),
        }),
    ];
    if any(|workload| workload.missed) {
        columns.push((Column::number("MISSED"), |workload| {
            wrong(workload.missed, bad)
        }));
    }
    if any(|workload| workload.uncovered) {
        columns.push((Column::number("UNCOVERED"), |workload| {
            wrong(workload.uncovered, bad)
        }));
    }
    if any(|workload| usize::from(workload.restart.is_some())) {
        columns.push((Column::text("RESTART"), |workload| plain(restart(workload))));
    }
    let mut table = Table::new("    ", columns.iter().map(|(column, _)| *column));
    for workload in workloads {
        table.row(columns.iter().map(|(_, cell)| cell(workload)));
    }
    table
}

fn known(count: Option<usize>) -> Span {
    match count {
        Some(count) => plain(count.to_string()),
        None => dim(UNKNOWN),
    }
}

/// A number that should be zero.
fn wrong(count: usize, tone: fn(String) -> Span) -> Span {
    match count {
        0 => dim("0"),
        some => tone(some.to_string()),
    }
}

fn modes(workload: &WorkloadReport) -> String {
    let modes: Vec<&str> = workload.modes.keys().map(String::as_str).collect();
    if modes.is_empty() {
        UNKNOWN.into()
    } else {
        modes.join(", ")
    }
}

fn restart(workload: &WorkloadReport) -> &'static str {
    match workload.restart {
        Some("Helps") => "helps",
        Some("MayHelp") => "may help",
        Some(_) => "in vain",
        None => "",
    }
}
