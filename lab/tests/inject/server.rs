//! One API server of each release for all tests of this module, and requests to it in plain JSON.

use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use kube::client::Body;
use kube::core::Request;
use kube::core::params::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Config};
use otelagent_core::inject::policy::{PolicyInput, Rendered, render};
use otelagent_core::inject::{Recipe, canary, difference};
use otelagent_core::reconcile::Render as _;
use otelagent_webhook::configuration::WebhookEngine;
use serde_json::{Value, json};
use testbed::{Bed, KubernetesVersion};

use crate::client::direct_config;
use crate::test_scale::release;

/// The namespace in which policies are verified.
pub(super) const CANARY: &str = "otelagent-canary";
/// The longest time to wait on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_mins(5);
/// Warnings come with another tick of the API server's, of a second each, in which nothing can be asked.
const UNTIL_WARNED: Duration = Duration::from_millis(2500);

/// The bed of a release, brought up on first use. It ends with this process, which it watches.
pub(super) fn bed_of(release: KubernetesVersion) -> &'static Bed {
    static BEDS: [OnceLock<Bed>; KubernetesVersion::ALL.len()] =
        [const { OnceLock::new() }; KubernetesVersion::ALL.len()];
    let index = KubernetesVersion::ALL
        .iter()
        .position(|one| *one == release);
    BEDS[index.expect("a pinned release")].get_or_init(|| {
        let name = format!(
            "inject-{}-{}",
            release.minor().replace('.', "-"),
            std::process::id()
        );
        let bed = Bed::builder().name(name).kubernetes(release).start();
        bed.expect("a control plane")
    })
}

/// A client of the API server.
pub(super) struct Server {
    client: Client,
}

/// What the server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
    pub(super) warnings: Vec<String>,
}

impl Answer {
    pub(super) fn is_ok(&self) -> bool {
        self.status < 300
    }

    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.body["metadata"]["labels"][key].as_str()
    }
}

impl Server {
    /// As administrator.
    pub(super) async fn start() -> Self {
        Self::start_as(None).await
    }

    /// As another user.
    pub(super) async fn start_as(user: Option<&str>) -> Self {
        Self::of_release(release(), user).await
    }

    /// Of one release.
    pub(super) async fn of_release(release: KubernetesVersion, user: Option<&str>) -> Self {
        let path = tokio::task::spawn_blocking(move || bed_of(release).kubeconfig().to_owned())
            .await
            .unwrap();
        Self::of(&path, user).await
    }

    /// A client of an API server.
    pub(super) async fn config(kubeconfig: &Path, user: Option<&str>) -> Config {
        let mut config = direct_config(kubeconfig).await;
        config.auth_info.impersonate = user.map(Into::into);
        config
    }

    /// Of another bed.
    pub(super) async fn of(kubeconfig: &Path, user: Option<&str>) -> Self {
        let config = Self::config(kubeconfig, user).await;
        let server = Self {
            client: Client::try_from(config).unwrap(),
        };
        if user.is_none() {
            server
                .namespace(
                    CANARY,
                    json!({"pod-security.kubernetes.io/enforce": "restricted"}),
                )
                .await;
        }
        server
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> Answer {
        let response = self
            .client
            .send(request.map(Body::from))
            .await
            .expect("an answer");
        let status = response.status().as_u16();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect();
        let bytes = response.into_body().collect_bytes().await.expect("a body");
        Answer {
            status,
            warnings,
            body: serde_json::from_slice(&bytes).unwrap_or_default(),
        }
    }

    /// Creates a pod, as dry run.
    pub(super) async fn dry_run(&self, namespace: &str, pod: &Value) -> Answer {
        self.create_pod(namespace, pod, true).await
    }

    pub(super) async fn create_pod(&self, namespace: &str, pod: &Value, dry_run: bool) -> Answer {
        let params = PostParams {
            dry_run,
            field_manager: None,
        };
        let request = Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
        self.send(
            request
                .create(&params, pod.to_string().into_bytes())
                .unwrap(),
        )
        .await
    }

    /// Makes a namespace, or gives it these labels.
    pub(super) async fn namespace(&self, name: &str, labels: Value) {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        let answer = self.apply_at("/api/v1/namespaces", name, &namespace).await;
        assert!(answer.is_ok(), "{answer:?}");
    }

    pub(super) async fn apply_at(&self, path: &str, name: &str, object: &Value) -> Answer {
        let params = PatchParams::apply("test").force();
        self.send(
            Request::new(path)
                .patch(name, &params, &Patch::Apply(object))
                .unwrap(),
        )
        .await
    }

    /// Creates an object.
    pub(super) async fn create_at(&self, path: &str, object: &Value) -> Answer {
        let object = object.to_string().into_bytes();
        let request = Request::new(path).create(&PostParams::default(), object);
        self.send(request.unwrap()).await
    }

    /// Applies an object of `admissionregistration.k8s.io`.
    pub(super) async fn apply(&self, object: &Value) -> Answer {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.apply_at(&collection(object), name, object).await
    }

    pub(super) async fn delete(&self, object: &Value) -> Answer {
        let name = object["metadata"]["name"].as_str().unwrap();
        self.delete_at(&collection(object), name).await
    }

    pub(super) async fn delete_at(&self, path: &str, name: &str) -> Answer {
        self.send(
            Request::new(path)
                .delete(name, &DeleteParams::default())
                .unwrap(),
        )
        .await
    }

    /// What a path answers.
    pub(super) async fn get(&self, path: &str) -> Answer {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        self.send(request).await
    }

    /// As [`Self::activate`], by a webhook.
    pub(super) async fn activate_webhook(&self, input: &PolicyInput, webhook: &WebhookEngine) {
        let configurations = webhook.render(input).expect("webhook configurations");
        let applied = self.apply(&configurations.canary).await;
        assert!(applied.is_ok(), "{}", applied.body["message"]);
        for probe in canary::probe_pods(&input.recipe, &configurations.hash) {
            self.until_injected("the verification", &probe, &input.recipe)
                .await;
        }
        assert!(self.delete(&configurations.canary).await.is_ok());
        for object in std::iter::once(&configurations.binding).chain(&configurations.warnings) {
            let answer = self.apply(object).await;
            assert!(answer.is_ok(), "{}", answer.body["message"]);
        }
        let asking = canary::active_probe(&input.recipe.agent);
        self.until_injected("the webhook configuration", &asking, &input.recipe)
            .await;
        tokio::time::sleep(UNTIL_WARNED).await;
    }

    async fn until_injected(&self, what: &str, probe: &Value, recipe: &Recipe) {
        self.until(what, async || {
            let answer = self.dry_run(CANARY, probe).await;
            if !answer.is_ok() {
                return Err(answer.body["message"].to_string());
            }
            difference::compare(probe, &answer.body, recipe, CANARY)
                .map_err(|mismatch| mismatch.to_string())
        })
        .await;
    }

    /// Applies a policy and waits until its verification succeeds; then binds it and waits until the real
    /// binding is active.
    pub(super) async fn activate(&self, input: &PolicyInput) -> Rendered {
        let policies = render(input).expect("policies");
        for object in policies.policy.iter().chain([&policies.canary]) {
            let answer = self.apply(object).await;
            assert!(answer.is_ok(), "{}", answer.body["message"]);
        }
        for probe in canary::probe_pods(&input.recipe, &policies.hash) {
            self.until_injected("the verification", &probe, &input.recipe)
                .await;
        }
        for object in std::iter::once(&policies.binding).chain(&policies.warnings) {
            let answer = self.apply(object).await;
            assert!(answer.is_ok(), "{}", answer.body["message"]);
        }
        let asking = canary::active_probe(&input.recipe.agent);
        self.until_injected("the binding", &asking, &input.recipe)
            .await;
        tokio::time::sleep(UNTIL_WARNED).await;
        policies
    }

    /// Repeats until it succeeds: a policy is seen within about a second by a server that is not busy.
    pub(super) async fn until(&self, what: &str, attempt: impl AsyncFn() -> Result<(), String>) {
        let begun = Instant::now();
        while let Err(why) = attempt().await {
            assert!(begun.elapsed() < PATIENCE, "{what}: {why}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn collection(object: &Value) -> String {
    let plural = match object["kind"].as_str().unwrap() {
        "MutatingAdmissionPolicy" => "mutatingadmissionpolicies",
        "MutatingAdmissionPolicyBinding" => "mutatingadmissionpolicybindings",
        "ValidatingAdmissionPolicy" => "validatingadmissionpolicies",
        "ValidatingAdmissionPolicyBinding" => "validatingadmissionpolicybindings",
        "MutatingWebhookConfiguration" => "mutatingwebhookconfigurations",
        "ValidatingWebhookConfiguration" => "validatingwebhookconfigurations",
        other => panic!("{other} is no admission policy"),
    };
    format!("/apis/admissionregistration.k8s.io/v1/{plural}")
}

/// The bed of tests that are not about a release.
pub(super) fn shared_bed() -> &'static Bed {
    bed_of(release())
}

/// Whether server tests can run here; says so if not.
pub(super) fn is_possible(test: &str) -> bool {
    testbed::skip_unless_possible(test)
}
