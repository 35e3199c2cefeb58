//! What `build` gives back: the modes asked for, each rendered alike for every wanted mode.

use otelagent_api::Mode;
use otelagent_core::build::{Object, ValidAgent, build, template_label, validate};

use super::{agent_with, desired_in, environment};

fn wanting(mode: Mode) -> ValidAgent {
    let spec = format!("mode: {mode}, buffer: {{disk: {{size: 1Gi}}}}");
    validate(&agent_with("otelagent-system", &spec), &environment()).expect("a valid OtelAgent")
}

#[test]
fn mode_is_rendered_alike_whichever_mode_is_wanted() {
    for mode in Mode::ALL {
        let wanted = desired_in(mode, &wanting(mode));
        for other in Mode::ALL {
            assert_eq!(desired_in(mode, &wanting(other)), wanted, "{mode}, {other}");
        }
    }
}

#[test]
fn build_returns_each_mode_asked_for_once_with_its_template() {
    let asked = [Mode::NodeLocal, Mode::Sidecar, Mode::NodeLocal];
    let desired = build(&wanting(Mode::NodeLocal), &environment(), asked);
    let modes: Vec<Mode> = desired.modes.keys().copied().collect();
    assert_eq!(modes, [Mode::Sidecar, Mode::NodeLocal]);
    assert_eq!(desired.modes[&Mode::Sidecar].template, "");
    let node = &desired.modes[&Mode::NodeLocal];
    let Object::DaemonSet(workload) = &node.objects[0] else {
        panic!("the agent workload comes first: {:?}", node.objects);
    };
    assert_eq!(template_label(workload), Some(node.template.as_str()));
}
