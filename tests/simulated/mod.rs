//! The controller in this process, on a real control plane whose nodes are simulated.
