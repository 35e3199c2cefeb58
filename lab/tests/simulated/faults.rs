//! A layer around the controller's client that numbers its writes and makes one of them fail.
//!
//! A write is a POST, PUT, PATCH or DELETE of the operator's objects: events and leases do not count, and a dry run
//! writes nothing. A write is known by what it does ([`Write::key`]) and by how often that was done, not by its
//! number alone. How often a status is written depends on how fast pods become ready, so the n-th write of one run
//! need not be that of another.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::{Method, Request, Response, StatusCode, Uri};
use kube::Client;
use kube::client::Body;
use otelagent_operator::runtime::client::CALL_TIMEOUT;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::{BoxError, Service};

use super::views::{Bent, Views, whole};

/// A fault at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process dies; the server never hears of the write.
    CrashBefore,
    /// The process dies once the write is committed; the answer is never read.
    CrashAfter,
    /// The server answers so, this many times in a row, and does nothing.
    Answer(u16, usize),
    /// The write is committed, and the answer says 504.
    Lost,
    /// No answer comes until the bounded client gives up, as the tests of `src/runtime/client.rs` verify.
    Silence,
    /// The request arrives twice.
    Twice,
}

/// One write of the controller.
#[derive(Clone, Debug)]
pub(super) struct Write {
    /// What it does, without the names of the run: equal in every run that does the same.
    pub(super) key: String,
    /// How often that was done before, since faults were armed.
    pub(super) nth: usize,
    /// A defect of the request itself.
    wrong: Option<String>,
}

impl Write {
    /// Key and number.
    pub(super) fn id(&self) -> (String, usize) {
        (self.key.clone(), self.nth)
    }
}

impl Fault {
    /// How many reconciles it spoils.
    pub(super) fn times(self) -> usize {
        match self {
            Self::Answer(_, times) => times,
            _ => 1,
        }
    }
}

/// The fate of every request of a kind, reads included, until it is revoked.
#[derive(Clone, Debug)]
pub(super) struct Spoil {
    /// The method.
    pub(super) method: Method,
    /// Part of the address, which may be of the query.
    pub(super) address: &'static str,
    /// What becomes of it.
    pub(super) how: How,
}

/// See [`Spoil`].
#[derive(Clone, Copy, Debug)]
pub(super) enum How {
    /// The server answers so.
    Answer(u16),
    /// The client's code panics.
    Panic,
    /// No answer comes, and the client's own bounds do not help.
    Silence,
}

/// Which fault, and when.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// At which write.
    pub(super) at: (String, usize),
    /// What.
    pub(super) fault: Fault,
}

/// The faults of one run and the record of its writes, shared by all its controllers.
#[derive(Clone)]
pub(super) struct Faults {
    state: Arc<Mutex<State>>,
    /// What they are shown.
    pub(super) views: Views,
}

struct State {
    namespace: String,
    name: String,
    writes: Vec<Write>,
    counts: HashMap<String, usize>,
    policies: Vec<String>,
    plan: Option<Plan>,
    left: usize,
    met: bool,
    spoil: Option<Spoil>,
}

impl Faults {
    /// Of a run without a fault so far.
    pub(super) fn none(namespace: &str, name: &str) -> Self {
        let state = State {
            namespace: namespace.into(),
            name: name.into(),
            writes: Vec::new(),
            counts: HashMap::new(),
            policies: Vec::new(),
            plan: None,
            left: 0,
            met: false,
            spoil: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            views: Views::present(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The `OtelAgent`'s name.
    fn name(&self) -> String {
        self.lock().name.clone()
    }

    /// Counts from here, and makes the planned fault.
    pub(super) fn arm(&self, plan: Option<Plan>) {
        let mut state = self.lock();
        state.counts.clear();
        state.left = plan.as_ref().map_or(0, |plan| plan.fault.times());
        state.plan = plan;
        state.met = false;
    }

    /// Spoils every request of a kind from here on, or none.
    pub(super) fn spoil(&self, spoil: Option<Spoil>) {
        self.lock().spoil = spoil;
    }

    fn spoiled(&self, method: &Method, uri: &Uri) -> Option<How> {
        let state = self.lock();
        let spoil = state.spoil.as_ref()?;
        let is_meant = spoil.method == method && uri.to_string().contains(spoil.address);
        is_meant.then_some(spoil.how)
    }

    /// Whether what was planned has happened.
    pub(super) fn met(&self) -> bool {
        self.lock().met
    }

    /// Writes so far, since the beginning.
    pub(super) fn writes(&self) -> Vec<Write> {
        self.lock().writes.clone()
    }

    /// Defects of the requests themselves.
    pub(super) fn wrong(&self) -> Vec<String> {
        let state = self.lock();
        state
            .writes
            .iter()
            .filter_map(|write| write.wrong.clone())
            .collect()
    }
}

impl State {
    /// Notes a write; returns its fault.
    fn note(&mut self, method: &Method, uri: &Uri, body: &Value) -> Option<Fault> {
        let key = self.key(method, uri.path(), body);
        let count = self.counts.entry(key.clone()).or_default();
        let nth = *count;
        *count += 1;
        let wrong = self.wrong_with(method, uri.path(), body);
        self.writes.push(Write {
            key: key.clone(),
            nth,
            wrong,
        });
        let plan = self.plan.as_ref()?;
        let begins = plan.at == (key.clone(), nth);
        let goes_on = self.met && plan.at.0 == key && nth > plan.at.1;
        if self.left == 0 || !(begins || goes_on) {
            return None;
        }
        self.left -= 1;
        self.met = true;
        Some(plan.fault)
    }

    fn key(&mut self, method: &Method, path: &str, body: &Value) -> String {
        let tail = path
            .rsplit('/')
            .take(if path.ends_with("/status") { 3 } else { 2 });
        let mut parts: Vec<String> = tail.map(str::to_owned).collect();
        parts.reverse();
        // Names of pods differ between runs.
        if let [kind, pod] = parts.as_mut_slice()
            && kind == "pods"
        {
            "POD".clone_into(pod);
        }
        let own = format!("otelagent.{}.{}.", self.namespace, self.name);
        for part in &mut parts {
            if let Some(hash) = part.strip_prefix(&own).filter(|hash| *hash != "canary") {
                let at = self
                    .policies
                    .iter()
                    .position(|known| known == hash)
                    .unwrap_or_else(|| {
                        self.policies.push(hash.to_owned());
                        self.policies.len() - 1
                    });
                *part = format!("policy-{at}");
            } else {
                *part = part
                    .replace(&self.namespace, "NAMESPACE")
                    .replace(&self.name, "NAME");
            }
        }
        let mut key = format!("{method} {}", parts.join("/"));
        if path.ends_with("/status") {
            let conditions = body["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten();
            let reasons: Vec<&str> = conditions.filter_map(|c| c["reason"].as_str()).collect();
            key = format!("{key} {} {}", body["status"]["mode"], reasons.join(" "));
        } else if !body["metadata"]["annotations"]["otelagent.dev/unused-since"].is_null() {
            key.push_str(" unused");
        }
        key
    }

    /// What no request of the operator may be, in any run.
    fn wrong_with(&self, method: &Method, path: &str, body: &Value) -> Option<String> {
        if method == Method::DELETE && body["preconditions"]["uid"].as_str().is_none() {
            return Some(format!("DELETE {path} does not say which uid it means"));
        }
        let of_cluster = path.starts_with("/apis/admissionregistration.k8s.io/")
            && path.contains(&format!("/otelagent.{}.{}", self.namespace, self.name));
        let in_namespace = path.contains(&format!("/namespaces/{}/", self.namespace))
            && (path.ends_with(&format!("/otelagents/{}/status", self.name))
                || path.contains("/configmaps/")
                || path.contains("/pods/")
                || path.contains("/daemonsets/")
                || path.contains("/services/"));
        (!of_cluster && !in_namespace).then(|| format!("{method} {path} is out of scope"))
    }
}

/// One life of a client: once it has died, no call of it ends.
#[derive(Clone)]
pub(super) struct Life {
    dead: watch::Sender<bool>,
}

impl Life {
    /// Alive.
    pub(super) fn new() -> Self {
        Self {
            dead: watch::channel(false).0,
        }
    }

    /// Ends it.
    pub(super) fn end(&self) {
        self.dead.send_replace(true);
    }

    /// Returns when it has ended.
    pub(super) async fn ended(&self) {
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }
}

/// The client of one life, with its faults.
pub(super) fn client(inner: Client, faults: Faults, life: Life, namespace: &str) -> Client {
    let layer = Faulty {
        inner,
        faults,
        life,
        namespace: namespace.to_owned(),
    };
    Client::new(layer, namespace)
}

#[derive(Clone)]
struct Faulty {
    inner: Client,
    faults: Faults,
    life: Life,
    namespace: String,
}

type Answer = Result<Response<Bent>, BoxError>;

impl Service<Request<Body>> for Faulty {
    type Response = Response<Bent>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            tokio::select! {
                biased;
                () = this.life.ended() => std::future::pending().await,
                answer = this.pass(request) => answer,
            }
        })
    }
}

impl Faulty {
    async fn pass(&self, request: Request<Body>) -> Answer {
        let (mut parts, body) = request.into_parts();
        parts.uri = self.narrowed(&parts.uri)?;
        match self.faults.spoiled(&parts.method, &parts.uri) {
            Some(How::Answer(code)) => return refusal(code),
            Some(How::Panic) => panic!("on purpose"),
            Some(How::Silence) => std::future::pending().await,
            None => {}
        }
        let bytes = body.collect_bytes().await?;
        let again = || {
            let mut request = Request::new(Body::from(bytes.to_vec()));
            *request.method_mut() = parts.method.clone();
            *request.uri_mut() = parts.uri.clone();
            *request.headers_mut() = parts.headers.clone();
            request
        };
        let fault = if is_write(&parts.method, &parts.uri) {
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            self.faults.lock().note(&parts.method, &parts.uri, &body)
        } else {
            None
        };
        let views = &self.faults.views;
        if let Some(old) = views.old_answer(&parts.method, &parts.uri) {
            return Ok(old);
        }
        let shown = |answer| views.shown(&parts.uri, answer);
        match fault {
            None => Ok(shown(self.inner.send(again()).await?)),
            Some(Fault::CrashBefore) => self.die().await,
            Some(Fault::CrashAfter) => {
                self.inner.send(again()).await?;
                self.die().await
            }
            Some(Fault::Answer(code, _)) => refusal(code),
            Some(Fault::Lost) => {
                self.inner.send(again()).await?;
                refusal(504)
            }
            Some(Fault::Silence) => {
                tokio::time::sleep(CALL_TIMEOUT).await;
                Err("the call timed out".into())
            }
            Some(Fault::Twice) => {
                self.inner.send(again()).await?;
                Ok(shown(self.inner.send(again()).await?))
            }
        }
    }

    /// Narrows lists of shared kinds to the objects of this run.
    fn narrowed(&self, uri: &Uri) -> Result<Uri, BoxError> {
        let namespace = &self.namespace;
        let path = match uri.path() {
            "/api/v1/pods" => format!("/api/v1/namespaces/{namespace}/pods"),
            "/apis/otelagent.dev/v1alpha1/otelagents" => {
                format!("/apis/otelagent.dev/v1alpha1/namespaces/{namespace}/otelagents")
            }
            path => path.to_owned(),
        };
        let query = uri.query().map(|query| format!("?{query}"));
        let mut query = query.unwrap_or_default();
        if path.starts_with("/apis/admissionregistration.k8s.io/") {
            let own = format!("otelagent.dev%2Fowner%3D{namespace}.{}", self.faults.name());
            query = query.replace("labelSelector=", &format!("labelSelector={own}%2C"));
        }
        Ok(format!("{path}{query}").parse()?)
    }

    async fn die(&self) -> Answer {
        self.life.end();
        std::future::pending().await
    }
}

fn refusal(code: u16) -> Answer {
    let reason = match code {
        403 => "Forbidden",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": "a fault of the test",
    });
    let mut response = Response::new(whole(status.to_string()));
    *response.status_mut() = StatusCode::from_u16(code)?;
    if code == 429 {
        response.headers_mut().insert("retry-after", "1".parse()?);
    }
    Ok(response)
}

/// Whether it changes an object of the operator.
pub(super) fn is_write(method: &Method, uri: &Uri) -> bool {
    let path = uri.path();
    !method.is_safe()
        && !uri.query().is_some_and(|query| query.contains("dryRun"))
        && !path.contains("/events")
        && !path.contains("/leases")
}
