//! The webhook engine: its replicas are killed under load, and stopped until their certificates and their CA have
//! expired.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::jiff::Timestamp;
use otelagent_core::names;
use otelagent_webhook::ca::Ca;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::creator::{Creator, How, Outcomes, mode_of};
use super::world::{
    OutageBed, PATIENCE, PLATFORM, Process, condition, is, name_of, pods_path, send, unplaced,
    until,
};
use crate::status_checker::get;
use crate::test_scale::is_full;

/// Misses pods instead of refusing them, and restarts the workloads of missed pods.
const LENIENT: (&str, &str) = ("shop", "side");
/// Selects every namespace, and refuses pods that are not injected.
const STRICT: (&str, &str) = (PLATFORM, "strict");
/// Where the replicas listen.
const PORTS: [u16; 2] = [18443, 18444];
/// How long there is no webhook.
const OUTAGE: Duration = Duration::from_secs(3);
/// Life of a CA in seconds, the shortest there is; a certificate lives a twelfth of it.
const LIFE: &str = "--webhook-authority-seconds=60";
/// Longer than a certificate lives, and than a CA.
const CERTIFICATE: Duration = Duration::from_secs(7);
const CA_LIFE: Duration = Duration::from_secs(65);
/// Within this time everything works again after the pause, on a busy machine too; the webhook reads the Secret every
/// ten seconds.
const RECOVERY: Duration = Duration::from_mins(2);

#[tokio::test(flavor = "multi_thread")]
async fn webhook_outage_and_expired_certificates_are_reported_and_repaired() {
    if !testbed::skip_unless_possible("a webhook that dies and certificates that run out") {
        return;
    }
    let world = OutageBed::start("webhook").await;
    for namespace in ["shop", "vault"] {
        world.namespace(namespace, json!({})).await;
    }
    service(&world).await;
    let mut operator = world.operator(&["--injection-engine=webhook"]);
    let mut replicas = PORTS.map(|port| world.webhook(port));
    let workloads = json!({"restart": "Rolling"});
    let spec = json!({"mode": "Sidecar", "workloads": workloads});
    world.agent(LENIENT.0, LENIENT.1, spec).await;
    // The older wins, and is older by a second at least.
    world.until_serving(LENIENT, "Sidecar").await;
    sleep(Duration::from_secs(1)).await;
    let workloads = json!({"namespaceSelector": {}, "onInjectionFailure": "Fail"});
    let spec = json!({"mode": "Sidecar", "workloads": workloads});
    world.agent(STRICT.0, STRICT.1, spec).await;
    world.until_serving(STRICT, "Sidecar").await;
    world.deployment("shop", "web", 2).await;
    let both = |status: &Value| status["pods"]["current"] == 2;
    world.until_status(LENIENT, "two pods", both).await;

    let missed = outage(&world, &mut replicas).await;
    what_was_missed_is_counted_and_repaired(&world, &missed).await;
    operator.must_run();
    drop(operator);

    let mut operator = short_lived(&world).await;
    what_ran_out_is_replaced(&world, &mut operator, &mut replicas).await;
    drop((operator, replicas));
    world.end();
}

/// As in manifests/webhook, except that the replicas are processes, not pods.
async fn service(world: &OutageBed) {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": names::WEBHOOK},
        "spec": {"ports": [{"name": "webhook", "port": 443}]},
    });
    let path = format!("/api/v1/namespaces/{PLATFORM}/services");
    world.make(&path, &service).await;
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{PLATFORM}/endpointslices");
    for port in PORTS {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{}-{port}", names::WEBHOOK),
                "labels": {"kubernetes.io/service-name": names::WEBHOOK},
            },
            "ports": [{"name": "webhook", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [world.bed.host_ip()], "conditions": {"ready": true}}],
        });
        world.make(&path, &slice).await;
    }
}

/// Kills both replicas while pods are created as fast as possible. Returns the names of the missed pods.
async fn outage(world: &OutageBed, replicas: &mut [Process; 2]) -> BTreeSet<String> {
    let create = |namespace, at_a_time, pause| {
        Creator::start(&world.admin, namespace, How::Kept, at_a_time, pause)
    };
    let (none, pause) = (Duration::ZERO, Duration::from_millis(100));
    let load = create("shop", 4, none);
    let strict = create("vault", 1, pause);
    let system = create("kube-system", 1, pause);
    let own = create(PLATFORM, 1, pause);
    load.until_more(50).await;

    // Dropped, that is killed, both.
    let [first, second] = replicas;
    first.kill();
    second.kill();
    world.scale("shop", "web", 4).await;
    sleep(OUTAGE).await;
    until("four pods of the Deployment", PATIENCE, async || {
        let pods = of_web(world).await?.len();
        (pods == 4).then_some(()).ok_or_else(|| format!("{pods}"))
    })
    .await;
    for creator in [&load, &system, &own] {
        creator.until_more(20).await;
    }
    let rate = load.rate();
    *replicas = PORTS.map(|port| world.webhook(port));
    until("injected again", PATIENCE, async || {
        let last = load.last();
        let is_so = last.as_ref().is_some_and(|last| last.mode.is_some());
        is_so.then_some(()).ok_or_else(|| format!("{last:?}"))
    })
    .await;
    strict.until_more(5).await;

    let (load, strict) = (load.end().await, strict.end().await);
    println!(
        "{} pods, {rate:.0} a second, {} of them missed; {} refused in the strict namespace",
        load.answered.len(),
        load.missed().len(),
        strict.refused.len()
    );
    assert!(load.refused.is_empty(), "{:?}", load.refused);
    refused_rather_than_missed(world, &strict).await;
    for (namespace, creator) in [("kube-system", system), (PLATFORM, own)] {
        let outcome = creator.end().await;
        assert!(outcome.refused.is_empty(), "{:?}", outcome.refused);
        assert_eq!(
            outcome.missed().len(),
            outcome.answered.len(),
            "{namespace}"
        );
    }
    let missed: BTreeSet<String> = load.missed().iter().map(|pod| pod.name.clone()).collect();
    assert!(
        !missed.is_empty(),
        "nothing was missed: the webhook was not down"
    );
    missed
}

/// With `Fail`, no pod starts uninjected.
async fn refused_rather_than_missed(world: &OutageBed, strict: &Outcomes) {
    assert!(!strict.refused.is_empty(), "nothing was refused");
    assert!(strict.missed().is_empty(), "{:?}", strict.missed());
    let pods = world.pods("vault").await.unwrap();
    let uninjected: Vec<&str> = pods
        .iter()
        .filter(|pod| mode_of(pod).is_none())
        .map(name_of)
        .collect();
    assert!(uninjected.is_empty(), "{uninjected:?}");
}

/// Every missed pod is counted; those of a Deployment are replaced, and others are named until a user replaces them.
async fn what_was_missed_is_counted_and_repaired(world: &OutageBed, bare: &BTreeSet<String>) {
    let status = world
        .until_status(LENIENT, "only bare pods missed", |status| {
            status["pods"]["missed"] == bare.len() && status["restarts"]["running"] == 0
        })
        .await;
    world.check_status(LENIENT).await;
    let injected = condition(&status, "Injected");
    assert_eq!(injected["reason"], "PodsMissed", "{injected}");
    let first = bare.first().cloned().unwrap_or_default();
    let message = injected["message"].as_str().unwrap_or_default();
    assert!(
        message.contains(&format!("Pod shop/{first}: 1")),
        "{message}"
    );

    let web = "/apis/apps/v1/namespaces/shop/deployments/web";
    let web = get(&world.admin, web).await.unwrap();
    let annotations = &web["spec"]["template"]["metadata"]["annotations"];
    assert!(
        annotations["kubectl.kubernetes.io/restartedAt"].is_string(),
        "what was missed was not restarted: {annotations}"
    );
    let modes: Vec<Option<String>> = of_web(world).await.unwrap().iter().map(mode_of).collect();
    assert_eq!(modes, vec![Some("Sidecar".to_owned()); 4]);

    let bare = format!("{}?labelSelector=%21app", pods_path("shop"));
    world.delete_all(&bare).await;
    world
        .until_status(LENIENT, "nothing missed", |status| {
            status["pods"]["missed"] == 0 && is(status, "Injected", "True")
        })
        .await;
}

/// Live pods of the Deployment.
async fn of_web(world: &OutageBed) -> Result<Vec<Value>, String> {
    let mut pods = world.pods("shop").await?;
    pods.retain(|pod| pod["metadata"]["labels"]["app"] == "web");
    Ok(pods)
}

/// An operator whose CAs live a minute. The one before is forgotten, as if a user had emptied the
/// Secret while no operator ran.
async fn short_lived(world: &OutageBed) -> Process {
    let path = secret_path();
    world.patch(&path, &json!({"data": null})).await;
    let operator = world.operator(&["--injection-engine=webhook", LIFE]);
    // Only who serves by the new one is believed then; the API server asks either replica.
    until("injected by the new CA alone", PATIENCE, async || {
        let kept = stored_ca(world).await?.bundle(Timestamp::now());
        let name = names::cluster_object(LENIENT.0, LENIENT.1, None);
        let configuration =
            format!("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{name}");
        let configuration = get(&world.admin, &configuration).await?;
        let trusted = bytes(&configuration["webhooks"][0]["clientConfig"]["caBundle"])?;
        if trusted != kept.into_bytes() {
            return Err("the webhook configuration trusts another".to_owned());
        }
        for _ in 0..10 {
            injected(world).await?;
        }
        Ok(())
    })
    .await;
    operator
}

/// Replicas that are paused for longer than their certificates live, which to them looks like a moved clock,
/// recover by themselves.
async fn what_ran_out_is_replaced(
    world: &OutageBed,
    operator: &mut Process,
    replicas: &mut [Process; 2],
) {
    for replica in &*replicas {
        replica.pause();
    }
    sleep(CERTIFICATE).await;
    let missed = injected(world).await;
    assert!(
        missed.is_err(),
        "no webhook answered, and the pod was injected"
    );
    goes_on(world, "the certificates", replicas).await;
    if is_full() {
        operator.pause();
        for replica in &*replicas {
            replica.pause();
        }
        sleep(CA_LIFE).await;
        let kept = stored_ca(world).await.unwrap();
        assert_eq!(kept.bundle(Timestamp::now()), "", "all have run out");
        operator.resume();
        goes_on(world, "the CA", replicas).await;
    }
    operator.must_run();
    for replica in replicas {
        replica.must_run();
    }
}

async fn goes_on(world: &OutageBed, what: &str, replicas: &[Process; 2]) {
    for replica in replicas {
        replica.resume();
    }
    let begun = Instant::now();
    let what_for = format!("injected after {what} ran out");
    until(&what_for, RECOVERY, async || injected(world).await).await;
    let took = begun.elapsed().as_secs_f64();
    println!("{what} ran out; pods are injected {took:.1} s after");
}

fn secret_path() -> String {
    let name = names::ca_secret(names::WEBHOOK);
    format!("/api/v1/namespaces/{PLATFORM}/secrets/{name}")
}

/// The CA in its Secret.
async fn stored_ca(world: &OutageBed) -> Result<Ca, String> {
    let secret = get(&world.admin, &secret_path()).await?;
    let kept = bytes(&secret["data"][names::CA_KEY])?;
    let text = String::from_utf8(kept).map_err(|error| error.to_string())?;
    Ca::parse(&text).ok_or_else(|| "no CA".to_owned())
}

fn bytes(value: &Value) -> Result<Vec<u8>, String> {
    let bytes: Result<ByteString, _> = serde_json::from_value(value.clone());
    bytes
        .map(|bytes| bytes.0)
        .map_err(|error| error.to_string())
}

/// Whether a pod created now, by dry run, is injected.
async fn injected(world: &OutageBed) -> Result<(), String> {
    let path = format!("{}?dryRun=All", pods_path("shop"));
    let pod = send(&world.admin, http::Method::POST, &path, &unplaced()).await;
    let pod = pod.map_err(|error| error.to_string())?;
    mode_of(&pod)
        .map(drop)
        .ok_or_else(|| "a pod came out uninjected".to_owned())
}
