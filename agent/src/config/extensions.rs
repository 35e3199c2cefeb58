//! `extensions`: `health_check` and `file_storage`, and queues that use a storage. Must not know how a queue is kept.

use super::model::{Exporter, Health, Storage};
use super::section::Section;
use super::units;

/// What an extension is for.
pub(super) enum Extension {
    Health(Health),
    Storage(Storage),
    /// Something this agent has no use for.
    Idle,
}

pub(super) fn read(extensions: &Section<'_>) -> Vec<(String, Extension)> {
    extensions.components(|id, kind, section| match kind {
        "file_storage" => Extension::Storage(storage(id, &section)),
        "health_check" => Extension::Health(health(&section)),
        _ => Extension::Idle,
    })
}

fn health(section: &Section<'_>) -> Health {
    let listen = section.parsed("endpoint", units::address, units::opaque_address);
    let path = section.parsed("path", units::absolute_path, str::to_owned);
    Health {
        listen: listen.unwrap_or_else(|| units::opaque_address("")),
        path: path.unwrap_or_default(),
    }
}

fn storage(id: &str, section: &Section<'_>) -> Storage {
    let permissions = section.parsed("directory_permissions", permissions, |_| 0o750);
    Storage {
        id: id.to_owned(),
        directory: section.get("directory"),
        create_directory: section.get("create_directory"),
        directory_permissions: permissions.unwrap_or_default(),
        fsync: section.get("fsync"),
        max_size: section.get("max_size"),
    }
}

fn permissions(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| (0o700..=0o777).contains(mode))
        .ok_or_else(|| format!("`{text}` is not an octal mode of 0700 to 0777; write \"0750\""))
}

/// The storage that a `sending_queue` names.
pub(super) fn storage_of(
    queue: &Section<'_>,
    extensions: &[(String, Extension)],
) -> Option<Storage> {
    let name: String = queue.given("storage")?;
    let named = extensions.iter().find(|(id, _)| *id == name);
    if let Some((_, Extension::Storage(storage))) = named {
        return Some(storage.clone());
    }
    let message = format!("`{name}` is not defined under extensions as a file_storage");
    queue.problem("storage", message);
    None
}

/// What exporters, storages and `service.extensions` say together.
pub(super) fn check_storages(root: &Section<'_>, exporters: &[Exporter]) {
    let in_service = root.section("service").ids("extensions");
    for exporter in exporters {
        let Some(Storage { id: storage, .. }) = &exporter.storage else {
            continue;
        };
        let (id, retry) = (&exporter.id, &exporter.retry);
        if !in_service.iter().any(|(_, id)| id == storage) {
            let message = format!("`{storage}` is missing; the queue of {id} is kept there");
            root.problem("service.extensions", message);
        }
        let path = format!("exporters.{id}.retry_on_failure");
        let end = retry.max_elapsed_time;
        if !retry.enabled {
            root.warn(
                &format!("{path}.enabled"),
                "is false: a batch that fails once is LOST although the queue is on disk",
            );
        } else if !end.is_zero() {
            let message = format!(
                "is {end:?}: an upstream that is away for longer LOSES telemetry although the queue is on disk; write \
                 0s to keep it"
            );
            root.warn(&format!("{path}.max_elapsed_time"), &message);
        }
    }
}
