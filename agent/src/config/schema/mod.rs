//! The schema: every setting of the configuration file, with its type, bounds, default and meaning, and those of the
//! collector's that are ignored or refused, with the reason. The reader checks documents against it, and the
//! reference in `docs/agent.md` is printed from it.

mod exporters;
mod processors;
mod receivers;
mod reference;
mod root;
mod service;
mod setting;

pub use self::reference::reference;
pub use self::root::{ROOT, Row, rows};
pub use self::setting::{Rule, Setting, Settings, ValueKind};
