//! What each mode renders, as golden files. A change to one replaces agents or makes pods stale, so a review must see
//! it.

use std::fmt::Write as _;

use otelagent_core::build::validate;

use super::{agent, desired, environment};

#[test]
fn objects_and_recipe_of_each_fixture_are_the_golden_ones() {
    insta::glob!("fixtures/*.yaml", |path| {
        let valid = validate(
            &agent(&std::fs::read_to_string(path).unwrap()),
            &environment(),
        )
        .expect("a valid fixture");
        let desired = desired(&valid);
        let mut text = format!("# endpoint: {}\n", desired.endpoint);
        for object in &desired.objects {
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(&object.to_json()).unwrap());
        }
        let recipe = &desired.recipe;
        writeln!(text, "--- # recipe {}", recipe.hash()).unwrap();
        text.push_str(&serde_saphyr::to_string(recipe).unwrap());
        insta::assert_snapshot!(text);
    });
}
