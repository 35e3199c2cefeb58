//! What agents reserve, and what they were measured to take.

use std::cmp::Ordering;

use k8s_openapi::api::core::v1::{Container, ResourceRequirements};

use crate::build::{DesiredMode, Object};
use crate::measured;
use crate::quantity;

/// What one agent, or all agents, reserve: the requests of their containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Thousandths of a processor.
    pub cpu_millicores: u64,
    /// Bytes.
    pub memory: u64,
}

impl Requests {
    /// Those of one agent in a rendered mode.
    pub fn of(desired: &DesiredMode) -> Self {
        let sidecar = desired.recipe.sidecar.clone();
        let sidecar = sidecar.and_then(|sidecar| serde_json::from_value::<Container>(sidecar).ok());
        let workloads = desired.objects.iter().filter_map(|object| match object {
            Object::DaemonSet(object) => object.spec.as_ref()?.template.spec.as_ref(),
            Object::Service(_) => None,
        });
        let containers = workloads.flat_map(|pod| &pod.containers).chain(&sidecar);
        let requests = containers.filter_map(|container| container.resources.as_ref());
        requests.fold(Self::default(), Self::plus)
    }

    fn plus(self, resources: &ResourceRequirements) -> Self {
        let amount = |name: &str| {
            let requests = resources.requests.as_ref()?;
            requests.get(name).map(|amount| amount.0.as_str())
        };
        let cpu = amount("cpu").and_then(quantity::millicores);
        let memory = amount("memory").and_then(quantity::bytes);
        Self {
            cpu_millicores: self.cpu_millicores + cpu.unwrap_or_default(),
            memory: self.memory + memory.unwrap_or_default(),
        }
    }

    fn times(self, number: u64) -> Self {
        Self {
            cpu_millicores: self.cpu_millicores.saturating_mul(number),
            memory: self.memory.saturating_mul(number),
        }
    }
}

/// What a mode costs in one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// How many agents there would be.
    pub agents: u64,
    /// What each reserves.
    pub each: Requests,
    /// What all reserve together.
    pub all: Requests,
    /// Memory that all take while they are idle, by [`measured::IDLE_MEMORY`].
    pub idle_memory: u64,
}

impl Cost {
    /// That of so many agents.
    pub fn of(agents: usize, each: Requests) -> Self {
        let agents = u64::try_from(agents).unwrap_or(u64::MAX);
        Self {
            agents,
            each,
            all: each.times(agents),
            idle_memory: agents.saturating_mul(measured::IDLE_MEMORY),
        }
    }

    /// Which of two reserves more; equal where one reserves more CPU and the other one more memory.
    pub fn compare(&self, other: &Self) -> Ordering {
        let cpu = self.all.cpu_millicores.cmp(&other.all.cpu_millicores);
        let memory = self.all.memory.cmp(&other.all.memory);
        match (cpu, memory) {
            (Ordering::Less, Ordering::Greater) | (Ordering::Greater, Ordering::Less) => {
                Ordering::Equal
            }
            _ => cpu.then(memory),
        }
    }
}
