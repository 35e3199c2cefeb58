//! Whoever deletes an `OtelAgent` that pods use is told so.

use std::time::{Duration, Instant};

use serde_json::json;

use super::bed::ReleaseServer;

/// Far longer than a policy takes to come into effect.
const PATIENCE: Duration = Duration::from_mins(5);

/// The installation is there, and its operator is not: what the status says stays.
pub(super) fn deleting_an_agent_in_use_warns(server: &ReleaseServer) {
    for (name, pods) in [("used", 3), ("unused", 0)] {
        let agent = json!({"apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {"mode": "Sidecar", "export": {"endpoint": "http://c:4317"}}});
        server.keep(&agent);
        let counts = json!({"injected": pods, "current": pods, "stale": 0, "missed": 0});
        let status = json!({"status": {"pods": counts}}).to_string();
        server.must(&[
            "patch",
            "otelagent",
            name,
            "--namespace=shop",
            "--subresource=status",
            "--type=merge",
            &format!("--patch={status}"),
        ]);
    }
    let told = |name| {
        let words = [
            "delete",
            "otelagent",
            name,
            "--namespace=shop",
            "--dry-run=server",
        ];
        server.warnings(&words)
    };
    let begun = Instant::now();
    let warned = loop {
        let said = told("used");
        if said.contains("3 running pods use OtelAgent used") {
            break said;
        }
        assert!(begun.elapsed() < PATIENCE, "no warning: {said}");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(warned.contains("restart them"), "{warned}");
    let said = told("unused");
    assert!(!said.contains("Warning"), "{said}");
    for name in ["used", "unused"] {
        server.must(&["delete", "otelagent", name, "--namespace=shop"]);
    }
}
