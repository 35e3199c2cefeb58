//! The pure core: golden files, properties, and proof that it is pure.

mod configuration;
mod crd;
mod golden;
mod pods;
mod properties;
mod releases;
mod validation;

pub(crate) use otelagent_test_support::agents::{agent, agent_with, environment};
