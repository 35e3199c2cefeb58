//! Every name that the operator gives or reads: labels, annotations, names of objects.
//!
//! Names are a contract with running clusters: a changed value orphans what an older version created.

use sha2::{Digest, Sha256};

/// The architectures of nodes for which kubelets are released (`kubernetes.io/arch`) and the bundled image is not.
pub const ARCHITECTURES_WITHOUT_IMAGE: [&str; 4] = ["arm", "ppc64le", "riscv64", "s390x"];

/// Field manager of the patches that restart workloads.
pub const RESTART_MANAGER: &str = "otelagent-restart";

/// API group of `OtelAgent`.
pub const GROUP: &str = "otelagent.dev";
/// Server-side apply field manager of everything the controller writes.
pub const FIELD_MANAGER: &str = "otelagent-controller";

/// On injected pods: which `OtelAgent` injected them, as made by [`agent_label`].
pub const LABEL_AGENT: &str = "otelagent.dev/agent";
/// On injected pods: the mode they were created with.
pub const LABEL_MODE: &str = "otelagent.dev/mode";
/// On injected pods: the hash of the recipe they were created with.
pub const LABEL_CONFIG: &str = "otelagent.dev/config";
/// On pods and their templates: `"false"` opts out of injection.
pub const LABEL_INJECT: &str = "otelagent.dev/inject";
/// On agent workloads, their pods and Services: the `OtelAgent` they belong to (same value as [`LABEL_AGENT`]).
pub const LABEL_OWNER: &str = "otelagent.dev/owner";
/// On agent workloads, their pods and Services: the mode they serve.
pub const LABEL_WORKLOAD: &str = "otelagent.dev/vehicle";
/// On agent pods: hash of the pod template they were created from, to count updated pods. It names their key of the
/// `ConfigMap` with the configuration.
pub const LABEL_TEMPLATE: &str = "otelagent.dev/template";
/// On cluster-scoped objects: uid of the `OtelAgent` they belong to; the sweep uses it.
pub const LABEL_OWNER_UID: &str = "otelagent.dev/owner-uid";
/// On dry-run pods of the canary namespace: the policy (by content hash) that is being verified.
pub const LABEL_VERIFICATION: &str = "otelagent.dev/proof";
/// On dry-run pods of the canary namespace: the `OtelAgent` whose active injection is checked.
pub const LABEL_CANARY: &str = "otelagent.dev/canary";
/// On workloads: the `OtelAgent` (same value as [`LABEL_AGENT`]) that is restarting them.
pub const LABEL_RESTARTING: &str = "otelagent.dev/restarting";
/// On every object that the operator creates.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "otelagent";

/// The label selector of all objects that the operator makes.
pub fn managed_selector() -> String {
    format!("{LABEL_MANAGED_BY}={MANAGED_BY}")
}

/// On pods and their templates: names of the containers that get variables, separated by commas; all without it.
pub const ANNOTATION_CONTAINERS: &str = "otelagent.dev/containers";
/// On pods with a queue on disk: the volumes despite which the cluster autoscaler may remove their node, separated by
/// commas. Others write it, too.
pub const ANNOTATION_LOCAL_VOLUMES: &str =
    "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";
/// On pods with a sidecar: the agent's configuration, mounted through the downward API. On agent pods: what of it they
/// read only when they start, of which Prometheus takes the port.
pub const ANNOTATION_CONFIG: &str = "otelagent.dev/agent-config";
/// On agent pods: fingerprint of the configuration that was written last. A changed pod makes its kubelet mount what
/// is new at once.
pub const ANNOTATION_CONFIG_WRITTEN: &str = "otelagent.dev/config-written";
/// On agent workloads: since when (RFC 3339) no pod has used them.
pub const ANNOTATION_UNUSED_SINCE: &str = "otelagent.dev/unused-since";
/// On agent workloads: the ports that they take of their nodes, separated by commas.
pub const ANNOTATION_NODE_PORTS: &str = "otelagent.dev/node-ports";
/// On workloads: the `OtelAgent` and recipe of their last restart.
pub const ANNOTATION_RESTARTED_FOR: &str = "otelagent.dev/restarted-for";
/// On bindings: the active selection, as JSON, so that an invalid spec keeps its precedence.
pub const ANNOTATION_SELECTION: &str = "otelagent.dev/selection";
/// On bindings: the serving mode, so that it is read from the cluster and not assumed.
pub const ANNOTATION_SERVING: &str = "otelagent.dev/serving";

/// On bindings: agents on the host network also listen at ports that are 10000 higher, where pods were sent.
pub const ANNOTATION_SECOND_PORTS: &str = "otelagent.dev/second-ports";
/// On bindings: hash of the active recipe.
pub const ANNOTATION_RECIPE: &str = "otelagent.dev/recipe";
/// On bindings: since when (RFC 3339) they bind their policy. An older policy is kept a little longer, for
/// API servers that have not observed the change.
pub const ANNOTATION_BOUND_AT: &str = "otelagent.dev/bound-at";

/// On bindings: why their recipe became active, for a person: a generation of the spec, or an upgrade of the
/// operator.
pub const ANNOTATION_REASON: &str = "otelagent.dev/because";
/// On webhook configurations: the instruction to the webhook, as JSON.
pub const ANNOTATION_INSTRUCTION: &str = "otelagent.dev/order";
/// On webhook configurations: hash of their content, which the API server's calls name.
pub const ANNOTATION_WEBHOOK_HASH: &str = "otelagent.dev/entry";

/// On agent workloads and bindings: version of the operator that wrote them.
pub const ANNOTATION_OPERATOR: &str = "otelagent.dev/operator-version";

/// User of the agent's process, as in its image.
pub const USER: i64 = 65532;
/// Name of the injected container, and of the container in agent pods.
pub const CONTAINER: &str = "otelagent";
/// Name of the injected init container that waits for the agent of its node, and of its volume.
pub const START_GATE: &str = "otelagent-wait";
/// Name of the injected volume that carries the agent's configuration.
pub const CONFIG_VOLUME: &str = "otelagent-config";
/// Prefix of every cluster-scoped object; the guard policy confines the operator to it.
pub const CLUSTER_PREFIX: &str = "otelagent.";

/// Name of the webhook's Service as in `manifests/webhook`; an installation may choose another.
pub const WEBHOOK: &str = "otelagent-webhook";
/// Key of that Secret.
pub const CA_KEY: &str = "authority.json";

/// Longest allowed name of an `OtelAgent`, in characters: an agent workload's name must stay a DNS label.
pub const MAX_NAME: usize = 40;

/// Longest value of a Kubernetes label, in characters.
const MAX_LABEL: usize = 63;

/// First `chars` (at most 64) lower-case hexadecimal characters of the SHA-256 of `text`.
pub fn hash(text: &str, chars: usize) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .take(chars)
        .collect()
}

/// The value that names one `OtelAgent` in labels: `namespace.name`, or, where that is longer
/// than a label may be, its beginning and a hash. At most 63 characters, unique per object.
pub fn agent_label(namespace: &str, name: &str) -> String {
    let full = format!("{namespace}.{name}");
    if full.len() <= MAX_LABEL {
        return full;
    }
    let digest = hash(&full, 10);
    let head: String = full.chars().take(MAX_LABEL - digest.len() - 1).collect();
    format!("{}-{digest}", head.trim_end_matches(['-', '.']))
}

/// Name of the agent workload (a `DaemonSet`) of an `OtelAgent` in a mode, `suffix` being the mode's
/// kebab-case name. A DNS label for every name of at most [`MAX_NAME`] characters.
pub fn agent_workload(name: &str, suffix: &str) -> String {
    format!("{name}-{suffix}")
}

/// Name of the `ConfigMap` with the configuration of an agent workload.
pub fn agent_configuration(name: &str, suffix: &str) -> String {
    format!("{}-config", agent_workload(name, suffix))
}

/// The key of that `ConfigMap` for agents of a pod template, by its hash ([`LABEL_TEMPLATE`]).
pub fn configuration_key(template: &str) -> String {
    format!("{template}.yaml")
}

/// Name of the `ClusterRole` that owns the webhook configurations, by the name of the webhook's Service.
pub fn webhook_owner(service: &str) -> String {
    format!("{service}-owner")
}

/// Name of the Secret that holds the webhook's CA, by the name of the webhook's Service.
pub fn ca_secret(service: &str) -> String {
    format!("{service}-authority")
}

/// Name of a cluster-scoped object of an `OtelAgent`: `otelagent.<namespace>.<name>[.<part>]`, a DNS
/// subdomain. Neither name can contain a dot, so two objects never share one.
pub fn cluster_object(namespace: &str, name: &str, part: Option<&str>) -> String {
    match part {
        Some(part) => format!("{CLUSTER_PREFIX}{namespace}.{name}.{part}"),
        None => format!("{CLUSTER_PREFIX}{namespace}.{name}"),
    }
}

/// Namespace and name of the `OtelAgent` that a cluster-scoped object belongs to; the reverse of
/// [`cluster_object`].
pub fn owner_of_cluster_object(object: &str) -> Option<(String, String)> {
    let mut parts = object.strip_prefix(CLUSTER_PREFIX)?.split('.');
    Some((parts.next()?.to_owned(), parts.next()?.to_owned()))
}
