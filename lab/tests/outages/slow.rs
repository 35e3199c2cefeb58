//! An API server that answers late, then refuses every call as one that is overloaded does, then comes back with another
//! certificate.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Collected};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::world::{OutageBed, PLATFORM, config};

const AGENT: (&str, &str) = (PLATFORM, "node");
/// How late every answer is.
const LATE: Duration = Duration::from_secs(2);
/// For how long every call is refused.
const OVERLOADED: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn operator_outlasts_a_late_then_overloaded_then_renewed_server() {
    if !testbed::skip_unless_possible("an API server that is late and overloaded") {
        return;
    }
    let world = OutageBed::start("slow").await;
    let proxy = Proxy::start(&world).await;
    let operator = world.candidate_behind(&proxy.address);
    world.shop_is_served_by(AGENT).await;
    world.deployment("shop", "cart", 2).await;
    world.check_status(AGENT).await;

    proxy.says.overloaded.store(true, Ordering::SeqCst);
    world
        .want(AGENT.0, AGENT.1, json!({"mode": "HostPort"}))
        .await;
    // The time is what is tested: no call succeeds for so long.
    sleep(OVERLOADED).await;
    proxy.says.overloaded.store(false, Ordering::SeqCst);
    let refused = proxy.says.refused.load(Ordering::SeqCst);
    println!("{refused} calls were refused in {OVERLOADED:?}");
    // Every watch and the lease try again, none of them in a loop.
    assert!((1..2000).contains(&refused), "{refused} refused calls");
    world.until_serving(AGENT, "HostPort").await;
    world.check_status(AGENT).await;

    block_in_place(|| world.bed.renew_apiserver_certificate()).unwrap();
    world
        .want(AGENT.0, AGENT.1, json!({"mode": "NodeLocal"}))
        .await;
    world.until_serving(AGENT, "NodeLocal").await;
    world.check_status(AGENT).await;
    drop(operator);
    world.end();
}

#[derive(Default)]
struct Says {
    overloaded: AtomicBool,
    refused: AtomicUsize,
}

/// Passes calls on to the API server, with the credentials that they have.
struct Proxy {
    address: String,
    says: Arc<Says>,
}

impl Proxy {
    async fn start(world: &OutageBed) -> Self {
        let mut config = config(world.bed.kubeconfig()).await;
        config.auth_info = kube::config::AuthInfo::default();
        config.read_timeout = None;
        let client = Client::try_from(config).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let says = Arc::new(Says::default());
        tokio::spawn({
            let says = Arc::clone(&says);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    let (client, says) = (client.clone(), Arc::clone(&says));
                    let service = service_fn(move |request| {
                        let (client, says) = (client.clone(), Arc::clone(&says));
                        async move { Ok::<_, Infallible>(answer(client, &says, request).await) }
                    });
                    let served =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    tokio::spawn(served);
                }
            }
        });
        Self { address, says }
    }
}

async fn answer(client: Client, says: &Says, request: Request<Incoming>) -> Response<Body> {
    sleep(LATE).await;
    if says.overloaded.load(Ordering::SeqCst) {
        says.refused.fetch_add(1, Ordering::SeqCst);
        let mut refused = Response::new(Body::from(Vec::new()));
        *refused.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let wait = http::HeaderValue::from_static("1");
        refused
            .headers_mut()
            .insert(http::header::RETRY_AFTER, wait);
        return refused;
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(Collected::to_bytes);
    let request = Request::from_parts(head, Body::from(body.unwrap_or_default().to_vec()));
    client.send(request).await.unwrap_or_else(|_| {
        let mut failed = Response::new(Body::from(Vec::new()));
        *failed.status_mut() = StatusCode::BAD_GATEWAY;
        failed
    })
}
