//! Which way telemetry came: the agent that signed it, compared with the pod that made it.
//!
//! An agent signs through its configuration (`resource/via` in the sample `OtelAgent`).

use crate::apps::{self, AppPod};
use crate::error::Result;
use crate::kubectl::Kubectl;
use crate::ledger::{Client, Resource};

/// Attribute with which an agent's pod signs.
pub const VIA_POD: &str = "otelagent.via.pod";
/// Attribute with which an agent's node signs.
pub const VIA_NODE: &str = "otelagent.via.node";

/// An agent that spans came through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// The pod the agent runs in.
    pub pod: String,
    /// The node it runs on.
    pub node: String,
    /// How many spans came.
    pub count: u64,
    /// When the last one came, in milliseconds since 1970.
    pub last: u64,
}

/// One running pod, and the agents its spans came through.
#[derive(Clone, Debug)]
pub struct Route {
    /// The pod.
    pub from: AppPod,
    /// The agents, the most recent last.
    pub through: Vec<Via>,
    /// Spans that no agent signed.
    pub unsigned: u64,
}

impl Route {
    /// The agent that brought the most recent spans.
    pub fn newest(&self) -> Option<&Via> {
        self.through.last()
    }
}

/// The routes of all running pods of a namespace.
pub fn routes(kubectl: &Kubectl, namespace: &str) -> Result<Vec<Route>> {
    let ledger = Client::new(kubectl);
    let arrived: Vec<String> = ledger.runs()?.runs.into_iter().map(|run| run.run).collect();
    let mut routes = Vec::new();
    for from in apps::pods(kubectl, namespace)? {
        let known = arrived.contains(&from.name);
        let resources = if known {
            ledger.run(&from.name)?.resources
        } else {
            Vec::new()
        };
        let (through, unsigned) = agents(&resources);
        routes.push(Route {
            from,
            through,
            unsigned,
        });
    }
    Ok(routes)
}

/// The agents that signed a run's spans, the most recent last, and how many spans none signed.
pub fn agents(resources: &[Resource]) -> (Vec<Via>, u64) {
    let mut through: Vec<Via> = Vec::new();
    let mut unsigned = 0;
    for resource in resources
        .iter()
        .filter(|resource| resource.signal == "traces")
    {
        let (Some(pod), Some(node)) = (resource.attribute(VIA_POD), resource.attribute(VIA_NODE))
        else {
            unsigned += resource.count;
            continue;
        };
        match through
            .iter_mut()
            .find(|via| via.pod == pod && via.node == node)
        {
            Some(via) => {
                via.count += resource.count;
                via.last = via.last.max(resource.last);
            }
            None => through.push(Via {
                pod: pod.to_owned(),
                node: node.to_owned(),
                count: resource.count,
                last: resource.last,
            }),
        }
    }
    through.sort_by_key(|via| via.last);
    (through, unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(pairs: &[(&str, &str)], count: u64, last: u64) -> Resource {
        Resource {
            signal: "traces".to_owned(),
            attributes: pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            count,
            first: 0,
            last,
        }
    }

    #[test]
    fn spans_are_grouped_by_the_agent_that_signed_them() {
        let logs = Resource {
            signal: "logs".to_owned(),
            ..resource(&[(VIA_POD, "a"), (VIA_NODE, "n1")], 99, 99)
        };
        let (through, unsigned) = agents(&[
            resource(&[(VIA_POD, "a"), (VIA_NODE, "n1")], 3, 20),
            resource(&[(VIA_POD, "b"), (VIA_NODE, "n2")], 4, 10),
            resource(&[(VIA_POD, "a"), (VIA_NODE, "n1"), ("other", "x")], 5, 15),
            resource(&[("other", "x")], 7, 30),
            logs,
        ]);
        let short: Vec<_> = through
            .iter()
            .map(|via| (via.pod.as_str(), via.count, via.last))
            .collect();
        assert_eq!(short, [("b", 4, 10), ("a", 8, 20)]);
        assert_eq!(unsigned, 7);
    }
}
