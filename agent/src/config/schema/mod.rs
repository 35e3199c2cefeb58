//! The schema: every setting of the configuration file, with its type, bounds, default and meaning, and the
//! collector's settings that the agent ignores or refuses, with the reason. The reader checks documents against
//! it, and the reference in `docs/agent.md` is generated from it.

mod reference;
mod setting;
mod tables;

pub use self::reference::{Row, reference, rows};
pub use self::setting::{Rule, Setting, Settings, ValueKind};
pub use self::tables::ROOT;
