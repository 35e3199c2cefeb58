//! Recipes as the modes make them, made harder.

use std::sync::LazyLock;
use std::time::Duration;

use otelagent_api::Mode;
use otelagent_api::{OnFailure, Selector};
use otelagent_core::build::validate;
use otelagent_core::inject::environment::{first_variables, rules};
use otelagent_core::inject::policy::PolicyInput;
use otelagent_core::inject::{Moved, Namespaces, Recipe, Selection};
use serde_json::json;

use crate::agents::{agent, desired, environment};

/// Where policies are verified.
pub const CANARY: &str = "otelagent-canary";

/// The annotation to which a sidecar with a queue on disk adds its volume.
pub const EVICTABLE: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// The recipe of a fixture.
pub fn recipe(fixture: &str) -> Recipe {
    let path = crate::repository().join(format!("tests/pure/fixtures/{fixture}.yaml"));
    let yaml = std::fs::read_to_string(path).expect("a fixture");
    let valid = validate(&agent(&yaml), &environment()).expect("a valid fixture");
    desired(&valid).recipe
}

/// The sidecar's, with declared ports, an annotation of every kind of character, and what comes with a queue on
/// disk.
pub fn sidecar() -> Recipe {
    let mut recipe = recipe("sidecar");
    let sidecar = recipe.sidecar.as_mut().expect("a sidecar");
    sidecar["ports"] = json!([{"containerPort": 4317}, {"containerPort": 4318, "protocol": "TCP"}]);
    let every: String = (1..0x250_u32)
        .chain([0x2028, 0xFEFF, 0xFFFF, 0x1F600])
        .filter_map(char::from_u32)
        .collect();
    recipe.env[0].value = "http://127.0.0.1:4317".into();
    // As of a queue on disk.
    let queue = "otelagent-queue".to_owned();
    recipe.joined_annotations.insert(EVICTABLE.into(), queue);
    recipe.storage_limit = Some("128Mi".into());
    let moved = recipe.moved.as_mut().expect("other ports");
    moved.sidecar["ports"] =
        json!([{"containerPort": 14317}, {"containerPort": 14318, "protocol": "TCP"}]);
    moved.env[0].value = "http://127.0.0.1:14317".into();
    for annotations in [&mut recipe.annotations, &mut moved.annotations] {
        annotations.insert("otelagent.dev/every-character".into(), every.clone());
    }
    recipe
}

/// The smallest sidecar, for golden files that change only when policies do.
pub fn small_sidecar() -> Recipe {
    let mut recipe = recipe("host-port");
    recipe.mode = Mode::Sidecar;
    recipe.first = first_variables(false);
    recipe.env = rules("http://127.0.0.1:4317", Duration::from_millis(500), false);
    recipe.annotations.insert(
        "otelagent.dev/agent-config".into(),
        "receivers: {}\n".into(),
    );
    recipe.sidecar = Some(json!({
        "name": "otelagent",
        "image": "agent:1",
        "restartPolicy": "Always",
        "ports": [{"containerPort": 4317}, {"containerPort": 4318}],
    }));
    let mut sidecar = recipe.sidecar.clone().expect("a sidecar");
    sidecar["ports"] = json!([{"containerPort": 14317}, {"containerPort": 14318}]);
    recipe.moved = Some(Moved {
        annotations: recipe.annotations.clone(),
        sidecar,
        env: rules("http://127.0.0.1:14317", Duration::from_millis(500), false),
    });
    recipe.volumes = vec![json!({"name": "otelagent-config", "emptyDir": {}})];
    recipe
}

/// One of each shape: with and without a sidecar, with and without the node's address, with and without a protocol, with
/// a start gate.
pub fn each() -> &'static [Recipe] {
    static EACH: LazyLock<Vec<Recipe>> = LazyLock::new(|| {
        vec![
            sidecar(),
            recipe("placed"),
            recipe("node-local"),
            recipe("start-gate"),
        ]
    });
    &EACH
}

/// Policies of an agent `name` for a namespace as a whole.
pub fn input(name: &str, namespace: &str, recipe: &Recipe) -> PolicyInput {
    let mut recipe = recipe.clone();
    recipe.agent = otelagent_core::names::agent_label("otelagent-system", name);
    PolicyInput {
        namespace: "otelagent-system".into(),
        name: name.into(),
        uid: "uid".into(),
        recipe,
        selection: Selection {
            namespaces: Namespaces::Named(namespace.into()),
            pods: Selector::default(),
        },
        exclusions: Vec::new(),
        excluded_namespaces: vec!["kube-system".into(), "otelagent-system".into()],
        canary_namespace: CANARY.into(),
        on_failure: OnFailure::Ignore,
        owner_reference: None,
    }
}
