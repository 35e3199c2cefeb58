//! Certificates and keys of one bed, made anew each time.
//!
//! Knows which component authenticates to which, and nothing of how they are started.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use crate::command::write;
use crate::error::{Error, Result};
use crate::kubeconfig::write_kubeconfig;
use crate::layout::{Layout, node_name};

/// A certificate and its key, as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The members of this group may do anything.
const MASTERS: &str = "system:masters";

/// Everybody who talks to the API server: kubeconfig, user, group.
fn clients(nodes: u8) -> Vec<(String, String, Option<&'static str>)> {
    let mut clients = vec![
        (
            "kubeconfig".to_owned(),
            "bed-admin".to_owned(),
            Some(MASTERS),
        ),
        (
            "controller-manager.kubeconfig".to_owned(),
            "system:kube-controller-manager".to_owned(),
            None,
        ),
        (
            "scheduler.kubeconfig".to_owned(),
            "system:kube-scheduler".to_owned(),
            None,
        ),
        (
            "kube-proxy.kubeconfig".to_owned(),
            "system:kube-proxy".to_owned(),
            None,
        ),
        (
            "coredns.kubeconfig".to_owned(),
            "bed-coredns".to_owned(),
            Some(MASTERS),
        ),
        (
            "kube-router.kubeconfig".to_owned(),
            "bed-kube-router".to_owned(),
            Some(MASTERS),
        ),
        (
            "kwok.kubeconfig".to_owned(),
            "bed-kwok".to_owned(),
            Some(MASTERS),
        ),
    ];
    for node in (1..=nodes).map(node_name) {
        clients.push((
            format!("{node}.kubeconfig"),
            format!("system:node:{node}"),
            Some("system:nodes"),
        ));
    }
    clients
}

/// Issues everything the bed needs and writes it into its directory.
pub(crate) fn issue(layout: &Layout, nodes: u8) -> Result<()> {
    let ca = authority(KeyPair::generate()?)?;
    let ca_pem = ca.pem();
    write(&layout.pki("ca.crt"), &ca_pem)?;
    write(&layout.pki("ca.key"), ca.key().serialize_pem())?;
    let service_accounts = KeyPair::generate()?;
    write(
        &layout.pki("service-accounts.key"),
        service_accounts.serialize_pem(),
    )?;
    write(
        &layout.pki("service-accounts.pub"),
        service_accounts.public_key_pem(),
    )?;

    save_api_server(layout, &ca)?;
    save(
        layout,
        "kubelet-client",
        &client(&ca, "bed-kubelet-client", Some(MASTERS))?,
    )?;
    save(
        layout,
        "front-proxy",
        &client(&ca, "bed-front-proxy", None)?,
    )?;
    for node in 1..=nodes {
        let name = node_name(node);
        save(
            layout,
            &name,
            &server(
                &ca,
                &name,
                &[layout.node_ip(node).to_string(), name.clone()],
            )?,
        )?;
    }
    let name = format!("bed-{}", layout.name);
    for (file, user, group) in clients(nodes) {
        write_kubeconfig(
            &layout.file(&file),
            &name,
            &layout.server(),
            &ca_pem,
            &client(&ca, &user, group)?,
        )?;
    }
    Ok(())
}

/// Issues another serving certificate of the API server, by the authority that there is.
pub(crate) fn renew_api_server(layout: &Layout) -> Result<()> {
    let key = std::fs::read_to_string(layout.pki("ca.key"));
    let key = key.map_err(Error::io("read the key of the bed's authority"))?;
    save_api_server(layout, &authority(KeyPair::from_pem(&key)?)?)
}

fn save_api_server(layout: &Layout, ca: &CertifiedIssuer<'_, KeyPair>) -> Result<()> {
    let apiserver = server(
        ca,
        "kube-apiserver",
        &[
            layout.control_plane_ip().to_string(),
            layout.api_service_ip().to_string(),
            "127.0.0.1".to_owned(),
            "localhost".to_owned(),
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            "kubernetes.default.svc.cluster.local".to_owned(),
        ],
    )?;
    save(layout, "apiserver", &apiserver)
}

fn save(layout: &Layout, name: &str, identity: &Identity) -> Result<()> {
    write(&layout.pki(&format!("{name}.crt")), &identity.certificate)?;
    write(&layout.pki(&format!("{name}.key")), &identity.key)
}

fn authority(key: KeyPair) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params.distinguished_name.push(DnType::CommonName, "bed-ca");
    Ok(CertifiedIssuer::self_signed(params, key)?)
}

fn server(ca: &CertifiedIssuer<'_, KeyPair>, name: &str, names: &[String]) -> Result<Identity> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(ca, params)
}

fn client(ca: &CertifiedIssuer<'_, KeyPair>, user: &str, group: Option<&str>) -> Result<Identity> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, user);
    if let Some(group) = group {
        params
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign(ca, params)
}

fn sign(ca: &CertifiedIssuer<'_, KeyPair>, mut params: CertificateParams) -> Result<Identity> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    Ok(Identity {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}
