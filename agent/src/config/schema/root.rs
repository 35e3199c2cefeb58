//! The sections of a document, and all rows of the schema in a flat list.

use super::setting::{Rule, Setting, Settings, components, refused, section};
use super::{exporters, processors, receivers, service};

const NEEDED: &str = "an agent needs receivers, exporters and service";

/// The document itself.
pub const ROOT: Settings = &[
    components("receivers", receivers::TYPES).required(NEEDED),
    components("processors", processors::TYPES),
    components("exporters", exporters::TYPES).required(NEEDED),
    components("extensions", service::EXTENSIONS),
    section("service", service::SERVICE).required(NEEDED),
    refused("connectors", "connectors are not supported by this agent"),
];

/// A row with its whole path.
#[derive(Clone, Debug)]
pub struct Row {
    /// Component ids are cut down to their types; `[]` stands for any index of a list.
    pub path: String,
    /// The row.
    pub setting: &'static Setting,
}

/// Every row that is no section, in the order of a configuration file.
pub fn rows() -> Vec<Row> {
    let mut found = Vec::new();
    collect("", ROOT, &mut found);
    found
}

fn collect(path: &str, settings: Settings, found: &mut Vec<Row>) {
    for setting in settings {
        for name in setting.names() {
            let index = if matches!(setting.rule, Rule::List(_)) {
                "[]"
            } else {
                ""
            };
            let path = format!("{path}{name}{index}");
            match (setting.below(), setting.rule) {
                (Some(below), _) => collect(&format!("{path}."), below, found),
                (None, Rule::Alias(_)) => {}
                (None, _) => found.push(Row { path, setting }),
            }
        }
    }
}
