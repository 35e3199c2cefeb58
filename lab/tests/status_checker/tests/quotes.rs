//! What the checker quotes.

use std::fs;

use super::super::quotes::ALL;

/// Words with single spaces, wherever lines break.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_quote_stands_in_the_documentation() {
    assert!(ALL.len() > 20, "{}", ALL.len());
    let invented = ALL.iter().filter(|quote| {
        let page = fs::read_to_string(demo::repository().join(quote.page)).unwrap();
        assert_eq!(words(quote.text), quote.text);
        !words(&page).contains(quote.text)
    });
    let invented: Vec<String> = invented.map(ToString::to_string).collect();
    assert!(invented.is_empty(), "in no page:\n{}", invented.join("\n"));
}
