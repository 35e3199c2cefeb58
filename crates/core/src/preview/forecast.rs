//! The preview of a changed spec.

use std::collections::BTreeSet;
use std::time::Duration;

use otelagent_api::Mode;

use super::gaps::{self, Gap};
use super::imagined::Imagined;
use super::input::PreviewInput;
use super::objects::ObjectChanges;
use super::obstacles::{self, Obstacle};
use super::pods::{self, StayingPods};
use crate::advise::{ClusterFact, Needs};
use crate::build::{ValidAgent, validate};
use crate::mode_option::ModeOption;
use crate::reconcile::Observation;

/// What a changed spec will do.
#[derive(Clone, Debug, PartialEq)]
pub struct Preview {
    /// The topology that serves now; `None` before the first.
    pub from: Option<ModeOption>,
    /// The topology that the changed spec asks for.
    pub to: ModeOption,
    /// What prevents it, then what to look at.
    pub obstacles: Vec<Obstacle>,
    /// Facts that could prevent it and are not known.
    pub unknown: BTreeSet<ClusterFact>,
    /// What happens; `None` if the spec is refused, and then what runs goes on.
    pub course: Option<Course>,
}

impl Preview {
    /// Whether nothing prevents the change, as far as it is known.
    pub fn is_possible(&self) -> bool {
        !self.obstacles.iter().any(Obstacle::is_blocker)
    }
}

/// What happens if nothing prevents it.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// A mode whose agents are brought up to date before those of the wanted mode are made.
    pub first: Option<Mode>,
    /// What becomes of objects.
    pub objects: ObjectChanges,
    /// Whether new pods get something else than before.
    pub changes_new_pods: bool,
    /// Pods that keep the route or the configuration that they have, by their owners.
    pub staying: Vec<StayingPods>,
    /// The switches and updates that the change contains.
    pub gaps: Vec<Gap>,
    /// How long a route is kept after the last pod that uses it has ended.
    pub hold_old: Duration,
    /// How many workloads with such pods the operator restarts at a time; 0: it restarts none.
    pub restarts_at_a_time: usize,
}

impl Course {
    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && !self.changes_new_pods && self.gaps.is_empty()
    }
}

/// Says what a changed spec will do.
pub fn preview(input: &PreviewInput<'_>) -> Preview {
    let observation = input.observation;
    let checked = validate(observation.agent, input.environment);
    let problems = checked.as_ref().err().cloned();
    let mut obstacles = obstacles::refusals(input, problems.unwrap_or_default());
    let routing = input.before.map(|before| before.node_local.routing);
    let from = observation.last_mode();
    let mut preview = Preview {
        from: from.map(|mode| ModeOption::of_mode(mode, routing.unwrap_or_default())),
        to: input.wanted(),
        obstacles: Vec::new(),
        unknown: BTreeSet::new(),
        course: None,
    };
    let is_refused = !obstacles.is_empty();
    if let Ok(valid) = checked {
        let (course, needs, met) = course(input, &valid);
        let (of_cluster, unknown) = obstacles::of_cluster(input, &needs);
        obstacles.extend(of_cluster.into_iter().chain(met));
        preview.unknown = unknown;
        preview.course = Some(course).filter(|_| !is_refused);
    }
    obstacles.sort_by_key(|obstacle| !obstacle.is_blocker());
    preview.obstacles = obstacles;
    preview
}

/// What happens, what the wanted mode needs, and what the operator meets on its way.
fn course(input: &PreviewInput<'_>, valid: &ValidAgent) -> (Course, Needs, Vec<Obstacle>) {
    let subject = input.subject(valid);
    let observed = input.observation;
    let before = Imagined::of(observed);
    let (_, first) = before.plan(&subject, input.engines);
    let made = before.clone().settle(&subject, input.engines);
    let serving = made.plan.switch.as_ref().and_then(|switch| switch.serving);
    let end = made.cluster.clone();
    let end = end.without_users_of_others(serving.unwrap_or(valid.wanted()));
    let end = end.settle(&subject, input.engines);
    let met = obstacles::on_the_way(input, valid, &first.steps, &made);
    let [before, after, end] =
        [&before, &made.cluster, &end.cluster].map(|cluster| &cluster.observation);
    let changes_new_pods = given(before) != given(after);
    let recipe = after.active.mode.and_then(|mode| made.desired.recipe(mode));
    let report = after.pods.report(given(after), recipe);
    let staying = pods::staying(after, &report);
    let needs = made.desired.modes.get(&valid.wanted());
    let course = Course {
        first: made.first,
        objects: ObjectChanges::between(before, after, end),
        changes_new_pods,
        staying: Some(staying)
            .filter(|_| changes_new_pods)
            .unwrap_or_default(),
        gaps: gaps::gaps(input, before, after),
        hold_old: valid.hold_old,
        restarts_at_a_time: valid.at_a_time(),
    };
    let needs = needs.map(|desired| Needs::of(valid.wanted(), desired));
    (course, needs.unwrap_or_default(), met)
}

/// What new pods get: the mode and the hash of the recipe.
fn given<'a>(observation: &'a Observation<'_>) -> Option<(Mode, &'a str)> {
    let active = &observation.active;
    active.mode.zip(active.recipe.as_deref())
}
