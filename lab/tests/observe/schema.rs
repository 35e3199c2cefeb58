//! The dashboard by the schema that Grafana publishes for programs. Grafana itself is not run here.

use std::process::Command;

use testbed::parts::{self, Part};

use super::files;

/// With `make test-full`: the schema takes half a minute to build.
#[test]
fn dashboard_has_the_fields_of_grafanas_schema_and_no_others() {
    if !crate::test_scale::is_full() {
        return;
    }
    let program = parts::ensure(Part::DashboardSchema).expect("the program");
    let file = files::path(files::DASHBOARD);
    let output = Command::new(program).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let count = files::queries().len();
    let counted = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(counted.contains(&format!(", {count} queries")), "{counted}");
}
