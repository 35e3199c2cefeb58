//! What to change when TLS fails, in words that name settings and commands.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// For an upstream that does not say whether a client certificate is missing or invalid.
pub(crate) const CLIENT_CERTIFICATE: &str =
    "the upstream refuses this agent's client certificate, or misses it: see tls.cert_file";

/// What to change, if an error or one of its causes is a failure of TLS that tells.
pub(crate) fn advice(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let tls = error.downcast_ref::<Error>().or_else(|| {
            let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
            inner.downcast_ref()
        });
        if let Some(tls) = tls {
            return of_tls(tls);
        }
        cause = error.source();
    }
    None
}

/// Whether the upstream speaks none of the protocols that this agent offers (ALPN, RFC 7301).
pub(crate) fn is_other_protocol(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(
            Error::AlertReceived(AlertDescription::NoApplicationProtocol)
                | Error::NoApplicationProtocol
        )
    )
}

fn of_tls(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::InvalidCertificate(error) => return of_certificate(error),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the upstream wants a client certificate: set tls.cert_file and tls.key_file"
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::UnsupportedCertificate,
        ) => "the upstream refuses this agent's client certificate: see tls.cert_file",
        Error::AlertReceived(AlertDescription::ProtocolVersion) | Error::PeerIncompatible(_) => {
            "the two have no version or cipher suite of TLS in common: see tls.min_version and tls.max_version"
        }
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the upstream has no certificate for this name: see tls.server_name_override"
        }
        _ => return None,
    })
}

fn of_certificate(error: &CertificateError) -> Option<&'static str> {
    Some(match error {
        CertificateError::UnknownIssuer => {
            "no CA that is trusted has signed it: name its CA in tls.ca_file, or the certificate itself"
        }
        CertificateError::BadSignature => {
            "the key that is trusted under this name has not signed it: compare tls.ca_file with what the upstream \
             shows now"
        }
        CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            "its common name does not count: make one with `openssl req -x509 -addext subjectAltName=DNS:<host>`"
        }
        CertificateError::NotValidForNameContext { .. } => {
            "connect by a name that it is for, or set tls.server_name_override to one"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the upstream needs a new certificate"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "compare the clocks of both machines"
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "make a certificate with an RSA key of 2048 bits or more, or with P-256, signed with SHA-256"
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<webpki::Error>()? {
            webpki::Error::CaUsedAsEndEntity => {
                "it is a CA certificate, as `openssl req -x509` makes them: name exactly this certificate in \
                 tls.ca_file, or make one with `-addext basicConstraints=critical,CA:FALSE`"
            }
            webpki::Error::UnsupportedCertVersion => {
                "it is of X.509 version 1: make one of version 3 with `openssl req -x509 -addext \
                 subjectAltName=DNS:<host>`"
            }
            _ => return None,
        },
        _ => return None,
    })
}
