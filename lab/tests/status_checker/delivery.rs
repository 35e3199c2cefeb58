//! What agents said of their delivery. The cluster's objects do not show it; the counts and the condition agree.

use super::checker::StatusChecker;
use super::quotes;

const STATES: [&str; 4] = ["delivering", "idle", "failing", "unanswered"];

impl StatusChecker<'_> {
    /// Checks `delivery` and the condition `Delivering`.
    pub(super) fn delivery(&mut self) {
        let of = |state: &&str| self.number(&format!("delivery.{state}"));
        let [delivering, idle, failing, unanswered] =
            STATES.map(|state| of(&state).unwrap_or_default());
        let asked = self.number("delivery.asked").unwrap_or_default();
        let is_counted = asked == delivering + idle + failing + unanswered;
        let expected = format!("{asked} in all states together");
        self.require(is_counted, "delivery", expected, quotes::DELIVERY_COUNTS);
        let status = if failing > 0 {
            "False"
        } else if delivering == 0 || unanswered * 2 > asked {
            "Unknown"
        } else {
            "True"
        };
        let holds = self.is("Delivering", status);
        self.require_condition(holds, "Delivering", status, quotes::DELIVERING);
    }
}
