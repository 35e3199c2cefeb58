//! OTLP/HTTP with protobuf, binary and as JSON, on HTTP/1.1 and HTTP/2. Must not know connections.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Request, Response};
use otlp_wire::Signal;

use super::body::{self, Answer, Arriving};
use super::status::Refusal;
use super::{Form, Intake, Parcel};
use crate::encoding::Encoding;
use crate::metrics::Transport;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

pub(super) async fn answer(intake: &Intake, request: Request<Arriving>) -> Response<Answer> {
    let form = form(request.headers());
    let path = request.uri().path();
    let signal = intake.signal_at(path).or_else(|| signal(path));
    match export(intake, signal, form, request).await {
        Ok(form) => success(form),
        Err(refusal) => {
            intake.count_refusal(signal, Transport::Http, &refusal);
            refusal.http(form == Some(Form::Json))
        }
    }
}

fn signal(path: &str) -> Option<Signal> {
    Signal::ALL
        .into_iter()
        .find(|signal| signal.http_path() == path)
}

/// Reads the content type; its parameters say nothing.
fn form(headers: &HeaderMap) -> Option<Form> {
    let kind = headers.get(CONTENT_TYPE)?.as_bytes();
    let kind = kind.split(|&byte| byte == b';').next()?.trim_ascii();
    if kind.eq_ignore_ascii_case(PROTOBUF.as_bytes()) {
        Some(Form::Protobuf)
    } else if kind.eq_ignore_ascii_case(JSON.as_bytes()) {
        Some(Form::Json)
    } else {
        None
    }
}

async fn export(
    intake: &Intake,
    signal: Option<Signal>,
    form: Option<Form>,
    request: Request<Arriving>,
) -> Result<Form, Refusal> {
    let signal = signal.ok_or(Refusal::UnknownPath)?;
    if request.method() != Method::POST {
        return Err(Refusal::Method);
    }
    let form = form.ok_or(Refusal::MediaType)?;
    let encoding = request
        .headers()
        .get(CONTENT_ENCODING)
        .map(HeaderValue::as_bytes);
    let encoding = Encoding::parse(encoding).ok_or(Refusal::Encoding)?;
    let route = intake.route(signal)?;
    let limit = intake.limits.http_body;
    let announced = request.body().announced();
    if announced > limit {
        return Err(Refusal::TooLarge(limit));
    }
    let mut permit = intake.admit(route, announced)?;
    let body = body::collect(request.into_body(), limit, &mut permit, |_| 0).await?;
    let parcel = Parcel {
        transport: Transport::Http,
        encoding,
        form,
        limit,
        body,
        permit,
    };
    if let Some(ticket) = intake.take(route, parcel)? {
        ticket.ready().await;
    }
    Ok(form)
}

/// An `Export<Signal>ServiceResponse` without fields: no bytes at all, or an empty object.
fn success(form: Form) -> Response<Answer> {
    let (body, kind) = match form {
        Form::Protobuf => (Answer::empty(), PROTOBUF),
        Form::Json => (Answer::full(Bytes::from_static(b"{}")), JSON),
    };
    let mut response = Response::new(body);
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
