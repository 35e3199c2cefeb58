//! Pure. What users write and read: the `OtelAgent` object, its schema and its status.
//!
//! Only shapes, bounds and the rules an API server can check by itself. What a field makes happen is
//! decided in `desired` and `switching`, which this room must not know.

mod mode;
mod rules;
mod selector;
mod spec;
mod status;

pub use mode::Mode;
pub use selector::{Operator, Requirement, Selector};
pub use spec::*;
pub use status::*;
