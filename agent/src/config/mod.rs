//! The configuration: a documented subset of OpenTelemetry Collector configuration, read into types that
//! can only express what the agent does. Uses no file, environment or clock.
//!
//! Settings of the collector (v0.162) have its names and defaults, and an unmodified collector starts with
//! the same file. The agent refuses everything else by name.

mod changes;
mod document;
mod expand;
mod exporters;
mod extensions;
mod model;
mod pipelines;
mod problem;
mod processors;
mod proxy;
mod push;
mod receivers;
pub mod schema;
mod section;
mod summary;
mod telemetry;
mod text;
mod tls;
mod tree;
mod units;
mod value;

pub use self::changes::{Changes, changes, fingerprint};
pub use self::document::{check, load};
pub use self::expand::Resolve;
pub use self::exporters::signal_of;
pub use self::model::*;
pub use self::problem::Problem;
pub use self::push::PUSH_READER;
pub use self::text::{Text, is_header_value};
#[cfg(feature = "server")]
pub(crate) use self::units::{address, duration};
