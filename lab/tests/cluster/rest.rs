//! What the operator asks of the API server, from the audit log.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use demo::apps::{self, App};
use demo::wait::{Seen, until};
use serde_json::{Value, json};
use testbed::Bed;

use super::{PATIENCE, World, condition, world};

const OPERATOR: &str = "system:serviceaccount:otelagent-system:otelagent-operator";

/// What these tests do to a bed.
pub(super) const AUDIT: &str = "reading the audit log";

#[test]
fn operator_at_rest_writes_nothing() {
    let Some(world) = world("the operator at rest") else {
        return;
    };
    if world.bed("the operator at rest", AUDIT).is_none() {
        return;
    }
    world.agent("rest", "rest", "mode: NodeLocal");
    world.agent("rest2", "rest2", "mode: Sidecar");
    world.until_serving("rest", "NodeLocal");
    world.until_serving("rest2", "Sidecar");
    apps::apply(
        &world.kubectl,
        &[App {
            namespace: "rest".into(),
            ..App::go_sdk()
        }],
    )
    .unwrap();
    world.until_status("rest", "its pods counted", |status| {
        status["pods"]["current"] == 2
    });
    world.until_status("rest", "both agents delivering", |status| {
        status["delivery"]["delivering"] == 2
    });
    // Policies that a binding has left are removed half a minute later; then all is done.
    std::thread::sleep(Duration::from_secs(35));
    until_nothing_is_written(&world);
    let before = requests(&world).len();
    // A restarted operator finds nothing to write either.
    super::switching::kill_operator(&world);
    std::thread::sleep(Duration::from_mins(1));
    let all = requests(&world);
    let minute = &all[before..];
    assert!(
        minute
            .iter()
            .any(|request| request["objectRef"]["resource"] == "leases"),
        "the log is being read"
    );
    let writes: Vec<&Value> = minute.iter().filter(|request| is_write(request)).collect();
    assert!(writes.is_empty(), "{writes:#?}");
    world.end_namespace("rest");
}

/// Waits until nothing has been written for ten seconds.
fn until_nothing_is_written(world: &World) {
    let quiet = Duration::from_secs(10);
    let mut seen = requests(world).len();
    let mut since = Instant::now();
    until("ten seconds without a write", PATIENCE, || {
        let all = requests(world);
        let writes: Vec<&Value> = all[seen..].iter().filter(|one| is_write(one)).collect();
        let said = format!("{writes:?}");
        if !writes.is_empty() {
            (seen, since) = (all.len(), Instant::now());
        }
        Ok(Seen::check(since.elapsed() >= quiet, said))
    })
    .unwrap();
}

/// Whether a request changes anything. Renewals of the Lease do not count.
fn is_write(request: &Value) -> bool {
    let verb = request["verb"].as_str().unwrap_or_default();
    let is_dry = request["requestURI"]
        .as_str()
        .is_some_and(|uri| uri.contains("dryRun=All"));
    ["create", "update", "patch", "delete", "deletecollection"].contains(&verb)
        && !is_dry
        && request["objectRef"]["resource"] != "leases"
}

#[test]
fn every_granted_right_is_used_and_none_is_missing() {
    let Some(world) = world("granted and used rights") else {
        return;
    };
    if world.bed("granted and used rights", AUDIT).is_none() {
        return;
    }
    // Earlier tests restart the API server, which refuses everybody until it has read its roles.
    let earlier = requests(&world).len();
    world.agent("rights", "rights", "mode: NodeLocal");
    world.until_serving("rights", "NodeLocal");
    apps::apply(
        &world.kubectl,
        &[App {
            namespace: "rights".into(),
            ..App::go_sdk()
        }],
    )
    .unwrap();
    // A changed configuration changes the agents' pods.
    world.patch(
        "rights",
        &json!({"spec": {"batch": {"flushInterval": "300ms"}}}),
    );
    world.until_serving("rights", "NodeLocal");
    world.patch("rights", &json!({"spec": {"mode": "Sidecar"}}));
    world.until_serving("rights", "Sidecar");
    apps::roll(&world.kubectl, "rights").unwrap();
    world.until_status("rights", "the end of the switch", |status| {
        condition(status, "Switching")["status"] == "False"
    });
    let workloads = ["daemonsets", "--namespace", "otelagent-system"];
    world.until("the old agent workload gone", &workloads, |list| {
        super::names(list).is_empty()
    });
    world.end_all_agents();
    let requests = requests(&world);
    let refused: Vec<&Value> = requests[earlier..]
        .iter()
        .filter(|request| request["responseStatus"]["code"] == 403)
        .collect();
    assert!(
        refused.is_empty(),
        "a right is lacking: {:#?}",
        refused.first()
    );
    let whole = requests.iter().find(|request| {
        let uri = request["requestURI"].as_str().unwrap_or_default();
        request["verb"] == "list" && !uri.contains("limit=")
    });
    assert!(whole.is_none(), "a list of any size at once: {whole:#?}");
    let used: BTreeSet<String> = requests.iter().flat_map(used_rights).collect();
    let granted = granted(&world);
    let idle: Vec<&String> = granted
        .iter()
        .filter(|right| !used.contains(*right))
        .collect();
    assert!(
        idle.is_empty(),
        "granted and never used: {idle:?}\nused: {used:#?}"
    );
    world.end_namespace("rights");
}

/// Every request of the operator so far.
pub(super) fn requests(world: &World) -> Vec<Value> {
    let log = world
        .cluster
        .bed(AUDIT)
        .ok()
        .and_then(Bed::audit_log)
        .expect("an audit log");
    let text = std::fs::read_to_string(log).unwrap();
    let events = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events
        .filter(|event| {
            event["user"]["username"] == OPERATOR
                && ["ResponseStarted", "ResponseComplete"]
                    .iter()
                    .any(|stage| event["stage"] == *stage)
        })
        .collect()
}

/// The right that a request needed. An apply that creates an object needs the right to create it too, though the log
/// calls it a patch.
pub(super) fn used_rights(request: &Value) -> Vec<String> {
    let object = &request["objectRef"];
    let text = |key: &str| object[key].as_str().unwrap_or_default();
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        subresource => format!("{}/{subresource}", text("resource")),
    };
    let right = |verb: &str| format!("{verb} {}/{resource}", text("apiGroup"));
    let verb = request["verb"].as_str().unwrap_or_default();
    let makes = verb == "patch" && request["responseStatus"]["code"] == 201;
    [Some(right(verb)), makes.then(|| right("create"))]
        .into_iter()
        .flatten()
        .collect()
}

/// Every verb on every resource that the operator's roles grant.
pub(super) fn granted(world: &World) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    let lists: Value = world
        .kubectl
        .get(&["clusterroles,roles", "--all-namespaces"])
        .unwrap();
    let roles = lists["items"].as_array().cloned().unwrap_or_default();
    let ours = roles.iter().filter(|role| {
        role["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("otelagent-operator"))
    });
    for rule in ours.flat_map(|role| role["rules"].as_array().cloned().unwrap_or_default()) {
        let words = |key: &str| -> Vec<String> {
            let list = rule[key].as_array().cloned().unwrap_or_default();
            list.iter()
                .filter_map(|word| word.as_str().map(str::to_owned))
                .collect()
        };
        for (verb, group) in words("verbs").iter().flat_map(|verb| {
            words("apiGroups")
                .into_iter()
                .map(move |group| (verb.clone(), group))
        }) {
            rights.extend(
                words("resources")
                    .iter()
                    .map(|resource| format!("{verb} {group}/{resource}")),
            );
        }
    }
    assert!(rights.len() > 10, "the roles were found: {rights:?}");
    rights
}
