//! What the workflows of `.github` run of others.

use otelagent_test_support::repository;

#[test]
fn every_action_is_pinned_by_its_commit() {
    let folder = repository().join(".github/workflows");
    let mut pinned = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let actions = text.lines().filter_map(|line| line.split_once("uses:"));
        for (_, action) in actions {
            let action = action.split_whitespace().next().unwrap_or_default();
            let (_, commit) = action.split_once('@').expect(action);
            let is_commit = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(is_commit, "{action}");
            pinned += 1;
        }
    }
    assert!(pinned > 5, "{pinned} actions");
}
