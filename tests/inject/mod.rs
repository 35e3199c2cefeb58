//! Injection: the function's properties, and the policies on a real API server.

mod equivalence;
mod golden;
mod guard;
mod pods;
mod properties;
mod recipes;
mod selection;
mod server;
mod warning;
