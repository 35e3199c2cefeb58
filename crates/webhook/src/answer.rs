//! One request: bounded in size, time and number; a panic ends the request and not the process.
//!
//! Nothing of users' pods is logged. Must not know connections.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::instruction::Target;
use crate::instruction_cache::InstructionCache;
use crate::observer::Observer;
use crate::review::{Review, failure};

/// Longest body, in bytes: the API server's own limit of an object.
const MAX_BODY: usize = 3 << 20;
/// Requests answered at a time; the rest is refused with status 503.
const IN_FLIGHT: usize = 64;
/// By when an answer is given: earlier than the API server stops waiting.
const DEADLINE: Duration = Duration::from_secs(2);

/// Why a body did not arrive.
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer on its way: the status, the body, and the word it is counted under.
type Reply = (StatusCode, Value, &'static str);

/// What answers.
pub(crate) struct Answers {
    cache: Arc<InstructionCache>,
    observer: Arc<dyn Observer>,
    in_flight: Semaphore,
}

impl Answers {
    pub(crate) fn new(cache: Arc<InstructionCache>, observer: Arc<dyn Observer>) -> Self {
        Self {
            cache,
            observer,
            in_flight: Semaphore::new(IN_FLIGHT),
        }
    }

    /// One request's answer.
    pub(crate) async fn respond(
        &self,
        request: Request<impl Body<Data = Bytes, Error: Into<BoxError>>>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let begun = Instant::now();
        let (status, body, outcome) = self.bounded(self.reply(request)).await;
        self.observer.reviewed(outcome, begun.elapsed());
        let mut response = Response::new(Full::from(body.to_string()));
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }

    /// Bounds what an answer may take, and keeps a mistake of ours to one request.
    async fn bounded(&self, reply: impl Future<Output = Reply>) -> Reply {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "Busy");
        };
        let reply = AssertUnwindSafe(reply).catch_unwind();
        match tokio::time::timeout(DEADLINE, reply).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(_)) => {
                tracing::error!("an answer panicked");
                refusal(StatusCode::INTERNAL_SERVER_ERROR, "Panicked")
            }
            Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "TooLate"),
        }
    }

    async fn reply(
        &self,
        request: Request<impl Body<Data = Bytes, Error: Into<BoxError>>>,
    ) -> Reply {
        let Some(target) = Target::parse(request.uri().path()) else {
            return refusal(StatusCode::NOT_FOUND, "NoSuchPath");
        };
        if request.method() != Method::POST {
            return refusal(StatusCode::METHOD_NOT_ALLOWED, "NotPosted");
        }
        let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return refusal(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge");
            }
            Err(_) => return refusal(StatusCode::BAD_REQUEST, "BrokenOff"),
        };
        let review = match Review::parse(&body) {
            Ok(review) => review,
            Err(bad) => return (StatusCode::BAD_REQUEST, bad.status(), "BadReview"),
        };
        drop(body);
        let instruction = self.cache.instruction(&target).await;
        let labels = match &instruction {
            Some(instruction) if review.needs_namespace_labels(instruction) => {
                self.cache.namespace_labels(review.namespace()).await
            }
            _ => None,
        };
        let answer = review.answer(instruction.as_deref(), labels.as_ref());
        (StatusCode::OK, answer.review, answer.outcome.word())
    }
}

/// An answer that is no review.
fn refusal(status: StatusCode, reason: &'static str) -> Reply {
    let message = format!("otelagent webhook: {reason}");
    (status, failure(status.as_u16(), reason, &message), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers what became of each review.
    #[derive(Default)]
    struct Recorder(std::sync::Mutex<Vec<&'static str>>);

    impl Observer for Recorder {
        fn ready(&self, _: &'static str) {}
        fn not_ready(&self, _: &'static str) {}
        fn reviewed(&self, outcome: &'static str, _: Duration) {
            self.0.lock().unwrap().push(outcome);
        }
    }

    fn answers() -> Answers {
        Answers::new(InstructionCache::empty(), Arc::<Recorder>::default())
    }

    async fn status(answers: &Answers, method: Method, path: &str, body: Vec<u8>) -> u16 {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Full::from(body)).unwrap();
        let response = answers.respond(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(serde_json::from_slice::<Value>(&body).is_ok());
        status
    }

    const PATH: &str = "/inject/shop/node/0123456789";

    #[tokio::test(start_paused = true)]
    async fn unanswerable_request_is_refused_with_a_reason() {
        let recorder = Arc::<Recorder>::default();
        let answers = Answers::new(InstructionCache::empty(), recorder.clone());
        assert_eq!(status(&answers, Method::GET, PATH, vec![]).await, 405);
        assert_eq!(status(&answers, Method::POST, "/", vec![]).await, 404);
        assert_eq!(status(&answers, Method::POST, PATH, vec![]).await, 400);
        assert_eq!(
            status(&answers, Method::POST, PATH, vec![b'x'; 100]).await,
            400
        );
        let huge = vec![b' '; MAX_BODY + 1];
        assert_eq!(status(&answers, Method::POST, PATH, huge).await, 413);
        let review = br#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u"}}"#;
        assert_eq!(
            status(&answers, Method::POST, PATH, review.to_vec()).await,
            200
        );
        let outcomes = recorder.0.lock().unwrap();
        let count = |word| outcomes.iter().filter(|outcome| **outcome == word).count();
        assert_eq!(count("TooLarge"), 1, "{outcomes:?}");
        assert_eq!(count("BadReview"), 2, "{outcomes:?}");
        assert_eq!(count("NotAPodCreation"), 1, "{outcomes:?}");
    }

    #[tokio::test]
    async fn panic_in_one_request_does_not_stop_the_next() {
        let answers = answers();
        let panics = async { panic!("on purpose") };
        assert_eq!(
            answers.bounded(panics).await.0,
            StatusCode::INTERNAL_SERVER_ERROR
        );
        let fine = async { (StatusCode::OK, Value::Null, "Injected") };
        assert_eq!(answers.bounded(fine).await.0, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_and_excess_requests_are_refused() {
        let answers = answers();
        let late = answers.bounded(std::future::pending()).await;
        assert_eq!(
            (late.0, late.2),
            (StatusCode::SERVICE_UNAVAILABLE, "TooLate")
        );
        let permits = answers.in_flight.try_acquire_many(64).unwrap();
        let busy = answers.bounded(std::future::pending()).await;
        assert_eq!((busy.0, busy.2), (StatusCode::SERVICE_UNAVAILABLE, "Busy"));
        drop(permits);
    }
}
