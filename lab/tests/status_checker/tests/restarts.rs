//! Restarts of workloads.

use serde_json::json;

use super::{accepts, reports, settled, switching, tell, with_missed_pod, with_status};

fn rolling(mut view: super::ClusterView, counts: [usize; 4], status: &str) -> super::ClusterView {
    let [running, waiting, stuck, others] = counts;
    view.agent["spec"]["workloads"]["restart"] = "Rolling".into();
    view.agent["status"]["restarts"] =
        json!({"running": running, "waiting": waiting, "stuck": stuck, "notRestartable": others});
    tell(&mut view, "Restarting", status, "Any", "any");
    view
}

#[test]
fn restarts_are_present_only_with_restart_rolling() {
    let counts = json!({"running": 0, "waiting": 0, "stuck": 0, "notRestartable": 0});
    reports(with_status(settled(), "restarts", counts), &["restarts"]);
    let mut view = settled();
    tell(&mut view, "Restarting", "False", "Done", "nothing is left");
    reports(view, &["conditions.Restarting"]);
    accepts(rolling(settled(), [0, 0, 0, 0], "False"));
    let mut view = rolling(settled(), [0, 0, 0, 0], "False");
    view.agent["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .pop();
    reports(view, &["conditions.Restarting"]);
}

#[test]
fn restart_counts_are_bounded_by_owners_of_pods_behind() {
    for counts in [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]] {
        let status = if counts[1] > 0 { "True" } else { "False" };
        accepts(rolling(switching(), counts, status));
        let found = super::fields(rolling(settled(), counts, status));
        assert_eq!(found.len(), 1, "{found:?}");
    }
    // A running one may have no pod left that is behind.
    accepts(rolling(settled(), [1, 0, 0, 0], "True"));
}

#[test]
fn workloads_of_pods_that_are_behind_are_counted() {
    reports(
        rolling(with_missed_pod(settled()), [0, 0, 0, 0], "False"),
        &["restarts"],
    );
    accepts(rolling(with_missed_pod(settled()), [0, 0, 0, 1], "False"));
}

#[test]
fn restarting_is_true_exactly_while_workloads_run_or_wait() {
    reports(
        rolling(switching(), [0, 1, 0, 0], "False"),
        &["conditions.Restarting"],
    );
    reports(
        rolling(switching(), [0, 0, 1, 0], "True"),
        &["conditions.Restarting"],
    );
}

#[test]
fn missing_right_leaves_the_counts_open() {
    let mut view = settled();
    view.agent["spec"]["workloads"]["restart"] = "Rolling".into();
    tell(
        &mut view,
        "Restarting",
        "False",
        "NotAllowed",
        "apply manifests/restart",
    );
    accepts(view);
}

#[test]
fn stale_after_restart_needs_a_stuck_workload() {
    let mut view = rolling(switching(), [0, 0, 0, 1], "False");
    tell(
        &mut view,
        "Restarting",
        "False",
        "StaleAfterRestart",
        "till is as it was",
    );
    reports(view.clone(), &["conditions.Restarting"]);
    view = rolling(view, [0, 0, 1, 0], "False");
    tell(
        &mut view,
        "Restarting",
        "False",
        "StaleAfterRestart",
        "till is as it was",
    );
    accepts(view);
}
