//! What was lost when such a change was measured.

use std::collections::BTreeSet;
use std::fmt;

use otelagent_api::Mode;

use super::input::PreviewInput;
use crate::measured::{Measurement, SWITCHES, measured};
use crate::mode_option::ModeOption;
use crate::reconcile::Observation;

/// A switch, or an update of the agent in one topology, that the change contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// The topology before.
    pub from: ModeOption,
    /// The topology after it; the same for an update.
    pub to: ModeOption,
}

impl Gap {
    /// What was measured, in a change of nothing else.
    pub fn measurement(self) -> Option<&'static Measurement> {
        measured(self.from, self.to)
    }

    /// Whether something was lost when it was measured.
    pub fn loses(self) -> bool {
        self.measurement().is_some_and(|measured| measured.lost > 0)
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from == self.to {
            write!(f, "update of agents in {}: ", self.from)?;
        } else {
            write!(f, "switch from {} to {}: ", self.from, self.to)?;
        }
        let Some(Measurement {
            sent, lost, gap, ..
        }) = self.measurement()
        else {
            return f.write_str("not measured");
        };
        let gap = gap.as_secs_f64();
        write!(
            f,
            "{lost} of {sent} spans and log records were lost when it was measured, and the longest gap was {gap:.1} s \
             ({SWITCHES})"
        )
    }
}

/// The switches and updates between what is there before and once the change has been made.
pub(super) fn gaps(
    input: &PreviewInput<'_>,
    before: &Observation<'_>,
    made: &Observation<'_>,
) -> Vec<Gap> {
    let to = input.wanted();
    let routing = input.before.map(|before| before.node_local.routing);
    let routing = routing.unwrap_or(to.routing());
    let users = before.pods.users().iter();
    let users = users.filter(|(_, pods)| **pods > 0).map(|(mode, _)| *mode);
    let used: BTreeSet<Mode> = users.chain(before.last_mode()).collect();
    let switches = used.iter().map(|mode| Gap {
        from: ModeOption::of_mode(*mode, routing),
        to,
    });
    let switches = switches.filter(|gap| gap.from != gap.to);
    let updates = updated(before, made).map(|mode| {
        let option = ModeOption::of_mode(mode, to.routing());
        Gap {
            from: option,
            to: option,
        }
    });
    let all: BTreeSet<Gap> = switches.chain(updates).collect();
    all.into_iter().collect()
}

/// Modes in which running agents are replaced.
fn updated<'a>(
    before: &'a Observation<'_>,
    made: &'a Observation<'_>,
) -> impl Iterator<Item = Mode> + 'a {
    let on_nodes = before.workloads.iter().filter_map(|(mode, found)| {
        let after = made.workloads.get(mode)?;
        let is_same = found.workload.template == after.workload.template;
        (!is_same).then_some(*mode)
    });
    let sidecars = Some(Mode::Sidecar).filter(|sidecar| {
        let serves = [&before.active, &made.active].map(|active| active.mode == Some(*sidecar));
        serves == [true, true] && before.active.recipe != made.active.recipe
    });
    on_nodes.chain(sidecars)
}
