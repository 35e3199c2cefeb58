//! The schema: every setting of the configuration file, with its type, bounds, default and meaning, and those of the
//! collector's that are ignored or refused, with the reason. The reader checks documents against it, and the
//! reference in `docs/agent.md` is printed from it.

mod reference;
mod setting;
mod tables;

pub use self::reference::{Row, reference, rows};
pub use self::setting::{Rule, Setting, Settings, ValueKind};
pub use self::tables::ROOT;
