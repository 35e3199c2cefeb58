//! Random edits of the spec, generated from the CRD's own schema.
//!
//! The pure parts: [`schema`] reads the committed CRD, [`edits`] makes changes from it, [`predicate`] states a second
//! time what must be refused, [`leaves`] lists what each field changes. [`sequence`] applies edits to a running
//! object and compares the result with the cluster itself.

mod edits;
mod leaves;
mod newer_rules;
mod predicate;
mod schema;
mod sequence;
mod server;
mod world;
