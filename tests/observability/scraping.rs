//! How Prometheus finds agents: the same in the chart, for the Prometheus operator and without it.

use std::fs;

use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;
use serde_json::Value;

use super::PAGE;

/// The port of metrics, of the configuration in the annotation. Without one, 8888 stays.
const PORT: &str = r"([^;]+):[0-9]+;[\s\S]* prometheus:\n +host: [^\n]+\n +port: ([0-9]+)\n[\s\S]*";

/// The rules for labels that begin after a line of a file and end before another.
fn rules(text: &str, begin: &str, end: &str) -> Vec<Value> {
    let (_, after) = text.split_once(begin).expect("the beginning of the rules");
    let (rules, _) = after.split_once(end).expect("the end of the rules");
    serde_saphyr::from_str(rules).unwrap_or_else(|why| panic!("{why}: {rules}"))
}

fn of_chart() -> Vec<Value> {
    let chart = text("charts/otelagent/templates/metrics/podmonitor.yaml");
    // Agents on nodes and sidecars differ in the label that names their OtelAgent.
    let chart = chart.replace("{{ $part.label }}", "owner");
    rules(&chart, "- relabelings:\n", "        {{- with")
}

fn of_monitor() -> Vec<Value> {
    let page = text(PAGE);
    let (_, agents) = page.split_once("name: otelagent-agents").expect("agents");
    rules(agents, "- relabelings:\n", "```")
}

/// Those without the Prometheus operator, in its words.
fn of_configuration() -> Vec<Value> {
    let page = text(PAGE);
    let (_, agents) = page
        .split_once("job_name: otelagent-agents")
        .expect("the job of agents");
    let mut rules = rules(agents, "relabel_configs:\n", "```");
    for rule in &mut rules {
        let renamed = [
            ("source_labels", "sourceLabels"),
            ("target_label", "targetLabel"),
        ];
        let fields = rule.as_object_mut().expect("a rule");
        for (from, to) in renamed {
            if let Some(value) = fields.remove(from) {
                fields.insert(to.to_owned(), value);
            }
        }
    }
    rules
}

#[test]
fn agents_are_found_in_the_same_way_with_and_without_the_prometheus_operator() {
    let chart = of_chart();
    assert!(chart.len() > 4, "{chart:?}");
    assert_eq!(chart, of_monitor());
    let addresses = |rules: &[Value]| -> Vec<Value> {
        let mut rules = rules.to_vec();
        rules.retain(|rule| rule["targetLabel"] == "__address__");
        rules
    };
    assert_eq!(addresses(&chart), addresses(&of_configuration()));
    let last = addresses(&chart).pop().expect("a rule");
    assert_eq!(last["regex"], PORT);
    assert_eq!(last["replacement"], "$1:$2");
}

/// The rule for the port reads the annotation as text.
#[test]
fn every_configuration_has_the_port_of_metrics_where_the_rule_looks() {
    let folder = repository().join("tests/golden");
    let mut read = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !name.starts_with("configuration-") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (at, _) in text.match_indices(" prometheus:\n") {
            let mut after = text[at..].lines().skip(1).map(str::trim_start);
            let host = after.next().unwrap_or_default();
            let port = after.next().unwrap_or_default();
            assert!(host.starts_with("host: "), "{name}: {host}");
            let number = port.strip_prefix("port: ").map(str::parse::<u16>);
            assert!(matches!(number, Some(Ok(_))), "{name}: {port}");
            read += 1;
        }
    }
    assert!(read > 8, "{read} configurations");
}
