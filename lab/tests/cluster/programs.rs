//! Pods of SDK programs that number what they send, and what of it arrived.

use std::collections::BTreeMap;

use demo::ledger::{self, Counts, RunDetail};
use demo::wait::{Seen, until};
use demo::{images, python};
use serde_json::{Value, json};

use super::{PATIENCE, World};

/// A program with an SDK, and the transport it speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// As the SDK calls its language.
    pub(super) language: &'static str,
    pub(super) image: &'static str,
    pub(super) protocol: &'static str,
}

pub(super) const RUST_GRPC: Program = Program {
    language: "rust",
    image: images::RUST_SDK,
    protocol: "grpc",
};
pub(super) const GO_HTTP: Program = Program {
    language: "go",
    image: images::GO_SDK,
    protocol: "http/protobuf",
};

/// All there are, but the one in Python.
pub(super) const COMPILED: [Program; 4] = [
    RUST_GRPC,
    Program {
        protocol: "http/protobuf",
        ..RUST_GRPC
    },
    Program {
        protocol: "grpc",
        ..GO_HTTP
    },
    GO_HTTP,
];

pub(super) const PYTHON: [Program; 2] = [
    Program {
        language: "python",
        image: python::IMAGE,
        protocol: "grpc",
    },
    Program {
        language: "python",
        image: python::IMAGE,
        protocol: "http/protobuf",
    },
];

impl Program {
    /// Its container, as the strictest Pod Security level wants it. The run is called like the pod.
    pub(super) fn container(self, args: &[&str]) -> Value {
        self.container_of_run("app", "$(POD_NAME)", args)
    }

    pub(super) fn container_of_run(self, name: &str, run: &str, args: &[&str]) -> Value {
        let mut all = vec![
            format!("--run={run}"),
            format!("--protocol={}", self.protocol),
        ];
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        let mut container = confined(name, self.image);
        container["args"] = json!(all);
        container["env"] = json!([{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
        container
    }
}

/// A container that the strictest Pod Security level admits.
pub(super) fn confined(name: &str, image: &str) -> Value {
    json!({
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}, "limits": {"memory": "192Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        },
    })
}

/// What pods have in common: they run once, and are what the strictest Pod Security level admits.
pub(super) fn spec(containers: &[Value]) -> Value {
    json!({
        "automountServiceAccountToken": false,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 10,
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": containers,
    })
}

pub(super) fn pod(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    })
}

/// Makes all of these at once.
pub(super) fn apply(world: &World, objects: &[Value]) {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    world.kubectl.apply(&list.to_string()).unwrap();
}

/// A namespace; of the strictest Pod Security level if it is `restricted`.
pub(super) fn namespace(name: &str, restricted: bool) -> Value {
    let level = if restricted {
        "restricted"
    } else {
        "privileged"
    };
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": level}},
    })
}

/// Waits until all of each run has arrived: so many spans and, where they are sent, log records and counts.
pub(super) fn until_all_arrived(world: &World, runs: &BTreeMap<String, u64>, signals: &[&str]) {
    let client = ledger::Client::new(&world.kubectl);
    // Many pods start at once, on a machine that may have two processors.
    until("everything that was sent", PATIENCE * 2, || {
        let arrived = client.runs()?.runs;
        let of = |run: &str, signal: &str| {
            let found = arrived.iter().find(|other| other.run == run);
            found.map(|found| found.signal(signal)).unwrap_or_default()
        };
        let missing: Vec<String> = runs
            .iter()
            .flat_map(|(run, count)| signals.iter().map(move |signal| (run, *count, *signal)))
            .filter(|(run, count, signal)| !is_all(signal, &of(run, signal), *count))
            .map(|(run, _, signal)| format!("{signal} of {run}: {:?}", of(run, signal)))
            .collect();
        Ok(Seen::check(missing.is_empty(), missing.join("; ")))
    })
    .unwrap_or_else(|error| panic!("{error}"));
}

fn is_all(signal: &str, counts: &Counts, count: u64) -> bool {
    if signal == "metrics" {
        counts.highest == count
    } else {
        counts.total == Some(count) && counts.distinct == count
    }
}

/// What arrived of a run.
pub(super) fn arrived(world: &World, run: &str) -> RunDetail {
    let client = ledger::Client::new(&world.kubectl);
    client
        .run(run)
        .unwrap_or_else(|error| panic!("{run}: {error}"))
}
