//! `tls` of exporters and receivers: what is proven by which certificate, and who is believed. Must not
//! open the files it names.

use std::time::Duration;

use super::section::Section;
use super::text::Text;

/// `tls` of an exporter that encrypts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Any certificate is taken: encrypted, but to whom nobody knows.
    pub insecure_skip_verify: bool,
    /// The name the upstream must prove instead of the endpoint's host.
    pub server_name_override: Option<String>,
    /// Authorities that may vouch for the upstream; none means the system's.
    pub ca: Option<Pem>,
    /// The system's authorities count beside those of `ca`.
    pub include_system_ca: bool,
    /// What the agent proves itself by.
    pub identity: Option<Identity>,
    /// Versions spoken.
    pub versions: Versions,
    /// How often the files are looked at.
    pub reload_interval: Option<Duration>,
}

/// `tls` of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// What the agent proves itself by.
    pub identity: Identity,
    /// Authorities one of which must vouch for every client.
    pub client_ca: Option<Pem>,
    /// Versions spoken.
    pub versions: Versions,
    /// How often the files are looked at.
    pub reload_interval: Option<Duration>,
}

/// A certificate chain and its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate first, then those that lead to the authority.
    pub certificate: Pem,
    /// PKCS#8, PKCS#1 or SEC 1.
    pub key: Pem,
}

/// Where PEM text is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// In a file, read again when it has changed.
    File(String),
    /// In the document.
    Inline(Text),
}

/// `min_version` and `max_version`. Default: both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// RFC 5246.
    pub tls12: bool,
    /// RFC 8446.
    pub tls13: bool,
}

impl Default for Versions {
    fn default() -> Self {
        Self {
            tls12: true,
            tls13: true,
        }
    }
}

/// `tls` of an exporter as it is written; whether it counts is for the endpoint to say.
pub(super) struct Client {
    pub(super) insecure: bool,
    pub(super) tls: ClientTls,
}

pub(super) fn client(mut section: Section<'_>) -> Client {
    let insecure = section.boolean("insecure").unwrap_or(false);
    let tls = ClientTls {
        insecure_skip_verify: section.boolean("insecure_skip_verify").unwrap_or(false),
        server_name_override: plain(&mut section, "server_name_override"),
        ca: pem(&mut section, "ca_file", "ca_pem"),
        include_system_ca: section
            .boolean("include_system_ca_certs_pool")
            .unwrap_or(false),
        identity: identity(&mut section, false),
        versions: versions(&mut section),
        reload_interval: interval(&mut section),
    };
    if insecure && (tls.ca.is_some() || tls.identity.is_some()) {
        section.problem(
            "insecure",
            "`true` switches TLS off, but certificates are configured; leave out one of them",
        );
    }
    section.finish();
    Client { insecure, tls }
}

/// `None` only together with a problem.
pub(super) fn server(mut section: Section<'_>) -> Option<ServerTls> {
    let identity = identity(&mut section, true);
    let client_ca = pem_file(&mut section, "client_ca_file");
    let versions = versions(&mut section);
    let reload_interval = interval(&mut section);
    section.finish();
    Some(ServerTls {
        identity: identity?,
        client_ca,
        versions,
        reload_interval,
    })
}

/// A string that is not empty.
fn plain(section: &mut Section<'_>, key: &'static str) -> Option<String> {
    section
        .parsed(key, |text| Ok(text.to_owned()), str::to_owned)
        .filter(|text| !text.is_empty())
}

fn pem_file(section: &mut Section<'_>, key: &'static str) -> Option<Pem> {
    plain(section, key).map(Pem::File)
}

fn pem(section: &mut Section<'_>, file: &'static str, inline: &'static str) -> Option<Pem> {
    let from_file = pem_file(section, file);
    let given = plain(section, inline)
        .map(|text| Pem::Inline(Text::new(&text, section.written_with_files(inline))));
    if from_file.is_some() && given.is_some() {
        section.problem(inline, format!("{file} is set, too; leave out one of them"));
    }
    from_file.or(given)
}

fn identity(section: &mut Section<'_>, required: bool) -> Option<Identity> {
    let certificate = pem(section, "cert_file", "cert_pem");
    let key = pem(section, "key_file", "key_pem");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
        (Some(_), None) => {
            section.problem("key_file", "is missing; cert_file needs its private key");
            None
        }
        (None, Some(_)) => {
            section.problem("cert_file", "is missing; key_file needs its certificate");
            None
        }
        (None, None) => {
            if required {
                section.problem("cert_file", "is missing; a server proves who it is");
            }
            None
        }
    }
}

fn versions(section: &mut Section<'_>) -> Versions {
    let known = [("1.2", 2), ("1.3", 3)];
    let min = section.choice("min_version", &known).unwrap_or(2);
    let max = section.choice("max_version", &known).unwrap_or(3);
    if min > max {
        section.problem("min_version", "must not be higher than max_version");
    }
    Versions {
        tls12: min == 2,
        tls13: max == 3,
    }
}

fn interval(section: &mut Section<'_>) -> Option<Duration> {
    section
        .duration("reload_interval")
        .filter(|interval| !interval.is_zero())
}
