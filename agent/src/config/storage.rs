//! `file_storage` extensions, and queues that name one. Must not know how a queue is kept.

use super::section::Section;
use super::service::Extension;
use super::{Exporter, Storage};

pub(super) fn read(mut section: Section<'_>, id: &str) -> Storage {
    let directory = section
        .parsed("directory", directory, str::to_owned)
        .unwrap_or_else(|| "/var/lib/otelcol/file_storage".to_owned());
    let create_directory = section.boolean("create_directory").unwrap_or(false);
    let directory_permissions = section
        .parsed("directory_permissions", permissions, |_| PERMISSIONS)
        .unwrap_or(PERMISSIONS);
    let fsync = section.boolean("fsync").unwrap_or(false);
    let max_size = section.integer("max_size", 0..=u64::MAX >> 1).unwrap_or(0);
    section.finish();
    Storage {
        id: id.to_owned(),
        directory,
        create_directory,
        directory_permissions,
        fsync,
        max_size,
    }
}

/// The collector's default.
const PERMISSIONS: u32 = 0o750;

fn directory(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Err("is empty; name a directory".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

fn permissions(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| (0o700..=0o777).contains(mode))
        .ok_or_else(|| format!("`{text}` is not an octal mode of 0700 to 0777; write \"0750\""))
}

/// The storage a `sending_queue` names.
pub(super) fn named(
    queue: &mut Section<'_>,
    extensions: &[(String, Extension)],
) -> Option<Storage> {
    let name = queue.parsed("storage", |text| Ok(text.to_owned()), str::to_owned)?;
    let storage = extensions
        .iter()
        .find_map(|(id, extension)| match extension {
            Extension::Storage(storage) if *id == name => Some(storage.clone()),
            _ => None,
        });
    if storage.is_none() {
        let message = format!("`{name}` is not defined under extensions as a file_storage");
        queue.problem("storage", message);
    }
    storage
}

/// What exporters, storages and `service.extensions` say together.
pub(super) fn check(service: &Section<'_>, exporters: &[Exporter], in_service: &[&str]) {
    for exporter in exporters {
        let Some(storage) = &exporter.storage else {
            continue;
        };
        let (id, exporter_id) = (&storage.id, &exporter.id);
        if !in_service.contains(&id.as_str()) {
            let message = format!("`{id}` is missing; the queue of {exporter_id} is kept there");
            service.problem("extensions", message);
        }
        let retry = &exporter.retry;
        if !retry.enabled {
            service.problems().warn(
                &format!("exporters.{exporter_id}.retry_on_failure.enabled"),
                "is false: what fails once is LOST although the queue is on disk",
            );
        } else if !retry.max_elapsed_time.is_zero() {
            let message = format!(
                "is {:?}: an upstream that stays away longer LOSES telemetry although the queue is on disk; write 0s \
                 to keep it",
                retry.max_elapsed_time
            );
            let path = format!("exporters.{exporter_id}.retry_on_failure.max_elapsed_time");
            service.problems().warn(&path, &message);
        }
    }
}
