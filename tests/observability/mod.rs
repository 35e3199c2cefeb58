//! The dashboard, the alerts and their runbooks against the reference of metrics, which is made from code.

mod dashboard;
mod promql;
mod reference;
mod rules;
mod scraping;

use std::fs;

use otelagent_operator::runtime::described;
use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;

const PAGE: &str = "docs/metrics.md";

/// The text between two markers of the page, and what is before and after it.
fn part<'p>(page: &'p str, of: &str) -> (&'p str, &'p str, &'p str) {
    let begin = format!("<!-- {of}: begin -->\n");
    let end = format!("<!-- {of}: end -->");
    let from = page.find(&begin).expect("the marker") + begin.len();
    let to = page.find(&end).expect("the marker");
    (&page[..from], &page[from..to], &page[to..])
}

#[test]
fn documentation_has_the_metrics_of_the_operator() {
    let page = text(PAGE);
    let (before, written, after) = part(&page, "operator");
    let reference = described::reference();
    if std::env::var_os("OTELAGENT_WRITE_REFERENCE").is_some() {
        let page = format!("{before}{reference}{after}");
        fs::write(repository().join(PAGE), page).unwrap();
        return;
    }
    assert!(
        written == reference,
        "{PAGE} is not up to date: run `make reference`"
    );
}
