//! When certificates end. Of an X.509 certificate (RFC 5280, 4.1) nothing else is read.

use k8s_openapi::jiff::Timestamp;
use k8s_openapi::jiff::civil::DateTime;
use k8s_openapi::jiff::tz::TimeZone;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The optional version, the first field of a certificate.
const VERSION: u8 = 0xa0;

/// When each certificate of a PEM text ends; what cannot be read is left out.
pub fn ends_of(pem: &str) -> Vec<Timestamp> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    let certificates = certificates.filter_map(Result::ok);
    certificates
        .filter_map(|certificate| end(certificate.as_ref()))
        .collect()
}

fn end(certificate: &[u8]) -> Option<Timestamp> {
    let (outer, _) = value(certificate, SEQUENCE)?;
    let (mut fields, _) = value(outer, SEQUENCE)?;
    if let Some((_, rest)) = value(fields, VERSION) {
        fields = rest;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        (_, fields) = any(fields).map(|(_, content, rest)| (content, rest))?;
    }
    let (validity, _) = value(fields, SEQUENCE)?;
    let (_, _, ends) = any(validity)?;
    let (tag, text, _) = any(ends)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The content of a value of a tag, and what follows it.
fn value(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = any(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag and content of a value, and what follows it.
fn any(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The number of bytes of the length.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let number = |all: usize, byte: &u8| all << 8 | usize::from(*byte);
            (length.iter().fold(0, number), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, of 1950 to 2049, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z')?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let digits = match (tag, digits.len()) {
        (UTC_TIME, 12) if is_plain => {
            let century = if digits >= "5" { "19" } else { "20" };
            format!("{century}{digits}")
        }
        (GENERALIZED_TIME, 14) if is_plain => digits.to_owned(),
        _ => return None,
    };
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<i8>().ok();
    let year = digits.get(..4)?.parse().ok()?;
    let date = DateTime::new(
        year,
        part(4, 6)?,
        part(6, 8)?,
        part(8, 10)?,
        part(10, 12)?,
        part(12, 14)?,
        0,
    );
    Some(date.ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use otelagent_webhook::issue::issuer;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn end_of_the_operators_own_certificates_is_read() {
        for (made, ends) in [
            ("2026-12-01T00:00:00Z", "2026-12-31T00:00:00Z"),
            // Certificates write years from 2050 on in another form (RFC 5280, 4.1.2.5).
            ("2049-12-15T12:30:00Z", "2050-01-14T12:30:00Z"),
        ] {
            let made = issuer(at(made), Duration::from_hours(30 * 24)).unwrap();
            let both = format!("{0}{0}", made.certificate);
            assert_eq!(ends_of(&both), [at(ends); 2]);
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for pem in [
            "",
            "text",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        ] {
            assert_eq!(ends_of(pem), []);
        }
        for length in 0..40 {
            assert_eq!(end(&[SEQUENCE; 40][..length]), None);
            assert_eq!(end(&[0xff; 40][..length]), None);
        }
    }
}
