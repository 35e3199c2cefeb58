//! What the manifests grant, read as they are shipped (checks 21 to 29).

use serde_json::Value;

use otelagent_test_support::manifests::{shipped, shipped_of, words};

const READ: [&str; 3] = ["get", "list", "watch"];

/// The Role of a platform namespace.
const PLATFORM: &str = "Role otelagent-system/otelagent-operator-vehicles";

/// Every rule with its role: kind, namespace and name.
fn rules() -> Vec<(String, Value)> {
    let granting = shipped().into_iter().filter(|object| {
        ["Role", "ClusterRole"]
            .iter()
            .any(|kind| object["kind"] == *kind)
    });
    let mut rules = Vec::new();
    for role in granting {
        let metadata = &role["metadata"];
        let text = |key: &str| metadata[key].as_str().unwrap_or_default().to_owned();
        let place = format!(
            "{} {}/{}",
            role["kind"].as_str().unwrap(),
            text("namespace"),
            text("name")
        );
        for rule in role["rules"].as_array().unwrap() {
            rules.push((place.clone(), rule.clone()));
        }
    }
    assert!(rules.len() > 15, "{} rules", rules.len());
    rules
}

/// Rules about one resource.
fn about(resource: &str) -> Vec<(String, Value)> {
    let mut rules = rules();
    rules.retain(|(_, rule)| words(&rule["resources"]).contains(&resource));
    rules
}

#[test]
fn no_rule_has_a_wildcard_or_a_path_outside_of_resources() {
    for (place, rule) in rules() {
        for key in ["verbs", "resources", "apiGroups", "resourceNames"] {
            let wild = words(&rule[key]).iter().any(|word| word.contains('*'));
            assert!(!wild, "{place}: {rule}");
        }
        assert!(rule["nonResourceURLs"].is_null(), "{place}: {rule}");
    }
}

#[test]
fn no_grant_leads_to_more_rights_or_into_pods() {
    let forbidden = [
        "serviceaccounts",
        "serviceaccounts/token",
        "pods/exec",
        "pods/attach",
        "pods/portforward",
        "pods/ephemeralcontainers",
        "pods/eviction",
        "nodes/proxy",
        "persistentvolumes",
        "persistentvolumeclaims",
        "certificatesigningrequests",
        "roles",
        "rolebindings",
        "clusterrolebindings",
        "validatingwebhookconfigurations",
        "customresourcedefinitions",
        "apiservices",
        "tokenreviews",
    ];
    for (place, rule) in rules() {
        let resources = words(&rule["resources"]);
        for resource in &resources {
            assert!(!forbidden.contains(resource), "{place}: {rule}");
        }
        for verb in [
            "escalate",
            "bind",
            "impersonate",
            "deletecollection",
            "approve",
            "sign",
        ] {
            assert!(!words(&rule["verbs"]).contains(&verb), "{place}: {rule}");
        }
        let only_read = [
            "namespaces",
            "nodes",
            "poddisruptionbudgets",
            "clusterroles",
        ];
        if resources
            .iter()
            .any(|resource| only_read.contains(resource))
        {
            let verbs = words(&rule["verbs"]);
            assert!(
                verbs.iter().all(|verb| READ.contains(verb)),
                "{place}: {rule}"
            );
        }
    }
    for (place, rule) in about("clusterroles") {
        let names = words(&rule["resourceNames"]);
        assert!(
            names.len() == 1 && names[0].starts_with("otelagent-"),
            "{place}: {rule}"
        );
    }
}

#[test]
fn only_granted_secret_is_the_webhooks_ca_by_name() {
    let rules = about("secrets");
    assert_eq!(rules.len(), 2, "{rules:?}");
    for (place, rule) in rules {
        assert!(place.starts_with("Role otelagent-system/"), "{place}");
        assert_eq!(
            words(&rule["resourceNames"]),
            ["otelagent-webhook-authority"]
        );
        let verbs = words(&rule["verbs"]);
        let expected: &[&str] = if place.contains("operator") {
            &["get", "update"]
        } else {
            &["get"]
        };
        assert_eq!(verbs, expected, "{place}");
    }
}

#[test]
fn pods_are_created_only_in_the_canary_namespace_and_changed_only_among_agents() {
    for (place, rule) in about("pods") {
        let verbs = words(&rule["verbs"]);
        if place.starts_with("Role otelagent-canary/") {
            assert_eq!(verbs, ["create"], "{place}");
        } else if place == PLATFORM {
            assert_eq!(verbs, ["patch"], "{place}");
        } else {
            assert_eq!(verbs, ["list", "watch"], "{place}");
        }
    }
}

#[test]
fn agents_are_created_only_in_the_platform_namespace() {
    for (place, rule) in about("configmaps") {
        assert_eq!(place, PLATFORM, "{rule}");
    }
    for resource in ["configmaps", "daemonsets", "services"] {
        let rules = about(resource);
        let writing = rules
            .iter()
            .filter(|(_, rule)| words(&rule["verbs"]).contains(&"create"));
        let places: Vec<&str> = writing.map(|(place, _)| place.as_str()).collect();
        assert_eq!(places, [PLATFORM], "{resource}");
    }
    for (place, rule) in about("leases") {
        assert_eq!(place, "Role otelagent-system/otelagent-operator-lease");
        let creates = words(&rule["verbs"]) == ["create"];
        let named = words(&rule["resourceNames"]) == ["otelagent-operator"];
        assert!(creates || named, "{rule}");
    }
}

#[test]
fn webhook_has_its_own_account_and_writes_nothing() {
    let mut subjects: Vec<String> = Vec::new();
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        for binding in shipped_of(kind) {
            let all = binding["subjects"].as_array().unwrap();
            assert_eq!(all.len(), 1, "{binding}");
            assert_eq!(all[0]["kind"], "ServiceAccount", "{binding}");
            let name = all[0]["name"].as_str().unwrap();
            // The name of a role says whose it is.
            let role = binding["roleRef"]["name"].as_str().unwrap();
            assert!(role.starts_with(name), "{binding}");
            subjects.push(name.to_owned());
        }
    }
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects, ["otelagent-operator", "otelagent-webhook"]);
    let webhooks = rules()
        .into_iter()
        .filter(|(place, _)| place.contains("/otelagent-webhook"));
    let webhooks: Vec<_> = webhooks.collect();
    assert_eq!(webhooks.len(), 3);
    for (place, rule) in webhooks {
        let verbs = words(&rule["verbs"]);
        assert!(
            verbs.iter().all(|verb| READ.contains(verb)),
            "{place}: {rule}"
        );
    }
    for account in shipped_of("ServiceAccount") {
        assert_eq!(account["automountServiceAccountToken"], false, "{account}");
    }
}

#[test]
fn no_shipped_role_is_aggregated() {
    for (kind, aggregated) in [
        ("ClusterRole", "aggregationRule"),
        ("Role", "aggregationRule"),
    ] {
        for role in shipped_of(kind) {
            assert!(role[aggregated].is_null());
            let labels = role["metadata"]["labels"].to_string();
            assert!(!labels.contains("aggregate-to"), "{role}");
        }
    }
}
