//! Making certificates: the CA's, and those it signs.
//!
//! Keys are ECDSA over P-256, made here and never on disk. Must not know when anything is due, or where it
//! is kept.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

pub use rcgen::Error as Failed;

use crate::ca::{Certified, Life, serving_life};

/// Certificates are valid from a while before they are made, since clocks differ.
const BACKDATED: Duration = Duration::from_mins(5);

/// Makes a CA certificate that lives from now on.
///
/// # Errors
/// If the crypto provider has no randomness.
pub fn issuer(now: Timestamp, length: Duration) -> Result<Certified, rcgen::Error> {
    let life = Life::of(now, length);
    let key = KeyPair::generate()?;
    let certificate = ca(life).self_signed(&key)?;
    Ok(Certified {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        life,
    })
}

/// Makes a serving certificate for these DNS names and addresses.
///
/// # Errors
/// If a name is none, or the issuer's key cannot be read.
pub fn sign(
    issuer: &Certified,
    names: &[String],
    now: Timestamp,
) -> Result<Certified, rcgen::Error> {
    let life = serving_life(issuer, now);
    let mut params = CertificateParams::new(names)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "otelagent-webhook");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    set_life(&mut params, life);
    let key = KeyPair::generate()?;
    let by = rcgen::Issuer::new(ca(issuer.life), KeyPair::from_pem(&issuer.key)?);
    let certificate = params.signed_by(&key, &by)?;
    Ok(Certified {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        life,
    })
}

/// What a CA certificate says; always the same, since the certificates it signs name it.
fn ca(life: Life) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let name = format!("otelagent-webhook-authority {}", life.made);
    params.distinguished_name.push(DnType::CommonName, name);
    set_life(&mut params, life);
    params
}

fn set_life(params: &mut CertificateParams, life: Life) {
    let since_epoch =
        |moment: Timestamp| Duration::from_secs(moment.as_second().try_into().unwrap_or_default());
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(life.made).saturating_sub(BACKDATED);
    params.not_after = epoch + since_epoch(life.ends);
}
