//! The configuration: a documented subset of OpenTelemetry Collector configuration, read into types
//! that can only hold what the agent does. Pure: no file, no environment, no clock.
//!
//! Names and defaults are the collector's (v0.162) where the setting is the collector's; an unmodified
//! collector starts with the same file. Everything else is refused by name.

mod changes;
mod document;
mod expand;
mod exporters;
mod extensions;
mod model;
mod pipelines;
mod problem;
mod processors;
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
pub use self::model::*;
pub use self::problem::Problem;
pub use self::text::{Text, is_header_value};
