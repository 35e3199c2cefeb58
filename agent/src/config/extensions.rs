//! `extensions`: `health_check` and `file_storage`, and queues that use a storage.

use super::model::{BearerAuth, Exporter, Health, ReceiverConfig, Storage, Tokens};
use super::section::Section;
use super::text::{Text, header_name, is_header_value};
use super::units;

/// The purpose of an extension.
pub(super) enum Extension {
    Health(Health),
    Storage(Storage),
    Bearer(BearerAuth),
    /// An extension that the agent ignores.
    Idle,
}

pub(super) fn read(extensions: &Section<'_>) -> Vec<(String, Extension)> {
    extensions.components(|id, kind, section| match kind {
        "file_storage" => Extension::Storage(storage(id, &section)),
        "bearertokenauth" => Extension::Bearer(bearer(id, &section)),
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

fn bearer(id: &str, section: &Section<'_>) -> BearerAuth {
    let header = section.parsed("header", header_name, str::to_owned);
    let scheme: String = section.get("scheme");
    if !is_header_value(&scheme) {
        section.problem(
            "scheme",
            "contains characters that a header value cannot have",
        );
    }
    BearerAuth {
        id: id.to_owned(),
        header: header.unwrap_or_default(),
        scheme,
        tokens: tokens(section),
    }
}

/// The messages do not repeat a token.
fn tokens(section: &Section<'_>) -> Tokens {
    let file = section
        .given("filename")
        .filter(|path: &String| !path.is_empty());
    let (one, several) = (section.text("token"), section.texts("tokens"));
    if let Some(path) = file {
        if one.is_some() || !several.is_empty() {
            section.warn(
                "filename",
                "is set: tokens in the configuration are ignored",
            );
        }
        return Tokens::File(path);
    }
    if one.is_none() && several.is_empty() {
        section.problem("", "names no token; set token, tokens or filename");
    }
    if one.is_some() && !several.is_empty() {
        section.problem("tokens", "token is set, too; leave out one of them");
    }
    let check = |place: &Section<'_>, name: &str, token: &Text| {
        if token.value().trim().is_empty() {
            place.problem(name, "is empty: everyone could send it");
        } else if !is_header_value(token.value()) {
            place.problem(name, "contains characters that a header value cannot have");
        }
    };
    if let Some(token) = &one {
        check(section, "token", token);
    }
    for (place, token) in &several {
        check(place, "", token);
    }
    let several = several.into_iter().map(|(_, token)| token);
    Tokens::Inline(one.into_iter().chain(several).collect())
}

/// The authenticator that a protocol of a receiver names.
pub(super) fn auth_of(
    protocol: &Section<'_>,
    extensions: &[(String, Extension)],
) -> Option<BearerAuth> {
    let auth = protocol.section("auth");
    let name: String = auth.given("authenticator")?;
    let named = extensions.iter().find(|(id, _)| *id == name);
    if let Some((_, Extension::Bearer(bearer))) = named {
        return Some(bearer.clone());
    }
    let message = format!("`{name}` is not defined under extensions as a bearertokenauth");
    auth.problem("authenticator", message);
    None
}

/// Combines the receiver and `service.extensions`.
pub(super) fn check_auth(root: &Section<'_>, receiver: &ReceiverConfig) {
    let Some(BearerAuth { id: auth, .. }) = &receiver.auth else {
        return;
    };
    let in_service = root.section("service").ids("extensions");
    if !in_service.iter().any(|(_, id)| id == auth) {
        let message = format!(
            "`{auth}` is missing; {} verifies clients by it",
            receiver.id
        );
        root.problem("service.extensions", message);
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

/// Combines exporters, storages and `service.extensions`.
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
