//! The decisions of `crates/core`: golden files, properties and tables.

mod agents;
mod configuration;
mod crd;
mod desired;
mod golden;
mod live_settings;
mod pods;
mod properties;
mod releases;
mod steps;
mod validation;

use k8s_openapi::api::apps::v1::DaemonSet;
use otelagent_core::build::{DesiredMode, Object};

pub(crate) use otelagent_test_support::agents::{
    agent, agent_with, configuration, desired, desired_in, environment,
};

/// The agent workload of a mode, if it has one.
fn daemon_set(desired: &DesiredMode) -> Option<&DaemonSet> {
    desired.objects.iter().find_map(|object| match object {
        Object::DaemonSet(set) => Some(&**set),
        _ => None,
    })
}
