//! OTLP/HTTP with binary protobuf, on HTTP/1.1 and HTTP/2. Must not know connections.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response};

use super::Intake;
use super::body::{self, Answer, Arriving};
use super::status::Refusal;
use crate::encoding::Encoding;
use crate::metrics::Transport;
use crate::scan::Signal;

pub(super) async fn answer(intake: &Intake, request: Request<Arriving>) -> Response<Answer> {
    let json = media_type(request.headers()) == b"application/json";
    let path = request.uri().path();
    let signal = intake.signal_at(path).or_else(|| signal(path));
    match export(intake, signal, request).await {
        Ok(()) => success(),
        Err(refusal) => {
            intake.count_refusal(signal, Transport::Http, &refusal);
            refusal.http(json)
        }
    }
}

fn signal(path: &str) -> Option<Signal> {
    match path {
        "/v1/traces" => Some(Signal::Traces),
        "/v1/metrics" => Some(Signal::Metrics),
        "/v1/logs" => Some(Signal::Logs),
        _ => None,
    }
}

/// The content type without its parameters.
fn media_type(headers: &HeaderMap) -> &[u8] {
    let kind = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    kind.split(|&byte| byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii()
}

async fn export(
    intake: &Intake,
    signal: Option<Signal>,
    request: Request<Arriving>,
) -> Result<(), Refusal> {
    let signal = signal.ok_or(Refusal::UnknownPath)?;
    if request.method() != Method::POST {
        return Err(Refusal::Method);
    }
    let headers = request.headers();
    if !media_type(headers).eq_ignore_ascii_case(b"application/x-protobuf") {
        return Err(Refusal::MediaType);
    }
    let encoding = headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
    let encoding = Encoding::parse(encoding).ok_or(Refusal::Encoding)?;
    let route = intake.route(signal)?;
    let limit = intake.limits.http_body;
    let announced = request.body().announced();
    if announced > limit {
        return Err(Refusal::TooLarge(limit));
    }
    let mut permit = intake.admit(route, announced)?;
    let body = body::collect(request.into_body(), limit, &mut permit, |_| 0).await?;
    intake.take(route, Transport::Http, encoding, limit, body, permit)
}

/// An `Export<Signal>ServiceResponse` without fields is no bytes at all.
fn success() -> Response<Answer> {
    let mut response = Response::new(Answer::empty());
    let kind = HeaderValue::from_static("application/x-protobuf");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
