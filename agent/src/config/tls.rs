//! `tls` of exporters and receivers: which certificates the agent presents, and which it trusts. Does not open
//! the files.

use std::time::Duration;

use super::model::{ClientTls, Identity, Pem, ServerTls, Versions};
use super::section::Section;

/// `tls` of an exporter as it is written; the endpoint decides whether it applies.
pub(super) fn client(section: &Section<'_>) -> ClientTls {
    let tls = ClientTls {
        insecure_skip_verify: section.get("insecure_skip_verify"),
        server_name_override: plain(section, "server_name_override"),
        ca: pem(section, "ca_file", "ca_pem"),
        include_system_ca: section.get("include_system_ca_certs_pool"),
        identity: identity(section, false),
        versions: versions(section),
        reload_interval: interval(section),
    };
    if section.get("insecure") && (tls.ca.is_some() || tls.identity.is_some()) {
        let message =
            "`true` switches TLS off, but certificates are configured; leave out one of them";
        section.problem("insecure", message);
    }
    tls
}

/// `tls` of a receiver that has any.
pub(super) fn server(section: &Section<'_>) -> Option<ServerTls> {
    if !section.is_present() {
        return None;
    }
    Some(ServerTls {
        identity: identity(section, true)?,
        client_ca: plain(section, "client_ca_file").map(Pem::File),
        versions: versions(section),
        reload_interval: interval(section),
    })
}

/// A string that is not empty.
fn plain(section: &Section<'_>, name: &str) -> Option<String> {
    section.given(name).filter(|text: &String| !text.is_empty())
}

fn pem(section: &Section<'_>, file: &str, inline: &str) -> Option<Pem> {
    let from_file = plain(section, file).map(Pem::File);
    let given = section.text(inline).map(Pem::Inline);
    if from_file.is_some() && given.is_some() {
        section.problem(inline, format!("{file} is set, too; leave out one of them"));
    }
    from_file.or(given)
}

fn identity(section: &Section<'_>, required: bool) -> Option<Identity> {
    let certificate = pem(section, "cert_file", "cert_pem");
    let key = pem(section, "key_file", "key_pem");
    let missing = match (certificate, key) {
        (Some(certificate), Some(key)) => return Some(Identity { certificate, key }),
        (Some(_), None) => ("key_file", "is missing; cert_file needs its private key"),
        (None, Some(_)) => ("cert_file", "is missing; key_file needs its certificate"),
        (None, None) if required => ("cert_file", "is missing; a server needs a certificate"),
        (None, None) => return None,
    };
    section.problem(missing.0, missing.1);
    None
}

fn versions(section: &Section<'_>) -> Versions {
    let min: String = section.get("min_version");
    let max: String = section.get("max_version");
    // Compared as strings: 1.2 comes before 1.3.
    if min > max {
        section.problem("min_version", "must not be higher than max_version");
    }
    Versions {
        tls12: min == "1.2",
        tls13: max == "1.3",
    }
}

fn interval(section: &Section<'_>) -> Option<Duration> {
    let interval = section.given("reload_interval");
    interval.filter(|interval: &Duration| !interval.is_zero())
}
