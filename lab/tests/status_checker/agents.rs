//! Mode, endpoint, routes and the agents of the serving mode.

use otelagent_api::Mode;
use otelagent_core::names;
use serde_json::Value;

use super::checker::{Allowed, StatusChecker};
use super::injection::endpoint;
use super::quotes;
use super::read::{is_ready, items, label};
use super::view::{distinct, nodes_of};

/// Whether the agents of a mode run on nodes.
pub(super) fn on_nodes(mode: &str) -> bool {
    Mode::parse(mode).is_some_and(Mode::on_nodes)
}

/// Whether there are nodes for it.
fn has_nodes(daemon_set: &Value) -> bool {
    daemon_set["status"]["desiredNumberScheduled"]
        .as_i64()
        .is_some_and(|desired| desired > 0)
}

impl StatusChecker<'_> {
    /// Checks everything about agents and routes.
    pub(super) fn agents(&mut self) {
        self.serving_mode();
        self.endpoint();
        self.routes();
        let counts = match self.mode() {
            None if self
                .view
                .daemon_set(self.view.wanted())
                .is_some_and(has_nodes) =>
            {
                self.agents_on_nodes(self.view.wanted())
            }
            None => {
                return self.equals("agents", &Value::Null, quotes::AGENTS);
            }
            Some("Sidecar") => self.sidecars(),
            Some(mode) => self.agents_on_nodes(mode),
        };
        let [desired, ready, updated] = counts;
        self.count("agents.desired", desired, quotes::AGENTS_DESIRED);
        self.count("agents.ready", ready, quotes::AGENTS_READY);
        self.count("agents.updated", updated, quotes::AGENTS_UPDATED);
    }

    fn serving_mode(&mut self) {
        let view = self.view;
        for pod in &view.new_pods {
            if view.is_injected(pod) {
                let given = label(pod, names::LABEL_MODE);
                self.equals("mode", &given.into(), quotes::SERVING);
            }
        }
        if let Some(injector) = view.injector(&view.agent) {
            let given = &injector["metadata"]["annotations"][names::ANNOTATION_SERVING];
            if !given.is_null() {
                self.equals("mode", given, quotes::SERVING);
            }
        }
        let wanted = view.wanted();
        if self.is("Accepted", "True")
            && self.is("Ready", "True")
            && self.is_ready_everywhere(wanted)
        {
            self.equals("mode", &wanted.into(), quotes::NEW_ROUTE);
        }
    }

    /// Whether the agents of a mode are up to date and ready wherever they should be, and injection does not
    /// keep them from being used.
    fn is_ready_everywhere(&self, mode: &str) -> bool {
        let injects =
            self.is("Injected", "True") || !self.view.agent["spec"]["workloads"].is_object();
        if !on_nodes(mode) {
            return injects;
        }
        let [desired, ready, updated] = self.agents_on_nodes(mode);
        injects
            && self.view.daemon_set(mode).is_some()
            && [ready, updated].iter().all(|count| count.covers(desired))
    }

    fn endpoint(&mut self) {
        let view = self.view;
        let metadata = &view.agent["metadata"];
        let port = view.agent["spec"]["ports"]["grpc"].as_u64().unwrap_or(4317);
        let [name, namespace] =
            ["name", "namespace"].map(|key| metadata[key].as_str().unwrap_or_default());
        let exact = match self.mode() {
            None => return self.equals("endpoint", &Value::Null, quotes::ENDPOINT),
            Some("Sidecar") => Some(format!("http://127.0.0.1:{port}")),
            Some("NodeLocal") => Some(format!("http://{name}.{namespace}.svc:{port}")),
            Some(_) => None,
        };
        if let Some(exact) = exact {
            for pod in view.new_pods.iter().filter(|pod| view.is_injected(pod)) {
                let given = endpoint(pod);
                if given != Some(&exact) {
                    let found = format!("{given:?} in a pod created now");
                    self.report("endpoint", &exact, found, quotes::ENDPOINT);
                }
            }
            return self.equals("endpoint", &exact.into(), quotes::ENDPOINT);
        }
        let said = self.field("endpoint").as_str().unwrap_or_default();
        let is_of_node = said.starts_with("http://")
            && said.ends_with(&format!(":{port}"))
            && !said.contains("127.0.0.1")
            && !said.contains(".svc");
        let expected = format!("http://<address of the node>:{port}");
        self.require(is_of_node, "endpoint", expected, quotes::ENDPOINT);
    }

    fn routes(&mut self) {
        let view = self.view;
        if view.has_taken_name() {
            // Which of its agent workloads the operator can still make, the documentation leaves open.
            return;
        }
        let said: Vec<&str> = items(self.field("paths"))
            .filter_map(Value::as_str)
            .collect();
        let existing = view
            .own_daemon_sets()
            .filter_map(|set| label(set, names::LABEL_WORKLOAD));
        let mut needed: Vec<&str> = existing.collect();
        if self.is("Accepted", "True") {
            needed.push(view.wanted());
        }
        needed.extend(self.mode());
        let needed = distinct(needed.into_iter().filter(|mode| on_nodes(mode)));
        let found = distinct(said.iter().copied());
        let holds = found == needed && found.len() == said.len();
        self.require(holds, "paths", format!("{needed:?}"), quotes::PATHS);
        for mode in needed {
            if view.daemon_set(mode).is_none() {
                let found = format!("{mode}, of which no DaemonSet exists");
                self.report(
                    "paths",
                    format!("a DaemonSet of {mode}"),
                    found,
                    quotes::PATHS,
                );
            }
        }
    }

    /// Desired, ready and updated agents of a mode on nodes.
    fn agents_on_nodes(&self, mode: &str) -> [Allowed; 3] {
        let view = self.view;
        let Some(set) = view.daemon_set(mode) else {
            return [Allowed::at_least(0); 3];
        };
        let is_observed = set["status"]["observedGeneration"] == set["metadata"]["generation"];
        let scheduled = set["status"]["desiredNumberScheduled"].as_u64();
        let scheduled = scheduled
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or_default();
        let desired = if is_observed {
            Allowed::exactly(scheduled)
        } else {
            Allowed::at_least(0)
        };
        let template = &set["spec"]["template"]["metadata"]["labels"][names::LABEL_TEMPLATE];
        let mut updated = view.agent_pods(mode);
        updated.retain(|pod| pod["metadata"]["labels"][names::LABEL_TEMPLATE] == *template);
        [
            desired,
            Allowed::exactly(view.covered_nodes(mode).len()),
            Allowed::exactly(nodes_of(&updated).len()),
        ]
    }

    /// The same of sidecars, which are in injected pods. Whether a sidecar counts as ready in a pod that is not, the
    /// documentation leaves open.
    fn sidecars(&self) -> [Allowed; 3] {
        let view = self.view;
        let mut pods = view.sorted_pods().injected;
        pods.retain(|pod| label(pod, names::LABEL_MODE) == Some("Sidecar"));
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        let started = pods
            .iter()
            .filter(|pod| is_ready(pod) || has_ready_sidecar(pod))
            .count();
        let updated = view
            .configuration()
            .map_or(Allowed::at_least(0), |present| {
                let updated = pods
                    .iter()
                    .filter(|pod| label(pod, names::LABEL_CONFIG) == Some(present));
                Allowed::exactly(updated.count())
            });
        [
            Allowed::exactly(pods.len()),
            Allowed::between(ready, started),
            updated,
        ]
    }
}

fn has_ready_sidecar(pod: &Value) -> bool {
    let mut all = items(&pod["status"]["initContainerStatuses"]);
    all.any(|status| status["name"] == names::CONTAINER && status["ready"] == true)
}
