//! The process around the controller, and what installs it, on a real API server.

mod cluster;
mod lease;
mod manifests;
