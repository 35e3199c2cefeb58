//! The answer of `top`.

use insta::assert_snapshot;
use otelagent_cli::args::Output;
use otelagent_cli::top::{Figures, Order, Sample, Target, TopReport, assemble, view};

use crate::bed::terminal;
use crate::document::is_documented;

fn target(number: usize, workload: Option<&str>) -> Target {
    Target {
        namespace: if workload.is_some() {
            "shop"
        } else {
            "otelagent-system"
        }
        .into(),
        pod: format!("agent-{number}"),
        node: Some(format!("n{number}")),
        agent: "otelagent-system.node-agent".into(),
        workload: workload.map(str::to_owned),
        port: 8888,
    }
}

fn figures(accepted: f64, lost: f64) -> Figures {
    Figures {
        accepted,
        sent: accepted - lost,
        lost,
        refused: lost * 2.0,
        queued: accepted,
        capacity: 10_000.0,
        cpu: 2.0,
        resident: 4.0 * 1024.0 * 1024.0,
        uptime: 100.0,
        failing: if lost > 0.0 { 61.0 } else { 0.0 },
        senders: [(format!("10.0.0.{accepted}"), (accepted, lost))].into(),
    }
}

fn agents() -> (Vec<Target>, Vec<Sample>) {
    let targets = vec![
        target(1, None),
        target(2, None),
        target(3, Some("Deployment cart")),
        target(4, Some("Deployment cart")),
    ];
    let samples = vec![
        Ok(figures(9000.0, 0.0)),
        Err("no answer within 3 s".into()),
        Ok(figures(100.0, 7.0)),
        Ok(figures(300.0, 0.0)),
    ];
    (targets, samples)
}

fn text(report: &TopReport, width: usize) -> String {
    terminal(width, Output::Text)
        .render("Top", report, |report| view(report, false))
        .unwrap()
}

fn order(report: &TopReport) -> Vec<&str> {
    report.items.iter().map(|load| load.pod.as_str()).collect()
}

#[test]
fn agents_senders_and_workloads_are_shown_by_load() {
    let (targets, samples) = agents();
    let report = assemble(&targets, &samples, None, Order::Load);
    is_documented("Top", &report);
    assert_snapshot!(text(&report, 100));
}

#[test]
fn agents_are_sorted_as_asked_and_those_without_an_answer_last() {
    let (targets, samples) = agents();
    let by = |order| assemble(&targets, &samples, None, order);
    assert_eq!(
        order(&by(Order::Load)),
        ["agent-1", "agent-4", "agent-3", "agent-2"]
    );
    assert_eq!(
        order(&by(Order::Losses)),
        ["agent-3", "agent-1", "agent-4", "agent-2"]
    );
    assert_eq!(
        order(&by(Order::Queue)),
        ["agent-1", "agent-4", "agent-3", "agent-2"]
    );
}

#[test]
fn rates_are_of_the_time_between_two_questions_unless_an_agent_began_anew() {
    let targets = [target(1, None), target(2, None)];
    let before = [Ok(figures(1000.0, 0.0)), Ok(figures(5000.0, 0.0))];
    let later = |accepted, uptime| Figures {
        uptime,
        ..figures(accepted, 0.0)
    };
    let now = [Ok(later(2000.0, 110.0)), Ok(later(40.0, 4.0))];
    let report = assemble(&targets, &now, Some((&before, 10)), Order::Load);
    let rates: Vec<f64> = report
        .items
        .iter()
        .map(|load| load.items_per_second)
        .collect();
    assert_eq!(rates, [100.0, 10.0]);
}
