//! The shipped network policies, and every example of the documentation, under the strict validation of the server.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::bed::{is_possible, world};
use otelagent_test_support::manifests::{objects, shipped_of, text, words, yaml_blocks};

#[test]
fn network_policies_open_served_ports_api_server_agents_and_dns_only() {
    let policies = shipped_of("NetworkPolicy");
    assert_eq!(policies.len(), 2);
    let deployments = shipped_of("Deployment");
    for policy in policies {
        let spec = &policy["spec"];
        let selected = spec["podSelector"]["matchLabels"].as_object().unwrap();
        let of: Vec<&Value> = deployments
            .iter()
            .filter(|deployment| {
                let labels = &deployment["spec"]["template"]["metadata"]["labels"];
                selected.iter().all(|(key, value)| labels[key] == *value)
            })
            .collect();
        assert_eq!(of.len(), 1, "{policy}");
        assert_eq!(words(&spec["policyTypes"]), ["Ingress", "Egress"]);
        let container = &of[0]["spec"]["template"]["spec"]["containers"][0];
        let served = container["ports"].as_array().unwrap();
        let served: Vec<&str> = served
            .iter()
            .filter_map(|port| port["name"].as_str())
            .collect();
        let mut open = Vec::new();
        for rule in spec["ingress"].as_array().unwrap() {
            for port in rule["ports"].as_array().expect("ports of a rule") {
                open.push(port["port"].as_str().expect("a port by name"));
            }
        }
        for port in &open {
            assert!(served.contains(port), "{port}");
        }
        let closed: Vec<&&str> = served.iter().filter(|port| !open.contains(*port)).collect();
        assert_eq!(closed, [&"health"], "probes come from the node");
        let mut needed = BTreeSet::from([53, 443, 6443]);
        if selected["app.kubernetes.io/component"] == "operator" {
            needed.extend([13_133, 23_133]);
        }
        let rules = spec["egress"].as_array().unwrap().iter();
        let ports = rules.flat_map(|rule| rule["ports"].as_array().expect("ports of a rule"));
        let opened: BTreeSet<u64> = ports.map(|port| port["port"].as_u64().unwrap()).collect();
        assert_eq!(opened, needed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_patch_restricts_the_webhooks_port_and_changes_nothing_else() {
    if !is_possible("an overlay of the network policies") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("overlay-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let overlay = json!({"resources": ["policies.yaml"], "patches": [{"path": "patch.yaml"}]});
    for (file, content) in [
        ("policies.yaml", text("manifests/network/policies.yaml")),
        (
            "patch.yaml",
            yaml_blocks(&text("docs/security.md")).remove(0),
        ),
        ("kustomization.yaml", overlay.to_string()),
    ] {
        std::fs::write(folder.join(file), content).unwrap();
    }
    let built = world()
        .await
        .kubectl(&["kustomize", folder.to_str().unwrap()]);
    std::fs::remove_dir_all(folder).unwrap();
    let mut expected = objects(&text("manifests/network/policies.yaml"));
    let peers = json!([{"ipBlock": {"cidr": "192.0.2.0/28"}}]);
    expected[1]["spec"]["ingress"][0]["from"] = peers;
    assert_eq!(objects(&built), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_and_documented_examples_pass_strict_validation() {
    if !is_possible("network policies on a real API server") {
        return;
    }
    let world = world().await;
    let dry = ["--dry-run=server", "--validate=strict"];
    world.kubectl(&[&["apply", "-k", "manifests/network"], dry.as_slice()].concat());
    for namespace in ["shop", "observability"] {
        world.kubectl(&["create", "namespace", namespace]);
    }
    let examples = yaml_blocks(&text("docs/security.md"));
    assert!(examples.len() >= 7, "{examples:?}");
    for (number, example) in examples.iter().enumerate() {
        for object in objects(example) {
            assert!(object["kind"].is_string(), "{example}");
        }
        let file =
            std::env::temp_dir().join(format!("security-{}-{number}.yaml", std::process::id()));
        std::fs::write(&file, example).unwrap();
        world.kubectl(&[&["apply", "-f", file.to_str().unwrap()], dry.as_slice()].concat());
        std::fs::remove_file(file).unwrap();
    }
}
