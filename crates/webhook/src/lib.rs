//! Shell. The webhook engine's process: answers the API server's reviews of pods.
//!
//! It applies what the controller says is in force and decides nothing: orders stand on the entries that
//! make the API server call, and [`Review`](crate::review::Review) answers. No request makes it
//! call the API: entries and namespaces are watched.
//!
//! - [`book`]: the orders, as the watch has seen them.
//! - [`answer`]: one request, bounded.
//! - [`server`]: connections, bounded.
//! - [`certificates`]: what it serves by, renewed while it runs.
//! - [`error`]: what can go wrong here.
//!
//! This room must not know OtelAgents, modes or how recipes are made.

pub mod ca;
pub mod ca_upkeep;
pub mod configuration;
pub mod issue;
pub mod order;
pub mod review;

mod answer;
mod book;
mod certificates;
mod error;
mod patch;
mod server;

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub use self::certificates::Source;
pub use self::error::WebhookError;

use self::answer::Answers;
use self::book::Book;
use self::certificates::Certificates;

/// Readiness: entries and namespaces have been seen once.
pub const WATCHES: &str = "watches";
/// Readiness: there is a certificate to serve by.
pub const CERTIFICATE: &str = "certificate";
/// Readiness: the end was not asked for.
pub const SERVING: &str = "serving";

/// How long calls still come in after the end was asked for: until no proxy sends any more.
const LINGER: Duration = Duration::from_secs(8);

/// Where the process reports the webhook's readiness and what became of each review.
pub trait Observer: Send + Sync + 'static {
    /// A part, one of the constants above, became ready.
    fn ready(&self, part: &'static str);
    /// A part is no longer ready.
    fn not_ready(&self, part: &'static str);
    /// A review was answered, in one of a closed set of ways.
    fn reviewed(&self, outcome: &'static str, took: Duration);
}

/// The webhook, watching and answering.
pub struct Webhook {
    book: Arc<Book>,
    certificates: Arc<Certificates>,
    answers: Arc<Answers>,
    observer: Arc<dyn Observer>,
    tasks: JoinSet<&'static str>,
}

impl Webhook {
    /// Starts the watches and gets a certificate. Nothing is answered yet.
    pub fn start(client: &Client, source: Source, observer: Arc<dyn Observer>) -> Self {
        let mut tasks = JoinSet::new();
        let book = Book::start(client, &mut tasks);
        let certificates = Certificates::start(client, source, &mut tasks);
        let answers = Arc::new(Answers::new(book.clone(), observer.clone()));
        Self {
            book,
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
        self.book.until_synced().await;
        self.observer.ready(WATCHES);
        self.certificates.until_held().await;
        self.observer.ready(CERTIFICATE);
    }
}
