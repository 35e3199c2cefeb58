//! Finds `LimitRange`s and `ResourceQuota`s that the injected sidecar would break.
//!
//! In mode Sidecar the API server would refuse every new pod of such a namespace. So the status names the
//! namespace before the API server refuses a pod. It reports only certain breaches, because the requests of
//! a pod's other containers are not known here. Defaults matter only for ephemeral storage, for which the
//! sidecar has a limit where another container has one: of cpu and memory it sets requests and limits always.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use super::containers::STORAGE;
use crate::quantity::billionths;

/// Quota scopes of every pod that has a sidecar and no deadline.
const ORDINARY: [&str; 2] = ["NotBestEffort", "NotTerminating"];

/// One demand of a namespace on its containers or pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerLimit {
    resource: String,
    demand: Demand,
}

/// The demanded quantities.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Demand {
    /// The minimum of each container.
    ContainerAtLeast(String),
    /// The maximum of each container.
    ContainerAtMost(String),
    /// The maximum of all containers of a pod together.
    PodAtMost(String),
    /// The quota of all pods together, and what they use.
    Together { hard: String, used: String },
}

/// The resources of an injected container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    requests: BTreeMap<String, String>,
    limits: BTreeMap<String, String>,
}

/// Reads the resources of an injected container from its recipe; `storage_limit` is what it has beside a
/// container that limits its storage.
pub(super) fn amounts(container: &Value, storage_limit: Option<&str>) -> Amounts {
    let read = |kind: &str| {
        let amounts = container["resources"][kind].clone();
        serde_json::from_value(amounts).unwrap_or_default()
    };
    let mut amounts = Amounts {
        requests: read("requests"),
        limits: read("limits"),
    };
    if let Some(limit) = storage_limit {
        amounts.limits.insert(STORAGE.into(), limit.into());
        amounts.requests.insert(STORAGE.into(), "0".into());
    }
    amounts
}

/// The demands of a `LimitRange`.
pub fn of_limit_range(range: &LimitRange) -> Vec<ContainerLimit> {
    let items = range.spec.iter().flat_map(|spec| &spec.limits);
    items
        .flat_map(|item| match item.type_.as_str() {
            "Container" => {
                // A maximum is the default, too, so containers beside the sidecar have a limit.
                let mut given = [&item.max, &item.default].into_iter().flatten();
                let limits_storage = given.any(|given| given.contains_key(STORAGE));
                let mut least = limits(item.min.as_ref(), Demand::ContainerAtLeast);
                least.retain(|limit| limits_storage || limit.resource != STORAGE);
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

/// The demands of a `ResourceQuota`; none if it applies to some pods only.
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
    let hard = spec.hard.iter().flatten();
    // A sidecar requests no storage, and a quota of limits gives none to the containers beside it.
    hard.filter(|(name, _)| !name.ends_with(STORAGE))
        .map(limit)
        .collect()
}

/// The first demand that a container with these resources does not meet, as a sentence without the object's
/// name.
pub fn breach(limits: &[ContainerLimit], container: &Amounts) -> Option<String> {
    limits.iter().find_map(|limit| limit.breach(container))
}

impl ContainerLimit {
    fn breach(&self, container: &Amounts) -> Option<String> {
        let resource = self.resource.as_str();
        let has = match &self.demand {
            Demand::ContainerAtLeast(_) => container.requests.get(resource)?,
            Demand::ContainerAtMost(_) | Demand::PodAtMost(_) => container.limits.get(resource)?,
            Demand::Together { .. } => {
                if let Some(plain) = resource.strip_prefix("limits.") {
                    container.limits.get(plain)?
                } else {
                    let plain = resource.strip_prefix("requests.");
                    container.requests.get(plain.unwrap_or(resource))?
                }
            }
        };
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
        let both = json!({"cpu": "50m", "memory": "64Mi"});
        let container = json!({"resources": {"limits": both, "requests": both}});
        amounts(&container, Some("128Mi"))
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
    fn storage_is_bounded_where_containers_beside_the_sidecar_have_a_limit() {
        let storage = |amount: &str| json!({"ephemeral-storage": amount});
        let of = |kind: &str, mut item: Value| {
            item["type"] = kind.into();
            range(item)
        };
        let most = of("Container", json!({"max": storage("100Mi")}));
        let expected =
            "allows each container at most 100Mi ephemeral-storage, and the agent has 128Mi";
        assert_eq!(most.as_deref(), Some(expected));
        assert_eq!(of("Container", json!({"max": storage("128Mi")})), None);
        let least = json!({"min": storage("1Mi"), "default": storage("2Mi")});
        let expected =
            "demands at least 1Mi ephemeral-storage of each container, and the agent has 0";
        assert_eq!(of("Container", least).as_deref(), Some(expected));
        // Without a limit of its own it is given the minimum.
        assert_eq!(of("Container", json!({"min": storage("1Mi")})), None);
        let pod = of("Pod", json!({"max": storage("100Mi")}));
        let expected =
            "allows each pod at most 100Mi ephemeral-storage, and the agent alone has 128Mi";
        assert_eq!(pod.as_deref(), Some(expected));
        for resource in [
            "limits.ephemeral-storage",
            "requests.ephemeral-storage",
            "ephemeral-storage",
        ] {
            assert_eq!(quota(json!({"hard": {resource: "1Mi"}}), json!({})), None);
        }
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
