//! What the creator of an injected pod should know: as CEL for the policy that warns, and as a function.

use serde_json::Value;

use super::cel::quoted;
use super::containers::{CONTAINERS, chosen, chosen_in_cel, containers};
use super::json::{list, text};
use super::recipe::Recipe;
use otelagent_api::{Mode, OnFailure};

/// One thing to warn of.
pub(super) struct Advice {
    /// True if the pod should be warned of.
    pub(super) applies: String,
    /// The sentence, as an expression.
    pub(super) sentence: String,
    /// The sentence without details, for the case that the expression fails.
    pub(super) plain: &'static str,
}

/// All advice for pods of a recipe.
pub(super) fn advice(recipe: &Recipe, on_failure: OnFailure) -> Vec<Advice> {
    let mut advice = vec![unknown_containers()];
    // It concerns some images only, and with Fail the API server would refuse all.
    if recipe.mode == Mode::NodeLocal && on_failure == OnFailure::Ignore {
        advice.push(few_dots());
    }
    advice
}

/// The same for a pod, as sentences.
pub fn advice_for(pod: &Value, recipe: &Recipe) -> Vec<String> {
    let mut advice = Vec::new();
    let mut unknown = chosen(pod);
    unknown.retain(|name| containers(pod).all(|container| text(container, "name") != *name));
    if !unknown.is_empty() {
        advice.push(format!("{UNKNOWN}: {}", unknown.join(", ")));
    }
    if recipe.mode == Mode::NodeLocal && has_few_dots(&pod["spec"]) {
        advice.push(FEW_DOTS.to_owned());
    }
    advice
}

const UNKNOWN: &str =
    "its annotation otelagent.dev/containers names containers that it does not have";

const FEW_DOTS: &str = "programs with the C library musl, as in Alpine images, do not resolve the agent's Service while the pod's \
                 DNS option ndots is below 3; set it in dnsConfig, or use mode HostPort";

/// The same as [`few_dots`].
fn has_few_dots(spec: &Value) -> bool {
    let options = list(&spec["dnsConfig"], "options").iter();
    let mut given = options
        .filter(|option| text(option, "name") == "ndots")
        .peekable();
    let is_none = given.peek().is_none();
    given.any(|option| ["0", "1", "2"].contains(&text(option, "value")))
        || text(spec, "dnsPolicy") == "None" && is_none
}

fn unknown_containers() -> Advice {
    let plain = UNKNOWN;
    let unknown = format!(
        "{}.filter(n, !{CONTAINERS}.exists(c, c.name == n))",
        chosen_in_cel()
    );
    Advice {
        applies: format!("{unknown}.size() > 0"),
        sentence: format!("{} + {unknown}.join(\", \")", quoted(&format!("{plain}: "))),
        plain,
    }
}

/// The C library musl does not search domains for a name with as many dots as `ndots`, and `name.namespace.svc`
/// has two. Without the option, `dnsPolicy: None` means one.
fn few_dots() -> Advice {
    let given = "object.spec.?dnsConfig.?options.orValue([]).filter(o, o.name == \"ndots\")";
    Advice {
        applies: format!(
            "{given}.exists(o, o.?value.orValue(\"\") in [\"0\", \"1\", \"2\"]) \
             || object.spec.?dnsPolicy.orValue(\"\") == \"None\" && {given}.size() == 0"
        ),
        sentence: quoted(FEW_DOTS),
        plain: FEW_DOTS,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pod_is_advised_of_unknown_containers_and_of_few_dots() {
        let of = |pod: &Value, mode| advice_for(pod, &Recipe::of_mode(mode));
        let pod = json!({
            "metadata": {"annotations": {"otelagent.dev/containers": "app, worker,gone"}},
            "spec": {"containers": [{"name": "app"}, {"name": "worker"}], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}},
        });
        assert_eq!(of(&pod, Mode::HostPort), [format!("{UNKNOWN}: gone")]);
        assert_eq!(
            of(&pod, Mode::NodeLocal),
            [&format!("{UNKNOWN}: gone"), FEW_DOTS]
        );
        let none = json!({"spec": {"containers": [], "dnsPolicy": "None"}});
        assert_eq!(of(&none, Mode::NodeLocal), [FEW_DOTS]);
        let plain = json!({"spec": {"containers": []}});
        assert_eq!(of(&plain, Mode::NodeLocal), [""; 0]);
    }
}
