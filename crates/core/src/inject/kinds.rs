//! The cluster-scoped kinds that inject.

/// What injects inside of the API server.
pub const POLICY: &str = "MutatingAdmissionPolicy";
/// What lets a [`POLICY`] act.
pub const BINDING: &str = "MutatingAdmissionPolicyBinding";
/// What warns that a pod was not injected.
pub const WARNING: &str = "ValidatingAdmissionPolicy";
/// What lets a [`WARNING`] act.
pub const WARNING_BINDING: &str = "ValidatingAdmissionPolicyBinding";
/// What makes the API server call the webhook.
pub const WEBHOOK_CONFIGURATION: &str = "MutatingWebhookConfiguration";

/// All of them in the order of removal: bindings before policies, so that no binding points to nothing.
pub const ADMISSION_KINDS: [&str; 5] = [
    WARNING_BINDING,
    WEBHOOK_CONFIGURATION,
    BINDING,
    WARNING,
    POLICY,
];
