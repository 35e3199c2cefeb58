//! `docs/security.md` has a line for each threat and each check, and every test it names exists.

use otelagent_test_support::manifests::text;
use otelagent_test_support::repository;

/// First cells of the tables' lines.
fn lines(page: &str) -> Vec<(&str, &str)> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("| "));
    lines.filter_map(|line| line.split_once(" | ")).collect()
}

#[test]
fn every_threat_and_every_check_has_its_line() {
    let page = text("docs/security.md");
    let lines = lines(&page);
    let has = |name: &str| lines.iter().filter(|(first, _)| *first == name).count() == 1;
    for threat in 1..=32 {
        assert!(has(&format!("T{threat}")), "T{threat}");
    }
    for check in 1..=64 {
        assert!(has(&check.to_string()), "{check}");
    }
}

#[test]
fn every_test_that_is_named_exists() {
    let page = text("docs/security.md");
    let mut named = 0;
    for quoted in page.split('`').skip(1).step_by(2) {
        let Some((file, test)) = quoted.split_once("::") else {
            continue;
        };
        named += 1;
        let path = repository().join(file);
        let source = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{quoted}: {why}"));
        let is_there = source.contains(&format!("fn {test}("));
        assert!(is_there, "{quoted} does not exist");
    }
    assert!(named > 70, "{named} tests are named");
}

/// What a line says that names no test: it must say that nothing is proved.
#[test]
fn a_line_without_a_test_says_that_it_is_not_defended_or_does_not_apply() {
    let page = text("docs/security.md");
    for (first, rest) in lines(&page) {
        let number = first.trim_start_matches('T');
        if number.parse::<u8>().is_err() {
            continue;
        }
        let words = [
            "Not defended",
            "Does not apply",
            "Out of reach",
            "By setting",
        ];
        let says = words.iter().any(|word| rest.contains(word));
        assert!(rest.contains("::") || says, "{first}: {rest}");
    }
}
