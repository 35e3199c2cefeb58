//! The webhook with certificates that another controller makes and renews, as cert-manager does. A new CA and its
//! certificate arrive while pods are created, and every pod is injected.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use otelagent_core::build::Choice;
use otelagent_operator::controller::InjectionSettings;
use otelagent_webhook::Source;
use otelagent_webhook::issue;
use serde_json::json;

use super::callee::Callee;
use super::engines::DryRunCreator;
use super::installed::{self, InstalledOperator, apply_side, begin};
use super::server::Server;

/// The longest time to wait for any result.
const PATIENCE: Duration = Duration::from_mins(4);
/// Shorter than as shipped: no kubelet delays these files.
const SETTLE: Duration = Duration::from_secs(20);
const TRUSTED_ON: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn renewal_from_files_with_another_ca_loses_no_pod() {
    let Some((bed, server)) = begin(
        "certificates of another controller on a real API server",
        "files",
    )
    .await
    else {
        return;
    };
    let server = Arc::new(server);
    let directory = bed.kubeconfig().with_file_name("certificates");
    std::fs::create_dir(&directory).unwrap();
    let host = bed.host_ip().to_string();
    let first = renew(&directory, &host);
    let source = Source::Directory {
        path: directory.clone(),
        settle: SETTLE,
    };
    let callee = Callee::start_with(&bed, source).await;
    let settings = InjectionSettings {
        engine: Choice::Webhook,
        webhook_url: Some(callee.url().to_owned()),
        ca_file: Some(directory.join("ca.crt")),
        ca_trusted_on: TRUSTED_ON,
        ..InjectionSettings::default()
    };
    let operator = InstalledOperator::start(&bed, settings).await;
    apply_side(&server, json!({})).await;
    until_trusted(&server, &first).await;
    let creator = DryRunCreator::start(server.clone());

    let second = renew(&directory, &host);
    until_trusted(&server, &format!("{}\n{first}", second.trim_end())).await;
    until_trusted(&server, &second).await;
    // A replica that still served by the first would not be trusted any more.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (created, missed) = creator.end().await;
    let missing = missed.len();
    assert!(missed.is_empty(), "{missing} of {created}: {missed:?}");
    assert!(created > 100, "{created} pods were created");
    installed::end(operator, bed).await;
}

/// Writes certificates of a new CA, one file after the other; returns the CA.
fn renew(directory: &Path, host: &str) -> String {
    let now = Timestamp::now();
    let issuer = issue::issuer(now, Duration::from_hours(24)).unwrap();
    let signed = issue::sign(&issuer, &[host.to_owned()], now).unwrap();
    for (file, text) in [
        ("ca.crt", &issuer.certificate),
        ("tls.crt", &signed.certificate),
        ("tls.key", &signed.key),
    ] {
        std::fs::write(directory.join(file), text).unwrap();
    }
    issuer.certificate
}

/// Until the webhook configuration trusts just these CAs.
async fn until_trusted(server: &Server, ca_bundle: &str) {
    let begun = Instant::now();
    loop {
        let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
        let configurations = server.get(path).await.body["items"].as_array().cloned();
        let bundles: Vec<String> = configurations
            .into_iter()
            .flatten()
            .filter(|configuration| configuration["metadata"]["name"] == "otelagent.shop.side")
            .filter_map(|configuration| {
                let bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"].clone();
                let bytes = serde_json::from_value::<ByteString>(bundle).ok()?;
                String::from_utf8(bytes.0).ok()
            })
            .collect();
        if bundles == [ca_bundle] {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{bundles:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
