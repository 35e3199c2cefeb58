//! The shipped YAML installs, meets Pod Security, and grants only what it declares.

use super::cluster::kubectl;

const OPERATOR: &str = "--as=system:serviceaccount:otelagent-system:otelagent-operator";

const WEBHOOK: &str = "--as=system:serviceaccount:otelagent-system:otelagent-webhook";

fn must(words: &[&str]) -> String {
    let (succeeded, text) = kubectl(words);
    assert!(succeeded, "kubectl {}: {text}", words.join(" "));
    text
}

/// Whether the operator may; `words` as after `kubectl auth can-i`.
fn may(words: &str) -> bool {
    may_as(OPERATOR, words)
}

fn may_as(whom: &str, words: &str) -> bool {
    let words: Vec<&str> = ["auth", "can-i", whom]
        .into_iter()
        .chain(words.split(' '))
        .collect();
    let (may, text) = kubectl(&words);
    assert!(text.contains(if may { "yes" } else { "no" }), "{text}");
    may
}

#[test]
fn installation_creates_and_grants_what_it_declares() {
    if !testbed::skip_unless_possible("manifests") {
        return;
    }
    must(&["apply", "--validate=strict", "-k", "manifests/default"]);
    must(&[
        "wait",
        "--for=condition=Established",
        "crd/otelagents.otelagent.dev",
    ]);
    must(&["create", "namespace", "shop"]);
    // The server has what was applied: a second time changes nothing.
    must(&["diff", "-k", "manifests/default"]);
    // The right to restart workloads is one of its own.
    assert!(!may("patch deployments --namespace shop"));
    must(&["apply", "--validate=strict", "-k", "manifests/restart"]);
    assert!(may("patch deployments --namespace shop"));
    assert!(!may("create deployments --namespace shop"));
    must(&["delete", "-k", "manifests/restart"]);
    the_webhook_reads_and_the_operator_keeps_one_secret();
    the_operator_pod_is_restricted();
    rights();
    // Everything that was installed goes, and no object waits for its deletion.
    must(&["delete", "--timeout=60s", "-k", "manifests/default"]);
}

/// An optional part: its rights come and go with it.
fn the_webhook_reads_and_the_operator_keeps_one_secret() {
    let configurations = "mutatingwebhookconfigurations.admissionregistration.k8s.io";
    let ca_secret = "secrets/otelagent-webhook-authority --namespace=otelagent-system";
    assert!(!may(&format!("create {configurations}")));
    must(&["apply", "--validate=strict", "-k", "manifests/webhook"]);
    must(&["diff", "-k", "manifests/webhook"]);
    for verb in ["list", "watch"] {
        assert!(may_as(WEBHOOK, &format!("{verb} {configurations}")));
        assert!(may_as(WEBHOOK, &format!("{verb} namespaces")));
    }
    assert!(may_as(WEBHOOK, &format!("get {ca_secret}")));
    for refused in [
        &format!("patch {configurations}"),
        &format!("update {ca_secret}"),
        "list secrets --namespace=otelagent-system",
        "get secrets/another --namespace=otelagent-system",
        "list otelagents.otelagent.dev --all-namespaces",
        "list pods --all-namespaces",
        "get leases.coordination.k8s.io/otelagent-operator --namespace=otelagent-system",
    ] {
        assert!(!may_as(WEBHOOK, refused), "{refused}");
    }
    assert!(may(&format!("patch {configurations}")) && may(&format!("update {ca_secret}")));
    for refused in ["create", "list", "delete"] {
        let refused = format!("{refused} secrets --namespace=otelagent-system");
        assert!(!may(&refused), "{refused}");
    }
    must(&["delete", "--timeout=60s", "-k", "manifests/webhook"]);
}

/// The namespace is privileged for the agents; the operator must not need that.
fn the_operator_pod_is_restricted() {
    let label = "pod-security.kubernetes.io/enforce=restricted";
    let text = must(&[
        "label",
        "--dry-run=server",
        "--overwrite",
        "namespace/otelagent-system",
        label,
    ]);
    assert!(!text.contains("would violate"), "{text}");
    let warned = must(&[
        "label",
        "--overwrite",
        "namespace/otelagent-system",
        "pod-security.kubernetes.io/warn=restricted",
    ]);
    assert!(!warned.contains("Warning"), "{warned}");
    // Applying a Deployment warns about the pods it would make.
    let restarted = must(&[
        "rollout",
        "restart",
        "deployment/otelagent-operator",
        "--namespace=otelagent-system",
    ]);
    assert!(!restarted.contains("Warning"), "{restarted}");
}

fn rights() {
    for allowed in [
        "list pods --all-namespaces",
        "patch otelagents.otelagent.dev/status --subresource=status --all-namespaces",
        "create daemonsets.apps --namespace=otelagent-system",
        "delete services --namespace=otelagent-system",
        "patch configmaps --namespace=otelagent-system",
        "patch pods --namespace=otelagent-system",
        "update leases.coordination.k8s.io/otelagent-operator --namespace=otelagent-system",
        "create pods --namespace=otelagent-canary",
        "patch mutatingadmissionpolicies.admissionregistration.k8s.io",
        "get clusterroles.rbac.authorization.k8s.io/otelagent-owner",
    ] {
        assert!(may(allowed), "{allowed}");
    }
    for refused in [
        "get secrets --namespace=otelagent-system",
        "list configmaps --all-namespaces",
        "list configmaps --namespace=shop",
        "patch pods --namespace=shop",
        "create daemonsets.apps --namespace=shop",
        "create pods --namespace=otelagent-system",
        "create pods --namespace=shop",
        "delete pods --namespace=otelagent-canary",
        "update leases.coordination.k8s.io/another --namespace=otelagent-system",
        "patch otelagents.otelagent.dev --all-namespaces",
        "patch nodes",
        "patch namespaces",
        "patch clusterroles.rbac.authorization.k8s.io/otelagent-operator",
        "create serviceaccounts/token --namespace=otelagent-system",
        "create validatingwebhookconfigurations.admissionregistration.k8s.io",
        "impersonate users",
    ] {
        assert!(!may(refused), "{refused}");
    }
}
