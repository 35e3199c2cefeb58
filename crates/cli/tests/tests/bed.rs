//! Clusters as values, made of objects as an API server shows them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use otelagent_api::{Mode, OtelAgent, ResourceExt};
use otelagent_cli::args::Output;
use otelagent_cli::installation::Installation;
use otelagent_cli::output::Terminal;
use otelagent_cli::snapshot::{Key, Snapshot};
use otelagent_cli::text::Style;
use otelagent_core::build::{Desired, ServerVersion, build, selection, validate};
use otelagent_core::inject::Recipe;
use otelagent_core::names;
use otelagent_core::read::{Decoded, PartialNode, PartialPod};
use otelagent_core::reconcile::Active;
use serde_json::{Value, json};

/// Where answers go, without colours.
pub(crate) fn terminal(width: usize, output: Output) -> Terminal {
    Terminal {
        style: Style {
            width,
            colour: false,
            whole: output == Output::Wide,
        },
        output,
        is_terminal: false,
    }
}

/// A cluster with an installed operator.
pub(crate) struct Bed {
    pub(crate) snapshot: Snapshot,
    /// What was rendered, by the `OtelAgent` and the mode: once for a thousand agents.
    rendered: RefCell<BTreeMap<(Key, Mode), Desired>>,
}

/// A pod of an application.
pub(crate) struct App<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) owner: &'a str,
    pub(crate) node: &'a str,
    pub(crate) labels: Value,
    pub(crate) spec: Value,
}

impl App<'_> {
    pub(crate) fn of(owner: &str) -> App<'_> {
        App {
            namespace: "shop",
            kind: "StatefulSet",
            owner,
            node: "n1",
            labels: json!({}),
            spec: json!({}),
        }
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        let mut bed = Self {
            snapshot: Snapshot {
                nodes: Some([].into()),
                namespaces: Some([].into()),
                active: Some([].into()),
                installation: Installation {
                    is_known: true,
                    version: Some("0.1.0".into()),
                    ..Installation::default()
                },
                server: Some(ServerVersion {
                    major: 1,
                    minor: 37,
                }),
                ..Snapshot::default()
            },
            rendered: RefCell::default(),
        };
        for node in ["n1", "n2", "n3"] {
            bed.node(node, true);
        }
        for namespace in ["shop", "otelagent-system"] {
            let named = json!({"kubernetes.io/metadata.name": namespace, "telemetry": "otelagent"});
            let namespaces = bed.snapshot.namespaces.as_mut().unwrap();
            namespaces.insert(namespace.into(), serde_json::from_value(named).unwrap());
        }
        bed
    }

    pub(crate) fn node(&mut self, name: &str, ready: bool) {
        let ready = if ready { "True" } else { "False" };
        let node: PartialNode = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap();
        let nodes = self.snapshot.nodes.as_mut().unwrap();
        nodes.insert(name.into(), node.state.into());
    }

    /// Stores an `OtelAgent`: its spec and status as YAML.
    pub(crate) fn agent(&mut self, namespace: &str, name: &str, yaml: &str) -> Key {
        let mut object: Value = serde_saphyr::from_str(yaml).unwrap();
        object["apiVersion"] = "otelagent.dev/v1alpha1".into();
        object["kind"] = "OtelAgent".into();
        object["metadata"] = json!({
            "namespace": namespace, "name": name, "uid": format!("uid-{name}"), "generation": 2,
            "creationTimestamp": "2026-11-22T10:00:00Z",
        });
        let key = (namespace.to_owned(), name.to_owned());
        let decoded: Decoded = serde_json::from_value(object).unwrap();
        self.snapshot.agents.insert(key.clone(), decoded);
        key
    }

    pub(crate) fn read(&self, key: &Key) -> &OtelAgent {
        self.snapshot.agents[key].agent.as_ref().unwrap()
    }

    fn desired(&self, key: &Key, mode: Mode) -> Desired {
        let mut rendered = self.rendered.borrow_mut();
        let make = || {
            let environment = self.snapshot.environment();
            let valid = validate(self.read(key), &environment).unwrap();
            build(&valid, &environment, [mode])
        };
        rendered
            .entry((key.clone(), mode))
            .or_insert_with(make)
            .clone()
    }

    pub(crate) fn recipe(&self, key: &Key, mode: Mode) -> Recipe {
        self.desired(key, mode).recipe(mode).unwrap().clone()
    }

    fn hash(&self, key: &Key, mode: Mode) -> String {
        self.recipe(key, mode).hash()
    }

    /// Makes a mode the active one.
    pub(crate) fn serve(&mut self, key: &Key, mode: Mode) {
        let active = Active {
            mode: Some(mode),
            recipe: Some(self.hash(key, mode)),
            selection: selection(self.read(key)),
            policy: Some("a-policy".into()),
            bound_at: Some("2026-11-22T10:01:00Z".parse().unwrap()),
            ..Active::default()
        };
        self.snapshot
            .active
            .as_mut()
            .unwrap()
            .insert(key.clone(), active);
    }

    /// Stores the `DaemonSet` of a mode, which wants an agent on this many nodes.
    pub(crate) fn daemon_set(&mut self, key: &Key, mode: Mode, desired: i32) {
        let rendered = self.desired(key, mode);
        let mut object = rendered.objects(mode)[0].to_json();
        object["metadata"]["generation"] = 1.into();
        object["status"] = json!({
            "observedGeneration": 1, "desiredNumberScheduled": desired, "currentNumberScheduled": desired,
            "numberMisscheduled": 0, "numberReady": 0,
        });
        let name = names::agent_workload(&key.1, mode.kebab());
        let object = serde_json::from_value(object).unwrap();
        self.snapshot
            .daemon_sets
            .insert((key.0.clone(), name), object);
    }

    /// Stores an agent's pod; one that is not ready waits for something.
    pub(crate) fn agent_pod(&mut self, key: &Key, mode: Mode, node: &str, waits_for: Option<&str>) {
        let template = self.desired(key, mode).template(mode).to_owned();
        let waiting = waits_for.map(|why| json!({"reason": why}));
        let name = format!("{}-{}-{node}", key.1, mode.kebab());
        self.pod(&json!({
            "metadata": {"namespace": key.0, "name": name, "labels": {
                names::LABEL_OWNER: names::agent_label(&key.0, &key.1),
                names::LABEL_WORKLOAD: mode.as_str(),
                names::LABEL_TEMPLATE: template,
            }},
            "spec": {"nodeName": node},
            "status": {
                "conditions": [{"type": "Ready", "status": if waits_for.is_none() { "True" } else { "False" }}],
                "containerStatuses": [{"state": {"waiting": waiting}}],
            },
        }));
    }

    /// Stores a pod of an application.
    pub(crate) fn app(&mut self, app: &App<'_>) {
        let number = self.snapshot.pods.len();
        let owner = json!({
            "apiVersion": "apps/v1", "kind": app.kind, "name": app.owner, "uid": "u", "controller": true,
        });
        let mut spec = app.spec.clone();
        spec["nodeName"] = app.node.into();
        self.pod(&json!({
            "metadata": {
                "namespace": app.namespace, "name": format!("{}-{number}", app.owner), "labels": app.labels,
                "ownerReferences": if app.kind == "Pod" { json!([]) } else { json!([owner]) },
            },
            "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }));
    }

    fn pod(&mut self, object: &Value) {
        let pod: PartialPod = serde_json::from_value(object.clone()).unwrap();
        let key = (pod.namespace().unwrap(), pod.name_any());
        self.snapshot.pods.insert(key, pod.into());
    }

    /// The labels of a pod that was injected for an `OtelAgent` in a mode, with its present recipe or an older one.
    pub(crate) fn injected(&self, key: &Key, mode: Mode, is_present: bool) -> Value {
        let recipe = if is_present {
            self.hash(key, mode)
        } else {
            "0000000000".into()
        };
        json!({
            names::LABEL_AGENT: names::agent_label(&key.0, &key.1),
            names::LABEL_MODE: mode.as_str(),
            names::LABEL_CONFIG: recipe,
        })
    }

    /// The keys of all `OtelAgent`s.
    pub(crate) fn all(&self) -> BTreeSet<Key> {
        self.snapshot.agents.keys().cloned().collect()
    }
}
