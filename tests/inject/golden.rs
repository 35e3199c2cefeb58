//! The policies of each shape of recipe, as golden files. A changed policy is verified and bound again on every
//! cluster, so a review must see it.

use otelagent_api::{OnFailure, Operator, Requirement, Selector};
use otelagent_core::inject::policy::render;
use otelagent_core::inject::{Namespaces, Selection};
use serde_json::json;

use otelagent_test_support::recipes;
use otelagent_test_support::recipes::input;

#[test]
fn policies_of_each_shape_are_the_golden_ones() {
    let mut platform = input("node", "", &recipes::recipe("node-local"));
    let requirement = Requirement {
        key: "tier".into(),
        operator: Operator::NotIn,
        values: vec!["system".into()],
    };
    platform.selection = Selection {
        namespaces: Namespaces::Labelled(Selector {
            match_expressions: vec![requirement],
            ..Selector::default()
        }),
        pods: Selector {
            match_labels: [("team".to_owned(), "a".to_owned())].into(),
            ..Selector::default()
        },
    };
    platform.exclusions = vec![Selection {
        namespaces: Namespaces::Named("shop".into()),
        pods: Selector::default(),
    }];
    platform.on_failure = OnFailure::Fail;
    platform.owner_reference = Some(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "name": "otelagent-owner", "uid": "u",
    }));
    let inputs = [
        ("sidecar", input("side", "shop", &recipes::small_sidecar())),
        (
            "node-address",
            input("port", "shop", &recipes::recipe("host-port")),
        ),
        (
            "start-gate",
            input("gate", "shop", &recipes::recipe("start-gate")),
        ),
        ("platform", platform),
    ];
    for (name, input) in inputs {
        let rendered = render(&input).unwrap();
        let objects = rendered.policy.iter();
        let objects = objects.chain([&rendered.canary, &rendered.binding]);
        let text: Vec<String> = objects
            .chain(&rendered.warnings)
            .map(|object| serde_saphyr::to_string(object).unwrap())
            .collect();
        insta::with_settings!({snapshot_path => "../golden", prepend_module_to_snapshot => false, omit_expression => true}, {
            insta::assert_snapshot!(format!("policies-{name}"), text.join("---\n"));
        });
    }
}
