//! Which engine injects: what the server offers, unless somebody chose.

use super::ServerVersion;

/// Oldest supported minor version of 1: the first with native sidecars for good.
const OLDEST: u32 = 33;

/// What the installation asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Policies where the server has them, else the webhook.
    #[default]
    Auto,
    /// Policies.
    Policy,
    /// The webhook.
    Webhook,
}

/// What applies a recipe to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Admission policies, inside of the API server.
    Policy,
    /// A webhook, a process of ours.
    Webhook,
}

/// The engine to use; never both.
///
/// # Errors
/// Why there is none, and what to do.
pub fn engine(
    choice: Choice,
    offers_policies: bool,
    server: ServerVersion,
) -> Result<Engine, String> {
    if !server.is_at_least(OLDEST) {
        return Err(format!(
            "this server ({server}) is older than 1.{OLDEST}, the oldest that injection supports; upgrade it"
        ));
    }
    match (choice, offers_policies) {
        (Choice::Webhook, _) | (Choice::Auto, false) => Ok(Engine::Webhook),
        (_, true) => Ok(Engine::Policy),
        (Choice::Policy, false) => Err(format!(
            "this server ({server}) does not serve MutatingAdmissionPolicy v1, which --injection-engine=policy needs; \
             servers do from 1.36, older ones need the webhook"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(choice: Choice, offers_policies: bool, minor: u32) -> Result<Engine, String> {
        engine(choice, offers_policies, ServerVersion { major: 1, minor })
    }

    #[test]
    fn policies_are_used_where_the_server_has_them_unless_the_webhook_is_asked_for() {
        assert_eq!(choose(Choice::Auto, true, 36), Ok(Engine::Policy));
        assert_eq!(choose(Choice::Auto, false, 33), Ok(Engine::Webhook));
        assert_eq!(choose(Choice::Webhook, true, 37), Ok(Engine::Webhook));
        assert_eq!(choose(Choice::Policy, true, 36), Ok(Engine::Policy));
    }

    #[test]
    fn what_cannot_be_is_said_with_the_reason() {
        assert!(
            choose(Choice::Policy, false, 35)
                .unwrap_err()
                .contains("from 1.36")
        );
        for choice in [Choice::Auto, Choice::Policy, Choice::Webhook] {
            assert!(
                choose(choice, false, 32)
                    .unwrap_err()
                    .contains("older than 1.33")
            );
        }
    }
}
