//! What the creator of an injected pod should know, as CEL for the policy that warns.

use super::cel::quoted;
use super::containers::{CONTAINERS, chosen_in_cel};
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

fn unknown_containers() -> Advice {
    let plain = "its annotation otelagent.dev/containers names containers that it does not have";
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
    let plain = "programs with the C library musl, as in Alpine images, do not resolve the agent's Service while the pod's \
                 DNS option ndots is below 3; set it in dnsConfig, or use mode HostPort";
    let given = "object.spec.?dnsConfig.?options.orValue([]).filter(o, o.name == \"ndots\")";
    Advice {
        applies: format!(
            "{given}.exists(o, o.?value.orValue(\"\") in [\"0\", \"1\", \"2\"]) \
             || object.spec.?dnsPolicy.orValue(\"\") == \"None\" && {given}.size() == 0"
        ),
        sentence: quoted(plain),
        plain,
    }
}
