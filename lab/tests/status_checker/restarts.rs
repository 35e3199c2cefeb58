//! Restarts of workloads, as docs/restart.md describes them.

use serde_json::Value;

use super::checker::{Allowed, StatusChecker};
use super::pods::Injectable;
use super::quotes;
use super::read::text;
use super::view::{controller, distinct};

impl StatusChecker<'_> {
    /// Checks `restarts` and the condition `Restarting`.
    pub(super) fn restarts(&mut self) {
        let rolls = self.view.agent["spec"]["workloads"]["restart"] == "Rolling";
        if !self.is("Accepted", "True") {
            // Whether an older spec's restarts go on, the documentation leaves open.
            return;
        }
        if !rolls {
            self.equals("restarts", &Value::Null, quotes::RESTARTS);
            let is_absent = self.condition("Restarting").is_null();
            return self.require_condition(is_absent, "Restarting", "absent", quotes::RESTARTING);
        }
        let is_there = !self.condition("Restarting").is_null();
        self.require_condition(is_there, "Restarting", "present", quotes::RESTARTING);
        if self.has_reason("Restarting", "NotAllowed") {
            return;
        }
        self.restart_counts();
        let of = |field: &str| self.number(field).unwrap_or_default();
        let active = of("restarts.running") + of("restarts.waiting");
        let stuck = of("restarts.stuck");
        let holds = self.is("Restarting", "True") == (active > 0);
        let expected = format!("True only while workloads run or wait ({active})");
        self.require_condition(holds, "Restarting", expected, quotes::RESTARTING);
        let is_told = !self.has_reason("Restarting", "StaleAfterRestart") || stuck > 0;
        self.require_condition(
            is_told,
            "Restarting",
            "a reason that fits stuck 0",
            quotes::STUCK,
        );
    }

    /// No more workloads wait or are left alone than own pods that are behind, and none while no pod is.
    fn restart_counts(&mut self) {
        let pods = self.view.sorted_pods();
        let stale = pods.injected.iter().filter(|pod| self.is_stale(pod));
        let mut behind: Vec<&Value> = stale.copied().collect();
        behind.extend(pods.repairable(self.view));
        behind.extend(self.view.uncovered());
        let certain = behind.len();
        let may_be = |pod: &&&Value| self.view.injectable(pod) == Injectable::Perhaps;
        behind.extend(pods.missed.iter().filter(may_be));
        behind.extend(&pods.perhaps_missed);
        let owner = |pod: &&&Value| {
            let owner = text(controller(pod), "/uid");
            let own = text(pod, "/metadata/uid");
            if owner.is_empty() { own } else { owner }.to_owned()
        };
        let owners: Vec<String> = behind.iter().map(|pod| owner(&pod)).collect();
        let most = distinct(owners.iter().map(String::as_str)).len();
        for field in ["waiting", "stuck", "notRestartable"] {
            self.count(
                &format!("restarts.{field}"),
                Allowed::between(0, most),
                quotes::IN_VAIN,
            );
        }
        self.count("restarts.running", Allowed::at_least(0), quotes::RESTARTS);
        let fields = ["running", "waiting", "stuck", "notRestartable"];
        let all: usize = fields
            .iter()
            .filter_map(|field| self.number(&format!("restarts.{field}")))
            .sum();
        let is_counted = certain == 0 || all > 0;
        self.require(
            is_counted,
            "restarts",
            "at least one workload",
            quotes::RESTARTS,
        );
    }
}
