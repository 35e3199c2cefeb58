//! Chooses the injection engine: what the server offers, unless the installation says otherwise.

use super::ServerVersion;

/// Oldest supported minor version: the first with stable native sidecars.
pub const OLDEST_SERVER: u32 = 33;

/// The engine that the installation asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Policies if the server has them, else the webhook.
    #[default]
    Auto,
    /// Policies.
    Policy,
    /// The webhook.
    Webhook,
}

/// The engine that applies recipes to pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Admission policies in the API server.
    Policy,
    /// The webhook process.
    Webhook,
}

/// Chooses the engine. Only one is active at a time.
///
/// # Errors
/// Why no engine can work, and what to do.
pub fn engine(
    choice: Choice,
    offers_policies: bool,
    server: ServerVersion,
) -> Result<Engine, String> {
    if !server.is_at_least(OLDEST_SERVER) {
        return Err(format!(
            "injection needs Kubernetes 1.{OLDEST_SERVER} or newer, and this API server is {server}; upgrade it"
        ));
    }
    match (choice, offers_policies) {
        (Choice::Webhook, _) | (Choice::Auto, false) => Ok(Engine::Webhook),
        (_, true) => Ok(Engine::Policy),
        (Choice::Policy, false) => Err(format!(
            "--injection-engine=policy needs MutatingAdmissionPolicy v1 (Kubernetes 1.36 or newer), which this API server \
             ({server}) does not serve; use the webhook engine"
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
    fn impossible_choice_says_why() {
        assert!(
            choose(Choice::Policy, false, 35)
                .unwrap_err()
                .contains("1.36 or newer")
        );
        for choice in [Choice::Auto, Choice::Policy, Choice::Webhook] {
            assert!(
                choose(choice, false, 32)
                    .unwrap_err()
                    .contains("1.33 or newer")
            );
        }
    }
}
