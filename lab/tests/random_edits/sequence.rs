//! Sequences of edits of a running object. After each edit the test compares the result with the predicate and with the
//! cluster itself, and in the end with an object newly created from the same spec.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use otelagent_operator::runtime::Metrics;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::edits::{self, Edit, MODES, apply};
use super::predicate::refusals;
use super::schema;
use super::world::{EditServer, Numbers, PLATFORM, SHOP, agent, base, seed};
use crate::status_checker::{end_state, mismatches_within};
use crate::test_scale::is_full;

/// Edits of a sequence in `make test`, which take less than a minute, and in `make test-full`.
const SHORT: usize = 20;
const FULL: usize = 500;
/// Everything settles within this time, also on a busy machine.
const PATIENCE: Duration = Duration::from_mins(5);
/// A pod that the server does not accept within this time counts as refused.
const REFUSED: Duration = Duration::from_secs(5);
/// Edits between two comparisons with a newly created object.
const STRIDE: usize = 50;

/// One step of a sequence.
#[derive(Clone, Debug)]
enum Move {
    Edit(Edit),
    /// Back to the last spec that was carried out.
    Back,
    /// The applications' pods are replaced.
    Roll,
}

impl std::fmt::Display for Move {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Edit(edit) => edit.fmt(f),
            Self::Back => f.write_str("back to the last good spec"),
            Self::Roll => f.write_str("the applications' pods are replaced"),
        }
    }
}

/// A sequence of so many moves. Fields are drawn first, so that one with many values is not drawn more often.
fn sequence(seed: u64, length: usize) -> Vec<Move> {
    let fields = schema::fields(&schema::spec());
    let mut numbers = Numbers(seed);
    let mut moves = Vec::new();
    while moves.len() < length {
        moves.push(match numbers.below(10) {
            0 => Move::Back,
            1 => Move::Roll,
            _ => {
                let field = &fields[numbers.below(fields.len())];
                let mut values = edits::values(field);
                let value = values.swap_remove(numbers.below(values.len()));
                let mode = (numbers.below(3) == 0).then(|| MODES[numbers.below(4)]);
                Move::Edit(Edit {
                    mode,
                    path: field.path.clone(),
                    value,
                })
            }
        });
    }
    moves
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_object_ends_as_one_created_with_its_last_spec() {
    if !testbed::skip_unless_possible("random edits of the spec") {
        return;
    }
    let (seed, full) = (seed(), is_full());
    let length = std::env::var("OTELAGENT_MOVES").ok();
    let length = length.and_then(|length| length.parse().ok());
    let moves = sequence(seed, length.unwrap_or(if full { FULL } else { SHORT }));
    println!(
        "sequence of {} moves; again with OTELAGENT_SEED={seed}",
        moves.len()
    );
    let mut subject = Subject::start("subject").await;
    let begun = Instant::now();
    let Err((at, why)) = subject.go(&moves).await else {
        println!("{:?} in {:.0?}", subject.tally, begun.elapsed());
        return;
    };
    println!("seed {seed}, move {at}: {why}");
    // Shortened: a part of the moves before is left out while the same failure remains.
    let mut shortest = moves[..=at].to_vec();
    let mut part = shortest.len() / 2;
    let begun = Instant::now();
    let goes_on = || begun.elapsed() < Duration::from_mins(5);
    while part > 0 && goes_on() {
        let mut from = 0;
        while from + part < shortest.len() && goes_on() {
            let mut fewer = shortest.clone();
            fewer.drain(from..from + part);
            subject.anew().await;
            match subject.go(&fewer).await {
                Err((last, _)) => {
                    fewer.truncate(last + 1);
                    shortest = fewer;
                }
                Ok(()) => from += part,
            }
        }
        part /= 2;
    }
    let lines: Vec<String> = shortest.iter().map(|step| format!("  {step}")).collect();
    panic!(
        "seed {seed}, move {at}: {why}\nthe shortest sequence that still fails:\n{}",
        lines.join("\n")
    );
}

/// The results of the edits.
#[derive(Debug, Default)]
struct Tally {
    carried_out: usize,
    refused_by_server: usize,
    refused_by_operator: usize,
    rolls: usize,
    compared_with_new: usize,
    /// Of these, from the first spec: with the last one agents cannot start.
    compared_from_base: usize,
}

/// One object, and what is known of it.
struct Subject {
    server: EditServer,
    name: &'static str,
    schema: Value,
    /// The present spec, as it was sent.
    spec: Value,
    /// The last one that was carried out.
    good: Value,
    metrics: Metrics,
    controller: JoinHandle<Result<(), String>>,
    tally: Tally,
}

impl Subject {
    async fn start(name: &'static str) -> Self {
        let server = EditServer::shared().await;
        let (controller, metrics) = server.with_controller().await;
        let mut subject = Self {
            server,
            name,
            schema: schema::spec(),
            spec: base(),
            good: base(),
            metrics,
            controller,
            tally: Tally::default(),
        };
        subject.anew().await;
        subject
    }

    /// Creates the object, without pods of older ones.
    async fn anew(&mut self) {
        self.server
            .delete("OtelAgent", Some(PLATFORM), self.name)
            .await;
        (self.spec, self.good) = (base(), base());
        self.server
            .create(&agent(self.name, &self.spec))
            .await
            .unwrap();
        self.rest().await.unwrap();
        self.roll().await;
    }

    async fn go(&mut self, moves: &[Move]) -> Result<(), (usize, String)> {
        for (at, step) in moves.iter().enumerate() {
            let begun = Instant::now();
            let outcome = self.take(step).await;
            println!("{at:3} {:5.1} s  {step}", begun.elapsed().as_secs_f32());
            outcome.map_err(|why| (at, why))?;
            if at % STRIDE == STRIDE - 1 || at == moves.len() - 1 {
                self.is_as_new().await.map_err(|why| (at, why))?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, step: &Move) -> Result<(), String> {
        let edited = match step {
            Move::Edit(edit) => apply(&self.schema, &self.spec, edit),
            Move::Back => self.good.clone(),
            Move::Roll => {
                self.tally.rolls += 1;
                self.roll().await;
                return self.settled().await.map(drop);
            }
        };
        let before = self.children().await;
        let answer = self.server.replace(self.name, &edited).await;
        let expected = refusals(&self.schema, Some(&self.spec), &edited);
        if answer.is_ok() != expected.is_empty() {
            return Err(format!(
                "server: {:?}; predicate: {expected:?}",
                answer.err()
            ));
        }
        if answer.is_err() {
            self.tally.refused_by_server += 1;
            return Ok(());
        }
        self.spec = edited;
        let status = self.settled().await?;
        let accepted = condition(&status, "Accepted");
        if accepted["status"] == "True" {
            self.tally.carried_out += 1;
            self.good = self.spec.clone();
            return Ok(());
        }
        self.tally.refused_by_operator += 1;
        let is_told = ["reason", "message"]
            .iter()
            .all(|key| accepted[*key].as_str().is_some_and(|text| !text.is_empty()));
        if !is_told {
            return Err(format!("refused without a reason: {accepted}"));
        }
        let after = self.children().await;
        if after != before {
            return Err(format!(
                "refused ({accepted}), and yet its objects changed: {before:?} to {after:?}"
            ));
        }
        Ok(())
    }

    /// Waits until the object has settled, then checks it. Returns the status.
    async fn settled(&mut self) -> Result<Value, String> {
        let status = self.outcome().await?;
        let mismatches = mismatches_within(
            &self.server.client,
            PLATFORM,
            self.name,
            Duration::from_mins(1),
        )
        .await?;
        if !mismatches.is_empty() {
            let mismatches: Vec<String> = mismatches.iter().map(ToString::to_string).collect();
            return Err(format!(
                "the status does not match the cluster: {}\n{status}",
                mismatches.join("; ")
            ));
        }
        if self.controller.is_finished() {
            return Err("the controller has ended".into());
        }
        Ok(status)
    }

    /// Waits until an accepted edit is carried out or refused. A server that was too busy to answer is asked
    /// again.
    async fn outcome(&self) -> Result<Value, String> {
        const ALLOWED: [&str; 11] = [
            "FirstAgentsNotReady",
            "AgentsNotReady",
            "NotRolledOut",
            "Serving",
            "Active",
            "NoWorkloads",
            "PodsMissed",
            "OlderConfiguration",
            "PodsNotInjectable",
            "PodsUncovered",
            "SelectsNothing",
        ];
        let begun = Instant::now();
        loop {
            let status = self.rest().await?;
            let found = ["Ready", "Injected"].map(|type_| condition(&status, type_));
            let other = found.into_iter().find(|found| {
                let reason = found["reason"].as_str();
                !reason.is_some_and(|reason| ALLOWED.contains(&reason))
            });
            let Some(other) = other else {
                return Ok(status);
            };
            let is_busy = ["ApiUnreachable", "Timeout"]
                .iter()
                .any(|reason| other["reason"] == *reason);
            if !is_busy || begun.elapsed() > PATIENCE {
                return Err(format!(
                    "taken, and neither carried out nor refused: {other}"
                ));
            }
        }
    }

    /// Waits until the status speaks of the present spec and two requested reconciles write nothing.
    async fn rest(&self) -> Result<Value, String> {
        let begun = Instant::now();
        loop {
            let before = self.writes();
            self.nudge().await;
            tokio::time::sleep(Duration::from_millis(700)).await;
            let object = self.server.get(self.name).await;
            let is_current =
                object["status"]["observedGeneration"] == object["metadata"]["generation"];
            if is_current && self.writes() == before && !self.is_moving(&object["status"]).await {
                return Ok(object["status"].clone());
            }
            if begun.elapsed() > PATIENCE {
                let after = self.writes();
                return Err(format!(
                    "no rest: {}\nwrites before {before:?}\nand after {after:?}",
                    object["status"]
                ));
            }
        }
    }

    /// Whether an agent workload is on its way: the nodes are healthy, so a pod that has a node becomes ready.
    async fn is_moving(&self, status: &Value) -> bool {
        let sets = self
            .server
            .list("DaemonSet", Some(PLATFORM))
            .await
            .unwrap_or_default();
        let rolls = sets.iter().any(|set| {
            let number = |key: &str| set["status"][key].as_i64().unwrap_or_default();
            set["status"]["observedGeneration"] != set["metadata"]["generation"]
                || number("currentNumberScheduled") < number("desiredNumberScheduled")
        });
        let pods = self.server.list("Pod", None).await.unwrap_or_default();
        let ends = pods
            .iter()
            .any(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
        let starts = pods
            .iter()
            .any(|pod| pod["spec"]["nodeName"].is_string() && pod["status"]["phase"] != "Running");
        rolls && condition(status, "Ready")["reason"] == "Serving" || ends || starts
    }

    /// Asks for a reconcile without changing anything.
    async fn nudge(&self) {
        let now = std::time::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .as_nanos()
            .to_string();
        let patch = json!({"metadata": {"annotations": {"test/nudge": now}}});
        let api = self.server.api("OtelAgent", Some(PLATFORM));
        let _ = api
            .patch(
                self.name,
                &kube::api::PatchParams::default(),
                &kube::api::Patch::Merge(&patch),
            )
            .await;
    }

    /// Everything the controller has written, except deletions of unbound policies.
    fn writes(&self) -> Vec<String> {
        let text = self.metrics.render();
        text.lines()
            .filter(|line| line.contains("verb=\"") && !line.contains("delete"))
            .map(Into::into)
            .collect()
    }

    /// Agent workloads, their configurations, Services and bindings: what runs.
    async fn children(&self) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        for (kind, namespace) in [
            ("ConfigMap", Some(PLATFORM)),
            ("DaemonSet", Some(PLATFORM)),
            ("Service", Some(PLATFORM)),
            ("MutatingAdmissionPolicyBinding", None),
        ] {
            for object in self.server.list(kind, namespace).await.unwrap_or_default() {
                found.push((
                    format!("{kind} {}", object["metadata"]["name"]),
                    json!([object["metadata"]["uid"], object["spec"], object["data"]]),
                ));
            }
        }
        found
    }

    /// Replaces the applications' pods.
    async fn roll(&self) {
        for name in ["cart", "till"] {
            self.server.delete("Pod", Some(SHOP), name).await;
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": SHOP, "labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": "none"}]},
            });
            let begun = Instant::now();
            while let Err(error) = self.server.create(&pod).await {
                let still_there = matches!(&error, kube::Error::Api(status) if status.code == 409);
                // Objects that a spec of the sequence makes the server refuse do not exist; the status must allow for
                // it.
                let patience = if still_there { PATIENCE } else { REFUSED };
                if begun.elapsed() > patience {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// Without the policies: those that the binding has left stay for half a minute, and what the bound one
    /// does to a pod is asked of the server after every edit.
    async fn end_state(&self) -> Result<BTreeMap<String, Value>, String> {
        let mut found =
            end_state::normalised(&self.server.client, PLATFORM, self.name, None).await?;
        found.retain(|key, _| !key.starts_with("mutatingadmissionpolicies "));
        Ok(found)
    }

    /// Creates the object again from the same spec, once the older routes are gone: its objects are the same.
    async fn is_as_new(&mut self) -> Result<(), String> {
        if self.spec != self.good {
            self.take(&Move::Back).await?;
        }
        if !self.serves_as_wanted().await? {
            // Agents that cannot start (a priority class that does not exist, say) leave an older route
            // serving, which a new object would not have.
            self.tally.compared_from_base += 1;
            (self.spec, self.good) = (base(), base());
            let answer = self.server.replace(self.name, &self.spec).await;
            answer.map_err(|error| error.to_string())?;
        }
        self.until_only_the_wanted_path_stands().await?;
        let edited = self.end_state().await?;
        self.server
            .delete("OtelAgent", Some(PLATFORM), self.name)
            .await;
        let new = agent(self.name, &self.spec);
        let answer = self.server.create(&new).await;
        answer.map_err(|error| error.to_string())?;
        self.until_only_the_wanted_path_stands().await?;
        self.settled().await?;
        let fresh = self.end_state().await?;
        let found = end_state::differences(&edited, &fresh);
        self.tally.compared_with_new += 1;
        if found.is_empty() {
            Ok(())
        } else {
            Err(format!("not as one made anew: {found:?}"))
        }
    }

    /// Whether the mode asked for serves, or is about to: its agents can start.
    async fn serves_as_wanted(&self) -> Result<bool, String> {
        let status = self.rest().await?;
        let stuck = [
            "FirstAgentsNotReady",
            "AgentsNotReady",
            "NotRolledOut",
            "FirstAgents",
        ];
        Ok(!["Ready", "Switching"].iter().any(|type_| {
            let reason = condition(&status, type_)["reason"].as_str();
            reason.is_some_and(|reason| stuck.contains(&reason))
        }))
    }

    /// Waits until the object serves as wanted, gives pods what it serves (those that came before are missed
    /// or stale, as they should be), and waits until the older routes are gone. While an agent workload is made an
    /// older route serves and is ready as well.
    async fn until_only_the_wanted_path_stands(&self) -> Result<(), String> {
        let begun = Instant::now();
        let mut was_rolled = false;
        loop {
            let status = self.rest().await?;
            let is_ready = condition(&status, "Ready")["reason"] == "Serving"
                && status["mode"] == self.spec["mode"];
            let is_switching = condition(&status, "Switching")["status"] == "True";
            if is_ready && !was_rolled {
                self.roll().await;
                was_rolled = true;
            } else if is_ready && !is_switching {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(format!("the wanted route never serves alone: {status}"));
            }
        }
    }
}

fn condition<'a>(status: &'a Value, type_: &str) -> &'a Value {
    let conditions = status["conditions"].as_array();
    let found = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == type_);
    found.unwrap_or(&Value::Null)
}
