//! OTLP/HTTP with binary protobuf or JSON, on HTTP/1.1 and HTTP/2.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, ORIGIN};
use http::{Method, Request, Response, StatusCode};
use otlp_wire::Signal;

use super::answer::{Answer, response};
use super::cors;
use super::refusal::Refusal;
use super::request_body::RequestBody;
use super::server::{Format, OtlpReceiver, OtlpRequest, encoding};
use crate::metrics::Transport;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

pub(super) async fn answer(
    receiver: &OtlpReceiver,
    request: Request<RequestBody>,
) -> Response<Answer> {
    let Some(cors) = &receiver.config.cors else {
        return answer_any(receiver, request).await;
    };
    // Before the token: browsers send none with this question.
    if cors::is_preflight(request.method(), request.headers()) {
        return cors::preflight(cors, request.headers());
    }
    let origin = request.headers().get(ORIGIN).cloned();
    let mut response = answer_any(receiver, request).await;
    cors::expose(cors, origin.as_ref(), response.headers_mut());
    response
}

async fn answer_any(receiver: &OtlpReceiver, request: Request<RequestBody>) -> Response<Answer> {
    let format = format(request.headers());
    let sender = Arc::clone(request.body().sender());
    let path = request.uri().path();
    if receiver.is_own_path(path) {
        return response(StatusCode::NO_CONTENT, "text/plain", "");
    }
    let signal = receiver.signal_at(path).or_else(|| signal(path));
    match export(receiver, signal, format, request).await {
        Ok(format) => success(format),
        Err(refusal) => {
            receiver
                .refuse(&sender, signal, Transport::Http, &refusal)
                .await;
            refusal.http(format == Some(Format::Json))
        }
    }
}

fn signal(path: &str) -> Option<Signal> {
    Signal::ALL
        .into_iter()
        .find(|signal| signal.http_path() == path)
}

/// The format by the content type, without its parameters.
fn format(headers: &HeaderMap) -> Option<Format> {
    let kind = headers.get(CONTENT_TYPE)?.as_bytes();
    let kind = kind.split(|&byte| byte == b';').next()?.trim_ascii();
    if kind.eq_ignore_ascii_case(PROTOBUF.as_bytes()) {
        Some(Format::Protobuf)
    } else if kind.eq_ignore_ascii_case(JSON.as_bytes()) {
        Some(Format::Json)
    } else {
        None
    }
}

async fn export(
    receiver: &OtlpReceiver,
    signal: Option<Signal>,
    format: Option<Format>,
    request: Request<RequestBody>,
) -> Result<Format, Refusal> {
    receiver.authenticate(request.headers()).await?;
    let signal = signal.ok_or(Refusal::UnknownPath)?;
    if request.method() != Method::POST {
        return Err(Refusal::Method);
    }
    let format = format.ok_or(Refusal::MediaType)?;
    let encoding = encoding(request.headers().get(CONTENT_ENCODING))?;
    let route = receiver.route(signal)?;
    let limit = receiver.config.max_http_body;
    let (body, permit) = receiver
        .read(route, request.into_body(), limit, |_| 0)
        .await?;
    let request = OtlpRequest {
        transport: Transport::Http,
        encoding,
        format,
        limit,
        body,
        permit,
    };
    receiver.take(route, request).await?;
    Ok(format)
}

/// An empty `Export<Signal>ServiceResponse`: no bytes, or an empty object.
fn success(format: Format) -> Response<Answer> {
    match format {
        Format::Protobuf => response(StatusCode::OK, PROTOBUF, Answer::default()),
        Format::Json => response(StatusCode::OK, JSON, "{}"),
    }
}
