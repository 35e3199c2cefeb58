//! `docs/pods.md` describes each shape of pod that is tested.

use otelagent_test_support::manifests::text;
use otelagent_test_support::pod_shapes::cases;

#[test]
fn documentation_has_a_line_for_each_pod() {
    let page = text("docs/pods.md");
    for case in cases() {
        let line = format!("| {} |", case.name);
        assert!(page.contains(&line), "no line `{line}`");
    }
}
