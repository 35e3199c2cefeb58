//! Which objects a support bundle holds.

/// A kind of objects in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundledKind {
    /// Group and version.
    pub api_version: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// Which of its objects.
    pub which: Where,
}

/// Which objects of a kind are in the bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// All of the cluster.
    Cluster,
    /// Those of platform namespaces and of the operator's own.
    Platform,
    /// Those of selected namespaces, too.
    Selected,
    /// Those with the label that the operator gives to what it makes.
    Managed,
}

const fn bundled(api_version: &'static str, kind: &'static str, which: Where) -> BundledKind {
    BundledKind {
        api_version,
        kind,
        which,
    }
}

/// All of them. Secrets are in it, since a missing key is a frequent cause, but none of their values.
pub const CONTENTS: [BundledKind; 18] = [
    bundled("otelagent.dev/v1alpha1", "OtelAgent", Where::Cluster),
    bundled("v1", "Node", Where::Cluster),
    bundled("v1", "Namespace", Where::Cluster),
    bundled("apps/v1", "Deployment", Where::Platform),
    bundled("apps/v1", "DaemonSet", Where::Platform),
    bundled("v1", "Service", Where::Platform),
    bundled("v1", "ConfigMap", Where::Platform),
    bundled("v1", "Secret", Where::Platform),
    bundled("coordination.k8s.io/v1", "Lease", Where::Platform),
    bundled("v1", "Pod", Where::Selected),
    bundled("v1", "Event", Where::Selected),
    bundled("v1", "LimitRange", Where::Selected),
    bundled("v1", "ResourceQuota", Where::Selected),
    bundled(
        "admissionregistration.k8s.io/v1",
        "MutatingAdmissionPolicy",
        Where::Managed,
    ),
    bundled(
        "admissionregistration.k8s.io/v1",
        "MutatingAdmissionPolicyBinding",
        Where::Managed,
    ),
    bundled(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        Where::Managed,
    ),
    bundled(
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        Where::Managed,
    ),
    bundled(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        Where::Managed,
    ),
];
