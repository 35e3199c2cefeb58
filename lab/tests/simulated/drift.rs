//! Drift: users change and remove every field that the operator owns, and delete its objects. The operator restores its
//! own fields and leaves those of users alone.
//!
//! The test reads what the operator owns from the server's own record (`metadata.managedFields`, KEP-555), so a new
//! field is tried without a line here. The operator checks a settled object again after five minutes; an earlier
//! repair shows that it noticed the change.
//!
//! `make test` removes the owner references and labels, deletes every object of `NodeLocal` and changes a sample of its
//! fields. `make test-full` changes every field in every topology.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use otelagent_core::names;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::run::{Outcome, Run, is, send};
use super::sample::drawn;
use super::topology::{ALL, Topology};
use crate::status_checker::{end_state, get, list, mismatches_within};
use crate::test_scale::is_full;

/// Repairs take a second; far below the five minutes of the periodic reconcile.
const PATIENCE: Duration = Duration::from_mins(5);
/// Changes drawn per topology in `make test`.
const SAMPLE: usize = 12;
/// What another user puts beside what the operator owns.
const FOREIGN: &str = "example.com/theirs";
/// Times and values that follow from them: different after a repair.
const MOMENTS: [&str; 3] = [
    names::ANNOTATION_BOUND_AT,
    names::ANNOTATION_REASON,
    "otelagent.dev/applied",
];

/// One object and what is done to it.
#[derive(Clone, Debug)]
struct Harm {
    path: String,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// A field, known by the server's name for it, gets another value.
    Changed(String),
    /// The field is removed.
    Removed(String),
    /// All labels and owner references that name the owner are removed, except one.
    Disowned(&'static str),
    /// The whole object is deleted.
    Deleted,
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_owned_fields_are_reverted_and_others_kept() {
    if !testbed::skip_unless_possible("children changed by users") {
        return;
    }
    let topologies = if is_full() { &ALL[..] } else { &ALL[3..4] };
    let outcomes: Vec<Outcome<String>> = futures::stream::iter(topologies)
        .map(|topology| async move {
            let run = Run::start().await;
            let outcome = harmed(&run, *topology).await;
            run.end().await;
            outcome.map_err(|why| format!("{}: {why}", topology.name))
        })
        .buffer_unordered(ALL.len())
        .collect()
        .await;
    let mut wrong = Vec::new();
    for outcome in outcomes {
        match outcome {
            Ok(report) => println!("{report}"),
            Err(why) => wrong.push(why),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn harmed(run: &Run, topology: Topology) -> Outcome<String> {
    settle(run, topology).await?;
    let reference = run.end_state().await?;
    let paths = owned_objects(run).await?;
    let theirs =
        json!({"metadata": {"labels": {FOREIGN: "kept"}, "annotations": {FOREIGN: "kept"}}});
    let (mut harms, mut uids) = (Vec::new(), Vec::new());
    for path in &paths {
        run.patch(path, &theirs).await?;
        let live = get(&run.admin, path).await?;
        harms.extend(harms_to(&live, path));
        uids.push(live["metadata"]["uid"].clone());
    }
    let all = harms.len();
    // What tells whose an object is, is tried in any case.
    let is_disowned = |harm: &Harm| match &harm.what {
        What::Disowned(_) => true,
        What::Changed(field) | What::Removed(field) => field.contains(names::LABEL_MANAGED_BY),
        What::Deleted => false,
    };
    let (disowned, fields): (Vec<Harm>, Vec<Harm>) = harms.into_iter().partition(is_disowned);
    // By number: their names have those of the run in them, and the same are to be drawn again.
    let fields = drawn((0..fields.len()).collect(), SAMPLE)
        .into_iter()
        .map(|at: usize| fields[at].clone());
    let harms: Vec<Harm> = disowned.into_iter().chain(fields).collect();
    let (mut undone, mut refused) = (0, 0);
    for harm in &harms {
        if undo(run, harm).await? {
            undone += 1;
        } else {
            refused += 1;
        }
    }
    for (path, uid) in paths.iter().zip(uids) {
        let live = get(&run.admin, path).await?;
        // An owner that does not exist makes the garbage collector delete it: it may be another by now.
        let kept = live["metadata"]["uid"] != uid
            || ["labels", "annotations"]
                .iter()
                .all(|key| live["metadata"][key][FOREIGN] == "kept");
        if !kept {
            return Err(format!(
                "{path} has lost what was not the operator's: {live}"
            ));
        }
        run.patch(
            path,
            &json!({"metadata": {"labels": {FOREIGN: null}, "annotations": {FOREIGN: null}}}),
        )
        .await?;
    }
    for path in &paths {
        let harm = Harm {
            path: path.clone(),
            what: What::Deleted,
        };
        undo(run, &harm).await?;
    }
    run.until_settled(topology).await?;
    let mismatches = mismatches_within(&run.admin, &run.namespace, &run.name, PATIENCE).await?;
    let end = run.end_state().await?;
    let wrong = end_state::differences(&reference, &end);
    if !mismatches.is_empty() || !wrong.is_empty() {
        return Err(format!("in the end: {mismatches:?} {wrong:?}"));
    }
    Ok(format!(
        "{}: {} of {all} changes to {} objects: {undone} undone, {refused} refused by the server",
        topology.name,
        harms.len(),
        paths.len()
    ))
}

/// The object serves, with applications.
async fn settle(run: &Run, topology: Topology) -> Outcome<()> {
    run.create(topology).await?;
    run.until_serving(topology).await?;
    run.applications().await?;
    run.until_settled(topology).await
}

/// Everything the operator has made for the object, as paths.
async fn owned_objects(run: &Run) -> Outcome<Vec<String>> {
    let label = names::agent_label(&run.namespace, &run.name);
    let admission =
        end_state::ADMISSION.map(|kind| format!("/apis/admissionregistration.k8s.io/v1/{kind}"));
    let namespaced = ["/api/v1", "/apis/apps/v1", "/api/v1"]
        .into_iter()
        .zip(["configmaps", "daemonsets", "services"])
        .map(|(api, kind)| format!("{api}/namespaces/{}/{kind}", run.namespace));
    let mut found = Vec::new();
    for path in namespaced.chain(admission) {
        for object in list(&run.admin, &path).await? {
            if object["metadata"]["labels"][names::LABEL_OWNER] == *label {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                found.push(format!("{path}/{name}"));
            }
        }
    }
    Ok(found)
}

fn harms_to(live: &Value, path: &str) -> Vec<Harm> {
    let mut all = vec![
        What::Disowned(names::LABEL_OWNER),
        What::Disowned("ownerReferences"),
    ];
    for field in owned(live).into_keys() {
        all.push(What::Changed(field.clone()));
        all.push(What::Removed(field));
    }
    all.into_iter()
        .map(|what| Harm {
            path: path.to_owned(),
            what,
        })
        .collect()
}

/// Makes the change and waits until the operator has reverted it; `false` if the server refused it.
async fn undo(run: &Run, harm: &Harm) -> Outcome<bool> {
    let before = get(&run.admin, &harm.path).await?;
    let expected = lasting(&before);
    match &harm.what {
        What::Deleted => {
            send(&run.admin, http::Method::DELETE, &harm.path, &Value::Null).await?;
        }
        what => {
            let steps = steps(what, &before);
            if steps.is_empty() {
                return Ok(false);
            }
            if let Err(why) = change(run, &harm.path, &steps).await {
                println!("refused: {what:?}: {why}");
                return Ok(false);
            }
        }
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let now = get(&run.admin, &harm.path).await?;
        let stands = !now.is_null() && now["metadata"]["deletionTimestamp"].is_null();
        if stands && lasting(&now) == expected {
            tidy(run, &harm.path, &before, &now).await?;
            return Ok(true);
        }
        if Instant::now() > end {
            let status = get(&run.admin, &run.path()).await?["status"].take();
            return Err(format!(
                "{harm:?} was not undone: {:?}\n{status}",
                end_state::differences(&expected, &lasting(&now))
            ));
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// An entry of a list under another name belongs to its maker and stays beside the operator's; removes it again.
async fn tidy(run: &Run, path: &str, before: &Value, now: &Value) -> Outcome<()> {
    if before["metadata"]["uid"] != now["metadata"]["uid"] || before["spec"] == now["spec"] {
        return Ok(());
    }
    let steps = json!([{"op": "replace", "path": "/spec", "value": before["spec"]}]);
    change(run, path, steps.as_array().map_or(&[], Vec::as_slice)).await
}

/// What must be unchanged.
fn lasting(live: &Value) -> BTreeMap<String, Value> {
    let mut fields = owned(live);
    fields.retain(|field, _| !MOMENTS.iter().any(|moment| field.ends_with(moment)));
    fields
}

/// The fields that the operator has applied, by the server's name for them.
fn owned(live: &Value) -> BTreeMap<String, Value> {
    leaves(live)
        .into_iter()
        .filter_map(|(field, pointer)| Some((field, live.pointer(&pointer)?.clone())))
        .collect()
}

/// Their JSON pointers.
fn leaves(live: &Value) -> BTreeMap<String, String> {
    let managers = live["metadata"]["managedFields"].as_array();
    let applied = managers
        .into_iter()
        .flatten()
        .filter(|entry| entry["manager"] == names::FIELD_MANAGER && entry["operation"] == "Apply");
    let mut found = BTreeMap::new();
    for entry in applied {
        collect(&entry["fieldsV1"], live, "", "", &mut found);
    }
    found
}

/// A field set: `f:name` is a field, `k:{…}` the item of a list with these keys, `v:…` that of this value.
fn collect(
    fields: &Value,
    live: &Value,
    name: &str,
    pointer: &str,
    found: &mut BTreeMap<String, String>,
) {
    let inner = fields.as_object().into_iter().flatten();
    let inner: Vec<_> = inner.filter(|(key, _)| *key != ".").collect();
    if inner.is_empty() {
        found.insert(name.to_owned(), pointer.to_owned());
    }
    for (key, fields) in inner {
        let (kind, rest) = key.split_once(':').unwrap_or(("", key));
        let step = match kind {
            "f" => Some(rest.replace('~', "~0").replace('/', "~1")),
            _ => position(live, kind, rest).map(|at| at.to_string()),
        };
        let Some(step) = step else { continue };
        let Some(value) = live.pointer(&format!("/{step}")) else {
            continue;
        };
        collect(
            fields,
            value,
            &format!("{name} {key}"),
            &format!("{pointer}/{step}"),
            found,
        );
    }
}

fn position(items: &Value, kind: &str, text: &str) -> Option<usize> {
    let wanted: Value = serde_json::from_str(text).ok()?;
    items.as_array()?.iter().position(|item| match kind {
        "k" => wanted
            .as_object()
            .is_some_and(|keys| keys.iter().all(|(key, value)| item[key] == *value)),
        _ => *item == wanted,
    })
}

/// The change as a JSON patch (RFC 6902).
fn steps(what: &What, live: &Value) -> Vec<Value> {
    let pointers = leaves(live);
    match what {
        What::Changed(field) => pointers
            .get(field)
            .and_then(|pointer| {
                let other = another(live.pointer(pointer)?)?;
                Some(json!({"op": "replace", "path": pointer, "value": other}))
            })
            .into_iter()
            .collect(),
        What::Removed(field) => pointers
            .get(field)
            .map(|pointer| json!({"op": "remove", "path": pointer}))
            .into_iter()
            .collect(),
        What::Disowned(left) => {
            let labels = [
                names::LABEL_MANAGED_BY,
                names::LABEL_OWNER,
                names::LABEL_OWNER_UID,
            ];
            let labels = labels
                .iter()
                .filter(|label| *label != left && !live["metadata"]["labels"][**label].is_null());
            let labels =
                labels.map(|label| format!("/metadata/labels/{}", label.replace('/', "~1")));
            let references =
                !live["metadata"]["ownerReferences"].is_null() && *left != "ownerReferences";
            let references = references.then(|| "/metadata/ownerReferences".to_owned());
            // Without both a cluster-scoped object has no owner.
            let is_of_cluster = live["metadata"]["namespace"].is_null();
            if is_of_cluster && *left == "ownerReferences" {
                return Vec::new();
            }
            labels
                .chain(references)
                .map(|path| json!({"op": "remove", "path": path}))
                .collect()
        }
        What::Deleted => Vec::new(),
    }
}

/// Another value of the same type.
fn another(value: &Value) -> Option<Value> {
    Some(match value {
        Value::String(text) => json!(format!("{text}x")),
        Value::Number(number) => json!(number.as_i64()? + 1),
        Value::Bool(is) => json!(!is),
        Value::Array(items) => json!(items[..items.len().checked_sub(1)?]),
        Value::Object(fields) if fields.is_empty() => json!({"medium": "Memory"}),
        Value::Object(_) => json!({}),
        Value::Null => return None,
    })
}

async fn change(run: &Run, path: &str, steps: &[Value]) -> Outcome<()> {
    let request = http::Request::patch(path)
        .header("content-type", "application/json-patch+json")
        .body(json!(steps).to_string().into_bytes())
        .map_err(|error| error.to_string())?;
    let answer = run.admin.request::<Value>(request).await;
    answer.map(drop).map_err(|error| format!("{path}: {error}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_object_is_named_in_the_status_and_never_touched() {
    Run::through("names that are taken", async |run| taken(run, ALL[3]).await).await;
}

/// Another user makes every object before the operator comes to it.
async fn taken(run: &Run, topology: Topology) -> Outcome<()> {
    settle(run, topology).await?;
    let mut foreign = Vec::new();
    for path in owned_objects(run).await? {
        foreign.push((path.clone(), theirs(&get(&run.admin, &path).await?)));
    }
    let copies = copies(&foreign);
    for (path, copy) in &copies {
        make(run, path, copy).await?;
    }
    send(&run.admin, http::Method::DELETE, &run.path(), &Value::Null).await?;
    for (path, object) in &foreign {
        run.until(&format!("without {path}"), async || {
            let left = get(&run.admin, path).await?;
            Ok(left.is_null().then_some(()).ok_or_else(|| left.to_string()))
        })
        .await?;
        make(run, path, object).await?;
    }
    sweep(run).await?;
    run.create(topology).await?;
    while !foreign.is_empty() {
        let named = until_named(run, &foreign).await?;
        for (path, object) in &foreign {
            untouched(run, path, object).await?;
        }
        let (path, _) = foreign.remove(named);
        send(&run.admin, http::Method::DELETE, &path, &Value::Null).await?;
    }
    run.until_settled(topology).await?;
    // Nor is a copy taken for a part of a route that goes.
    let other = ALL[1];
    run.patch(&run.path(), &json!({"spec": other.spec()}))
        .await?;
    run.until_serving(other).await?;
    run.roll().await?;
    run.until_settled(other).await?;
    for (path, copy) in &copies {
        untouched(run, path, copy).await?;
        send(&run.admin, http::Method::DELETE, path, &Value::Null).await?;
    }
    Ok(())
}

/// The same as another user makes it: labels and all, without a reference or what the server adds.
fn theirs(live: &Value) -> Value {
    let metadata = &live["metadata"];
    let mut labels = metadata["labels"].clone();
    // Of another object, as a backup that is played back would have it.
    if !labels[names::LABEL_OWNER_UID].is_null() {
        labels[names::LABEL_OWNER_UID] = json!("another");
    }
    let mut spec = live["spec"].clone();
    for key in ["clusterIP", "clusterIPs"] {
        if let Some(spec) = spec.as_object_mut() {
            spec.remove(key);
        }
    }
    let mut object = json!({
        "apiVersion": live["apiVersion"], "kind": live["kind"],
        "metadata": {"name": metadata["name"], "labels": labels, "annotations": metadata["annotations"]},
    });
    for (key, value) in [("spec", spec), ("data", live["data"].clone())] {
        if !value.is_null() {
            object[key] = value;
        }
    }
    object
}

/// A Service and the policies under other names, with the labels of the operator's own. Their bindings select
/// nothing: of two that inject the same pod, the server takes any first.
fn copies(objects: &[(String, Value)]) -> Vec<(String, Value)> {
    let copied = objects
        .iter()
        .filter(|(path, _)| !path.contains("/daemonsets/"));
    let copied = copied.map(|(path, object)| {
        let mut copy = object.clone();
        let (collection, name) = path.rsplit_once('/').unwrap_or_default();
        let name = format!("copy-of-{name}");
        copy["metadata"]["name"] = json!(name);
        if path.contains("bindings/") {
            copy["spec"]["matchResources"] =
                json!({"namespaceSelector": {"matchLabels": {"copies": "select-nothing"}}});
        }
        (format!("{collection}/{name}"), copy)
    });
    copied.collect()
}

/// Makes the operator look for objects without an owner, as it does when an `OtelAgent` goes.
async fn sweep(run: &Run) -> Outcome<()> {
    let path = format!("{}-passing", run.path());
    let (_, name) = path.rsplit_once('/').unwrap_or_default();
    let passing = json!({
        "apiVersion": "otelagent.dev/v1alpha1", "kind": "OtelAgent", "metadata": {"name": name},
        "spec": {"mode": "Sidecar", "export": {"endpoint": "http://c.o.svc:4317"}},
    });
    make(run, &path, &passing).await?;
    send(&run.admin, http::Method::DELETE, &path, &Value::Null).await?;
    sleep(Duration::from_secs(3)).await;
    Ok(())
}

async fn make(run: &Run, path: &str, object: &Value) -> Outcome<()> {
    let (collection, _) = path.rsplit_once('/').unwrap_or_default();
    send(&run.admin, http::Method::POST, collection, object)
        .await
        .map(drop)
}

/// Which of the taken names the status speaks of.
async fn until_named(run: &Run, foreign: &[(String, Value)]) -> Outcome<usize> {
    let end = Instant::now() + PATIENCE;
    loop {
        let agent = get(&run.admin, &run.path()).await?;
        let conditions = agent["status"]["conditions"].as_array();
        let ready = conditions.and_then(|all| all.iter().find(|found| found["type"] == "Ready"));
        let message = ready
            .map(|ready| ready["message"].to_string())
            .unwrap_or_default();
        let named = foreign.iter().position(|(_, object)| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let kind = object["kind"].as_str().unwrap_or_default();
            message.contains(&format!("{kind} {name} exists"))
        });
        if let Some(named) = named.filter(|_| is(&agent, "Ready", "False")) {
            return Ok(named);
        }
        if Instant::now() > end {
            return Err(format!("no taken name is reported: {}", agent["status"]));
        }
        sleep(Duration::from_millis(300)).await;
    }
}

async fn untouched(run: &Run, path: &str, made: &Value) -> Outcome<()> {
    let live = get(&run.admin, path).await?;
    let managers = live["metadata"]["managedFields"].as_array();
    let is_written = managers
        .into_iter()
        .flatten()
        .any(|entry| entry["manager"] == names::FIELD_MANAGER);
    if live.is_null() || is_written || theirs(&live)["metadata"] != made["metadata"] {
        return Err(format!("{path} was another user's, and is now {live}"));
    }
    Ok(())
}
