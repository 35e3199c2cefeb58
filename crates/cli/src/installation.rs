//! How the operator is installed, as its Deployment says; what it does not say is the operator's default.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Container;
use otelagent_core::build::{Choice, Environment, IpFamily, ServerVersion};
use otelagent_core::names;

/// The labels of the operator's Deployment.
pub const OPERATOR_SELECTOR: &str =
    "app.kubernetes.io/name=otelagent,app.kubernetes.io/component=operator";
/// The namespace of manifests/default.
pub const NAMESPACE: &str = "otelagent-system";

/// How the operator is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Whether the Deployment was read. Otherwise everything here is a default.
    pub is_known: bool,
    /// Namespace of the operator.
    pub namespace: String,
    /// Namespaces whose `OtelAgent`s may act on others.
    pub platform_namespaces: BTreeSet<String>,
    /// Namespace of the dry-run pods.
    pub canary_namespace: String,
    /// Image of agents for `OtelAgent`s that name none.
    pub agent_image: String,
    /// The injection engine that is asked for.
    pub engine: Choice,
    /// `ClusterRole` that owns what is written for the whole cluster.
    pub owner_role: String,
    /// Name of the webhook's Service.
    pub webhook: String,
    /// URL of the webhook, if it is not at its Service.
    pub webhook_url: Option<String>,
    /// The operator's version, by the tag of its image.
    pub version: Option<String>,
    /// How many of the operator's pods are ready, and how many there should be.
    pub replicas: Option<(i32, i32)>,
}

impl Default for Installation {
    fn default() -> Self {
        Self::with("", &Arguments::default())
    }
}

/// Words of a command line and variables.
#[derive(Default)]
struct Arguments {
    options: BTreeMap<String, String>,
    variables: BTreeMap<String, String>,
}

impl Arguments {
    fn of(container: &Container) -> Self {
        let words = container.args.iter().flatten();
        let words: Vec<&str> = words.map(String::as_str).collect();
        let mut options = BTreeMap::new();
        for (at, word) in words.iter().enumerate() {
            let Some(option) = word.strip_prefix("--") else {
                continue;
            };
            let following = words.get(at + 1).filter(|next| !next.starts_with("--"));
            let (name, value) = match option.split_once('=') {
                Some(both) => both,
                None => (option, following.copied().unwrap_or_default()),
            };
            options.insert(name.to_owned(), value.to_owned());
        }
        let variables = container.env.iter().flatten();
        let variables = variables.filter_map(|one| Some((one.name.clone(), one.value.clone()?)));
        Self {
            options,
            variables: variables.collect(),
        }
    }

    /// An option, else the variable that stands for it.
    fn get(&self, option: &str, variable: &str) -> Option<String> {
        let found = self.options.get(option);
        found.or_else(|| self.variables.get(variable)).cloned()
    }
}

impl Installation {
    /// The defaults for an operator in this namespace.
    pub fn in_namespace(namespace: &str) -> Self {
        Self::with(namespace, &Arguments::default())
    }

    /// Reads the operator's Deployment.
    pub fn of(deployment: &Deployment) -> Self {
        let namespace = deployment.metadata.namespace.as_deref();
        let namespace = namespace.unwrap_or(NAMESPACE);
        let spec = deployment.spec.as_ref();
        let pod = spec.and_then(|spec| spec.template.spec.as_ref());
        let containers = pod.map_or(&[][..], |pod| &pod.containers);
        let is_operator = |one: &&Container| {
            let mut words = one.args.iter().flatten();
            words.any(|word| word == "controller")
        };
        let operator = containers.iter().find(is_operator).or(containers.first());
        let arguments = operator.map(Arguments::of).unwrap_or_default();
        let image = operator.and_then(|operator| operator.image.as_deref());
        let ready = deployment.status.as_ref();
        let ready = ready.and_then(|status| status.ready_replicas);
        let wanted = spec.and_then(|spec| spec.replicas);
        Self {
            is_known: true,
            version: image.and_then(version),
            replicas: Some((ready.unwrap_or_default(), wanted.unwrap_or(1))),
            ..Self::with(namespace, &arguments)
        }
    }

    fn with(namespace: &str, arguments: &Arguments) -> Self {
        let namespace = if namespace.is_empty() {
            NAMESPACE
        } else {
            namespace
        };
        let or = |option: &str, variable: &str, default: &str| {
            let found = arguments.get(option, variable);
            found.unwrap_or_else(|| default.to_owned())
        };
        let platform = or("platform-namespaces", "", "");
        let platform = platform.split(',').filter(|name| !name.is_empty());
        let mut platform: BTreeSet<String> = platform.map(str::to_owned).collect();
        if platform.is_empty() {
            platform.insert(namespace.to_owned());
        }
        let agent_image = concat!("otelagent/agent:", env!("CARGO_PKG_VERSION"));
        Self {
            is_known: false,
            namespace: namespace.to_owned(),
            platform_namespaces: platform,
            canary_namespace: or("canary-namespace", "", "otelagent-canary"),
            agent_image: or("agent-image", "OTELAGENT_AGENT_IMAGE", agent_image),
            engine: match or("injection-engine", "", "auto").as_str() {
                "policy" => Choice::Policy,
                "webhook" => Choice::Webhook,
                _ => Choice::Auto,
            },
            owner_role: or("owner-role", "OTELAGENT_OWNER_ROLE", "otelagent-owner"),
            webhook: or("webhook-name", "OTELAGENT_WEBHOOK", names::WEBHOOK),
            webhook_url: arguments.get("webhook-url", ""),
            version: None,
            replicas: None,
        }
    }

    /// What rendered objects depend on.
    pub fn environment(&self, server: ServerVersion, nodes: IpFamily) -> Environment {
        let version = self.version.clone();
        Environment {
            operator_namespace: self.namespace.clone(),
            platform_namespaces: self.platform_namespaces.clone(),
            agent_image: self.agent_image.clone(),
            server,
            nodes,
            operator_version: version.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
        }
    }
}

/// The tag of an image, without a digest.
fn version(image: &str) -> Option<String> {
    let named = image.split('@').next()?;
    let last = named.rsplit('/').next()?;
    Some(last.split_once(':')?.1.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(container: &serde_json::Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "otelagent-operator", "namespace": "agents"},
            "spec": {"replicas": 2, "selector": {}, "template": {"spec": {"containers": [container]}}},
            "status": {"readyReplicas": 1},
        }))
        .unwrap()
    }

    #[test]
    fn options_and_variables_are_read_as_the_operator_reads_them() {
        let read = Installation::of(&deployment(&json!({
            "name": "operator", "image": "registry.example.com:5000/otelagent/operator:0.2.0@sha256:abc",
            "args": ["controller", "--leader-elect", "--platform-namespaces=a,b", "--injection-engine", "webhook"],
            "env": [{"name": "OTELAGENT_AGENT_IMAGE", "value": "agent:1"}, {"name": "POD_NAME", "valueFrom": {}}],
        })));
        assert_eq!(
            read.platform_namespaces,
            ["a", "b"].map(str::to_owned).into()
        );
        assert_eq!(
            (read.namespace.as_str(), read.engine),
            ("agents", Choice::Webhook)
        );
        assert_eq!(read.agent_image, "agent:1");
        assert_eq!(read.version.as_deref(), Some("0.2.0"));
        assert_eq!(read.replicas, Some((1, 2)));
    }

    #[test]
    fn without_options_the_defaults_of_the_operator_are_taken() {
        let read = Installation::of(&deployment(
            &json!({"name": "operator", "args": ["controller"]}),
        ));
        assert_eq!(read.platform_namespaces, ["agents".to_owned()].into());
        let assumed = Installation::default();
        assert_eq!(
            (assumed.is_known, assumed.namespace.as_str()),
            (false, NAMESPACE)
        );
        assert_eq!(read.canary_namespace, assumed.canary_namespace);
    }
}
