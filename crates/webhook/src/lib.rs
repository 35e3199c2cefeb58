//! Shell. The webhook engine's process: answers the API server's reviews of pods.
//!
//! It applies the controller's instructions and decides nothing: instructions are annotations of the webhook
//! configurations that make the API server call, and [`Review`](crate::review::Review) answers. No request
//! makes it call the API: it watches configurations and namespaces. The controller renders configurations
//! ([`configuration`]) and keeps the CA ([`ca`]).
//!
//! - [`instruction_cache`]: the instructions, as the watch has seen them.
//! - [`answer`]: one request, bounded.
//! - [`server`]: connections, bounded.
//! - [`certificates`]: the serving certificate, renewed while it runs.
//! - [`error`]: what can go wrong here.
//!
//! This crate must not know OtelAgents, modes or how recipes are made.

pub mod ca;
pub mod configuration;
pub mod instruction;
pub mod issue;
pub mod review;

mod answer;
mod certificates;
mod error;
mod instruction_cache;
mod observer;
mod patch;
mod server;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use self::certificates::{Source, stored_ca};
pub use self::error::WebhookError;
pub use self::observer::{CERTIFICATE, Observer, SERVING, WATCHES};

use self::answer::Answers;
use self::certificates::Certificates;
use self::instruction_cache::InstructionCache;

/// How long calls still arrive after a shutdown is asked for: until no proxy sends any more.
const LINGER: Duration = Duration::from_secs(8);

/// The webhook, watching and answering.
pub struct Webhook {
    cache: Arc<InstructionCache>,
    certificates: Arc<Certificates>,
    answers: Arc<Answers>,
    observer: Arc<dyn Observer>,
    tasks: JoinSet<&'static str>,
}

impl Webhook {
    /// Starts the watches and gets a certificate. Nothing is answered yet.
    pub fn start(client: &Client, source: Source, observer: Arc<dyn Observer>) -> Self {
        let mut tasks = JoinSet::new();
        let cache = InstructionCache::start(client, &mut tasks);
        let certificates = Certificates::start(client, source, &mut tasks);
        let answers = Arc::new(Answers::new(cache.clone(), observer.clone()));
        Self {
            cache,
            certificates,
            answers,
            observer,
            tasks,
        }
    }

    /// Answers until `shutdown`, then as long as calls may still be on their way.
    ///
    /// # Errors
    /// If a task that must go on ended.
    pub async fn run(
        mut self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), WebhookError> {
        tokio::pin!(shutdown);
        tokio::select! {
            () = self.until_it_can_answer() => {}
            () = &mut shutdown => return Ok(()),
        }
        let acceptor = self.certificates.acceptor()?;
        let stop = tokio_util::sync::CancellationToken::new();
        let server = server::serve(listener, acceptor, self.answers.clone(), stop.clone());
        let mut server = std::pin::pin!(server);
        self.observer.ready(SERVING);
        tokio::select! {
            () = &mut server => return Err(WebhookError::Ended("server")),
            ended = self.tasks.join_next() => {
                let what = ended.and_then(Result::ok).unwrap_or("task");
                return Err(WebhookError::Ended(what));
            }
            () = &mut shutdown => {}
        }
        self.observer.not_ready(SERVING);
        tokio::select! {
            () = &mut server => {}
            () = tokio::time::sleep(LINGER) => {
                stop.cancel();
                server.await;
            }
        }
        Ok(())
    }

    async fn until_it_can_answer(&self) {
        self.cache.until_synced().await;
        self.observer.ready(WATCHES);
        self.certificates.until_held().await;
        self.observer.ready(CERTIFICATE);
    }
}
