//! Random edits of the spec, generated from the CRD's own schema.
//!
//! The pure parts: [`schema`] reads the committed CRD, [`edits`] makes changes from it, [`predicate`] says a
//! second time what must be refused, [`leaves`] says what each field makes happen. [`sequence`] carries edits out
//! on a running object and compares what comes of it with the cluster itself.

mod edits;
mod leaves;
mod newer_rules;
mod predicate;
mod schema;
mod sequence;
mod server;
mod world;
