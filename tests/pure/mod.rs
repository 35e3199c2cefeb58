//! The decisions of `crates/core`: golden files, properties and tables.

pub(crate) mod advise;
mod agents;
mod configuration;
mod crd;
mod desired;
mod golden;
mod pods;
mod properties;
mod releases;
mod steps;
mod support;
mod validation;

pub(crate) use otelagent_test_support::agents::{
    agent, agent_with, desired, desired_in, environment,
};
