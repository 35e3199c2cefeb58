//! The cluster-scoped kinds that inject.

/// The policy by which the API server injects.
pub const POLICY: &str = "MutatingAdmissionPolicy";
/// The binding that makes a [`POLICY`] act.
pub const BINDING: &str = "MutatingAdmissionPolicyBinding";
/// The policy that warns that a pod was not injected.
pub const WARNING: &str = "ValidatingAdmissionPolicy";
/// The binding that makes a [`WARNING`] act.
pub const WARNING_BINDING: &str = "ValidatingAdmissionPolicyBinding";
/// The configuration that makes the API server call the webhook.
pub const WEBHOOK_CONFIGURATION: &str = "MutatingWebhookConfiguration";

/// All of them in the order of removal: bindings before policies, so that no binding points to nothing.
pub const ADMISSION_KINDS: [&str; 5] = [
    WARNING_BINDING,
    WEBHOOK_CONFIGURATION,
    BINDING,
    WARNING,
    POLICY,
];
