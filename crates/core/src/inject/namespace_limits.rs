//! What `LimitRange`s and `ResourceQuota`s of a namespace mean for the injected sidecar.
//!
//! The API server refuses every new pod whose sidecar a `LimitRange` or quota forbids, in mode Sidecar
//! all pods of the namespace. So the status names such a namespace before the mode is rolled out, when
//! no pod has been lost yet, instead of leaving it to events of `ReplicaSet`s afterwards. Only certain
//! breaches are reported: what the other containers of a pod ask for is not known here. Defaults do not
//! matter, since the sidecar sets requests and limits for every resource.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use crate::quantity::billionths;

/// Scopes that every pod is in which has a sidecar and no deadline.
const ORDINARY: [&str; 2] = ["NotBestEffort", "NotTerminating"];

/// One thing that a namespace demands of the containers, or the pods, in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerLimit {
    resource: String,
    demand: Demand,
}

/// What is demanded, as quantities.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Demand {
    /// Each container asks for so much.
    ContainerAtLeast(String),
    /// Each container has no more.
    ContainerAtMost(String),
    /// The containers of a pod have no more together.
    PodAtMost(String),
    /// All pods have no more together, and have so much.
    Together { hard: String, used: String },
}

/// What an injected container asks for, by resource: requests and limits at once, which are equal.
pub type Amounts = BTreeMap<String, String>;

/// What an injected container asks for, as its recipe says.
pub(super) fn amounts(container: &Value) -> Amounts {
    serde_json::from_value(container["resources"]["limits"].clone()).unwrap_or_default()
}

/// What a `LimitRange` demands.
pub fn of_limit_range(range: &LimitRange) -> Vec<ContainerLimit> {
    let items = range.spec.iter().flat_map(|spec| &spec.limits);
    items
        .flat_map(|item| match item.type_.as_str() {
            "Container" => {
                let least = limits(item.min.as_ref(), Demand::ContainerAtLeast);
                let most = limits(item.max.as_ref(), Demand::ContainerAtMost);
                least.into_iter().chain(most).collect()
            }
            "Pod" => limits(item.max.as_ref(), Demand::PodAtMost),
            _ => Vec::new(),
        })
        .collect()
}

fn limits(
    amounts: Option<&BTreeMap<String, Quantity>>,
    demand: impl Fn(String) -> Demand,
) -> Vec<ContainerLimit> {
    let limit = |(resource, amount): (&String, &Quantity)| ContainerLimit {
        resource: resource.clone(),
        demand: demand(amount.0.clone()),
    };
    amounts.into_iter().flatten().map(limit).collect()
}

/// What a `ResourceQuota` demands; nothing where it is for some pods only.
pub fn of_quota(quota: &ResourceQuota) -> Vec<ContainerLimit> {
    let Some(spec) = &quota.spec else {
        return Vec::new();
    };
    let scopes = spec.scopes.iter().flatten().map(String::as_str);
    let selector = spec.scope_selector.as_ref();
    let expressions = selector.and_then(|selector| selector.match_expressions.as_ref());
    let selected = expressions.into_iter().flatten();
    let mut scopes = scopes.chain(selected.map(|expression| expression.scope_name.as_str()));
    if !scopes.all(|scope| ORDINARY.contains(&scope)) {
        return Vec::new();
    }
    let status = quota.status.as_ref();
    let used = status
        .and_then(|status| status.used.clone())
        .unwrap_or_default();
    let limit = |(name, hard): (&String, &Quantity)| ContainerLimit {
        resource: name.clone(),
        demand: Demand::Together {
            hard: hard.0.clone(),
            used: used.get(name).map_or("0", |used| &used.0).to_owned(),
        },
    };
    spec.hard.iter().flatten().map(limit).collect()
}

/// The first demand of an object that a container of these amounts does not meet, as a sentence without the
/// object.
pub fn breach(limits: &[ContainerLimit], container: &Amounts) -> Option<String> {
    limits.iter().find_map(|limit| limit.breach(container))
}

impl ContainerLimit {
    fn breach(&self, container: &Amounts) -> Option<String> {
        let resource = self.resource.as_str();
        let plain = resource
            .strip_prefix("requests.")
            .or(resource.strip_prefix("limits."));
        let has = container.get(plain.unwrap_or(resource))?;
        let amount = billionths(has)?;
        Some(match &self.demand {
            Demand::ContainerAtLeast(least) if amount < billionths(least)? => {
                format!(
                    "demands at least {least} {resource} of each container, and the agent has {has}"
                )
            }
            Demand::ContainerAtMost(most) if amount > billionths(most)? => {
                format!("allows each container at most {most} {resource}, and the agent has {has}")
            }
            Demand::PodAtMost(most) if amount > billionths(most)? => {
                format!("allows each pod at most {most} {resource}, and the agent alone has {has}")
            }
            Demand::Together { hard, used } if amount > billionths(hard)? - billionths(used)? => {
                format!("has {used} of {hard} {resource} in use, and the agent alone needs {has}")
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
#[allow(
    clippy::needless_pass_by_value,
    reason = "json!() is passed as it comes"
)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container() -> Amounts {
        amounts(&json!({"resources": {"limits": {"cpu": "50m", "memory": "64Mi"}}}))
    }

    fn range(item: Value) -> Option<String> {
        let range = json!({"metadata": {}, "spec": {"limits": [item]}});
        let limits = of_limit_range(&serde_json::from_value(range).unwrap());
        breach(&limits, &container())
    }

    fn quota(spec: Value, used: Value) -> Option<String> {
        let quota = json!({"metadata": {}, "spec": spec, "status": {"used": used}});
        let limits = of_quota(&serde_json::from_value(quota).unwrap());
        breach(&limits, &container())
    }

    #[test]
    fn limit_range_is_breached_when_the_container_is_outside() {
        let fits =
            json!({"type": "Container", "min": {"cpu": "0.05"}, "max": {"memory": "65536Ki"}});
        assert_eq!(range(fits), None);
        let too_small = range(json!({"type": "Container", "min": {"cpu": "100m"}}));
        let expected = "demands at least 100m cpu of each container, and the agent has 50m";
        assert_eq!(too_small.as_deref(), Some(expected));
        let too_large = range(json!({"type": "Container", "max": {"memory": "32Mi"}}));
        let expected = "allows each container at most 32Mi memory, and the agent has 64Mi";
        assert_eq!(too_large.as_deref(), Some(expected));
    }

    #[test]
    fn pod_limit_counts_the_agents_own_part_only() {
        let fits = json!({"type": "Pod", "max": {"cpu": "60m"}, "min": {"cpu": "1"}});
        assert_eq!(range(fits), None);
        let found = range(json!({"type": "Pod", "max": {"cpu": "40m"}}));
        let expected = "allows each pod at most 40m cpu, and the agent alone has 50m";
        assert_eq!(found.as_deref(), Some(expected));
    }

    #[test]
    fn quota_is_breached_when_the_agent_does_not_fit() {
        let spec = json!({"hard": {"requests.cpu": "1", "pods": "10"}});
        assert_eq!(quota(spec.clone(), json!({"requests.cpu": "950m"})), None);
        let full = quota(spec, json!({"requests.cpu": "951m"}));
        let expected = "has 951m of 1 requests.cpu in use, and the agent alone needs 50m";
        assert_eq!(full.as_deref(), Some(expected));
        let never = quota(json!({"hard": {"limits.memory": "1Mi"}}), json!({}));
        let expected = "has 0 of 1Mi limits.memory in use, and the agent alone needs 64Mi";
        assert_eq!(never.as_deref(), Some(expected));
    }

    #[test]
    fn quota_for_some_pods_only_is_ignored() {
        let scoped = |key: &str, scopes: Value| {
            let spec = json!({"hard": {"cpu": "1m"}, key: scopes});
            quota(spec, json!({}))
        };
        assert_eq!(scoped("scopes", json!(["BestEffort"])), None);
        let expression = json!({"scopeName": "PriorityClass", "operator": "In", "values": ["low"]});
        let selector = json!({"matchExpressions": [expression]});
        assert_eq!(scoped("scopeSelector", selector), None);
        assert!(scoped("scopes", json!(["NotBestEffort"])).is_some());
    }
}
