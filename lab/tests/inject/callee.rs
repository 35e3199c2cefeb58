//! The webhook as a part of this process, where the API server of a bed can call it.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Config;
use otelagent_core::names;
use otelagent_operator::runtime::{Fence, Metrics, Readiness, Served, client, listen};
use otelagent_webhook::ca::Ca;
use otelagent_webhook::configuration::{Endpoint, WebhookEngine};
use otelagent_webhook::issue;
use otelagent_webhook::{Source, Webhook};
use serde_json::json;
use testbed::Bed;
use tokio::task::JoinHandle;

use super::server::Server;

/// The namespace of the operator.
const NAMESPACE: &str = "otelagent-system";

/// A running webhook; ends when it is dropped.
pub(crate) struct Callee {
    url: String,
    ca: Ca,
    running: JoinHandle<()>,
}

impl Drop for Callee {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Callee {
    /// With a CA made here and kept where the webhook looks for it.
    pub(super) async fn start(bed: &Bed, server: &Server) -> Self {
        let now = Timestamp::now();
        let issuer = issue::issuer(now, Duration::from_hours(24)).unwrap();
        let ca = Ca::default().with(issuer, now);
        server.namespace(NAMESPACE, json!({})).await;
        let name = names::ca_secret(names::WEBHOOK);
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": {names::CA_KEY: ca.to_text()},
        });
        let path = format!("/api/v1/namespaces/{NAMESPACE}/secrets");
        let kept = server.apply_at(&path, &name, &secret).await;
        assert!(kept.is_ok(), "{kept:?}");
        let mut callee = Self::start_with_what_is_kept(bed).await;
        callee.ca = ca;
        callee
    }

    /// By a CA that is kept outside of the cluster.
    pub(super) async fn start_with_what_is_kept(bed: &Bed) -> Self {
        let config = Server::config(bed.kubeconfig(), None).await;
        Self::start_as(bed, config, Self::kept(bed)).await
    }

    /// What signs its certificates where no file gives them.
    pub(crate) fn kept(bed: &Bed) -> Source {
        Source::Ca {
            namespace: NAMESPACE.into(),
            secret: names::ca_secret(names::WEBHOOK),
            names: vec![bed.host_ip().to_string()],
        }
    }

    /// With certificates of any source.
    pub(super) async fn start_with(bed: &Bed, source: Source) -> Self {
        let config = Server::config(bed.kubeconfig(), None).await;
        Self::start_as(bed, config, source).await
    }

    /// As the user of this client configuration.
    pub(crate) async fn start_as(bed: &Bed, config: Config, source: Source) -> Self {
        let client = client::connect(config, &Fence::closed()).unwrap();
        let host = bed.host_ip();
        let listener = listen((host, 0).into()).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let parts = [
            otelagent_webhook::WATCHES,
            otelagent_webhook::CERTIFICATE,
            otelagent_webhook::SERVING,
        ];
        let served = Served {
            metrics: Metrics::new(),
            readiness: Readiness::of(&parts),
        };
        let running = Webhook::start(&client, source, Arc::new(served));
        let running = tokio::spawn(async move {
            let ended = running.run(listener, std::future::pending()).await;
            panic!("the webhook ended by itself: {ended:?}");
        });
        Self {
            url,
            ca: Ca::default(),
            running,
        }
    }

    /// How the API server reaches it.
    pub(super) fn engine(&self) -> WebhookEngine {
        WebhookEngine {
            endpoint: Endpoint::Url(self.url.clone()),
            ca_bundle: self.ca.bundle(Timestamp::now()),
            owner: None,
        }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}
