//! The shipped CRD is the one that the types describe.

#[test]
fn committed_crd_is_the_generated_one() {
    let committed = include_str!("../../crds/otelagents.yaml");
    assert_eq!(
        committed,
        otelagent_api::crd_yaml().unwrap(),
        "run `make crd` and commit the result"
    );
}

#[test]
fn crd_has_no_field_for_namespace_command_or_security_context() {
    let crd: serde_json::Value =
        serde_saphyr::from_str(&otelagent_api::crd_yaml().unwrap()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut names = Vec::new();
    collect(schema, &mut names);
    assert!(
        names.contains(&"mode".to_owned()),
        "the walk found the spec's fields: {names:?}"
    );
    for forbidden in [
        "namespace",
        "serviceAccount",
        "serviceAccountName",
        "command",
        "args",
        "volumes",
        "securityContext",
    ] {
        assert!(
            !names.contains(&forbidden.to_owned()),
            "`{forbidden}` would let users reach beyond their namespace"
        );
    }
}

fn collect(schema: &serde_json::Value, names: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            names.push(name.clone());
            collect(schema, names);
        }
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            collect(&schema[inner], names);
        }
    }
}
