//! What each mode renders, as golden files: a change to one restarts somebody's agents or makes
//! somebody's pods stale, and must be seen in review.

use std::fmt::Write as _;

use otelagent_core::build::{topology, validate};

use super::{agent, environment};

#[test]
fn objects_and_recipe_of_each_fixture_are_the_golden_ones() {
    insta::glob!("fixtures/*.yaml", |path| {
        let valid = validate(
            &agent(&std::fs::read_to_string(path).unwrap()),
            &environment(),
        )
        .expect("a valid fixture");
        let mode = topology(valid.wanted());
        let mut text = format!("# endpoint: {}\n", mode.endpoint(&valid, &environment()));
        for object in mode.objects(&valid, &environment()) {
            text.push_str("---\n");
            text.push_str(&serde_saphyr::to_string(&object.to_json()).unwrap());
        }
        let recipe = mode.recipe(&valid, &environment());
        writeln!(text, "--- # recipe {}", recipe.hash()).unwrap();
        text.push_str(&serde_saphyr::to_string(&recipe).unwrap());
        insta::assert_snapshot!(text);
    });
}
