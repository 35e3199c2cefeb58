//! Every generated edit, sent to a real API server as dry run: its verdict is the predicate's.

use super::edits::{self, Edit, MODES, apply};
use super::predicate::refusals;
use super::schema;
use super::world::{Server, agent, base};

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_verdict_on_every_edit_of_every_field_is_the_predicates() {
    if !testbed::skip_unless_possible("edits of every field against a real API server") {
        return;
    }
    let server = Server::start().await;
    let schema = schema::spec();
    let spec = base();
    assert!(server.create(&agent("verdicts", &spec)).await.is_ok());
    let mut differ = Vec::new();
    let (mut taken, mut refused) = (0, 0);
    for field in schema::fields(&schema) {
        for (index, value) in edits::values(&field).into_iter().enumerate() {
            let mode = (index % 3 == 1).then(|| MODES[index % 4]);
            let edit = Edit { mode, path: field.path.clone(), value };
            let edited = apply(&schema, &spec, &edit);
            let answer = server.dry_run("verdicts", &edited).await;
            let expected = refusals(&schema, Some(&spec), &edited);
            match &answer {
                Ok(_) => taken += 1,
                Err(_) => refused += 1,
            }
            if answer.is_ok() != expected.is_empty() {
                differ.push(format!("{edit}\n    server: {:?}\n    predicate: {expected:?}", answer.err()));
            }
        }
    }
    println!("{taken} edits taken, {refused} refused");
    assert!(taken > 200 && refused > 200, "both kinds were tried: {taken}, {refused}");
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n"));
}
