//! The webhook engine's process: answers the API server's reviews of pods.
//!
//! It applies the controller's instructions, which are annotations of the webhook configurations that make
//! the API server call; [`Review`](crate::review::Review) answers. It watches configurations and namespaces,
//! and makes no API call for a request. The controller renders the configurations ([`configuration`]) and
//! maintains the CA ([`ca`]).
//!
//! - [`instruction_cache`]: the instructions and labels of namespaces, filled by watches.
//! - [`answer`]: one request, bounded.
//! - [`server`]: connections, bounded.
//! - [`certificates`]: the serving certificate, renewed while it runs.
//! - [`error`]: the errors of this crate.
//!
//! This crate does not know modes or how recipes are rendered.

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

/// How long calls may still arrive after a shutdown begins, until no proxy sends any more.
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
    /// Starts the watches and obtains a certificate. Does not answer yet.
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

    /// Answers until `shutdown`, and then as long as calls may still arrive.
    ///
    /// # Errors
    /// If a task that must not end has ended.
    pub async fn run(
        mut self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), WebhookError> {
        tokio::pin!(shutdown);
        tokio::select! {
            () = self.cache.until_synced() => self.observer.ready(WATCHES),
            () = &mut shutdown => return Ok(()),
        }
        let (cache, certificates) = (self.cache.clone(), self.certificates.clone());
        let observer = self.observer.clone();
        self.tasks
            .spawn(tell_of_certificate(cache, certificates, observer));
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
}

/// Ready with a certificate, and without one while no webhook configuration calls, as on a server whose policies inject:
/// there the operator makes no CA, and `helm --wait` must end all the same.
async fn tell_of_certificate(
    cache: Arc<InstructionCache>,
    certificates: Arc<Certificates>,
    observer: Arc<dyn Observer>,
) -> &'static str {
    let held = certificates.until_held();
    tokio::pin!(held);
    let mut is_called = true;
    loop {
        if is_called {
            observer.not_ready(CERTIFICATE);
        } else {
            observer.ready(CERTIFICATE);
        }
        tokio::select! {
            () = &mut held => break,
            () = cache.until_called(!is_called) => is_called = !is_called,
        }
    }
    observer.ready(CERTIFICATE);
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

    use super::*;

    struct Told(UnboundedSender<bool>);

    impl Observer for Told {
        fn ready(&self, part: &'static str) {
            assert_eq!(part, CERTIFICATE);
            let _ = self.0.send(true);
        }
        fn not_ready(&self, _: &'static str) {
            let _ = self.0.send(false);
        }
        fn reviewed(&self, _: &'static str, _: Duration) {}
    }

    #[tokio::test]
    async fn webhook_without_a_certificate_is_ready_only_while_nothing_calls_it() {
        let cache = InstructionCache::empty();
        let certificates = Certificates::none();
        let (sender, mut told) = unbounded_channel();
        let observer = Arc::new(Told(sender));
        tokio::spawn(tell_of_certificate(cache.clone(), certificates, observer));
        assert_eq!(told.recv().await, Some(false));
        assert_eq!(told.recv().await, Some(true));
        cache.list_one("otelagent.shop.side");
        assert_eq!(told.recv().await, Some(false));
    }
}
