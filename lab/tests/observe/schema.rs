//! The dashboard by the schema that Grafana publishes for programs. Grafana itself is not run here.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use testbed::parts::{self, Part};

use super::files::{self, Scratch};

fn check(file: &Path) -> Output {
    let program = parts::ensure(Part::DashboardSchema).expect("the program");
    Command::new(program).arg(file).output().unwrap()
}

#[test]
fn dashboard_has_the_fields_of_grafanas_schema_and_no_others() {
    let output = check(&files::path(files::DASHBOARD));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let count = files::queries().len();
    let counted = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(counted.contains(&format!(", {count} queries")), "{counted}");
}

/// That the check above would find something.
#[test]
fn mistakes_in_variables_panels_and_queries_are_found() {
    let text = files::text(files::DASHBOARD);
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    for place in [
        "",
        "/templating/list/1",
        "/panels/1/options",
        "/panels/1/targets/0",
    ] {
        let mut wrong = dashboard.clone();
        let found = wrong.pointer_mut(place).expect(place);
        found["mistake"] = json!(true);
        let file = Scratch::new("mistake.json", &wrong.to_string());
        let output = check(file.path());
        let said = String::from_utf8_lossy(&output.stderr);
        let is_found = !output.status.success() && said.contains("unexpected field 'mistake'");
        assert!(is_found, "{place:?}: {said}");
    }
}
