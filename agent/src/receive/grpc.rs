//! OTLP/gRPC on HTTP/2.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Request, Response, StatusCode, Version};
use otlp_wire::{
    Signal,
    frame::{self, FrameError, PREFIX},
};

use super::answer::{Answer, response};
use super::refusal::Refusal;
use super::request_body::RequestBody;
use super::server::{Format, OtlpReceiver, OtlpRequest, encoding};
use crate::encoding::Encoding;
use crate::metrics::Transport;

/// The content type.
const CONTENT: &str = "application/grpc";

/// What follows `application/grpc` in the content type of a request that speaks gRPC: nothing, `+` and a codec, or
/// parameters. `application/grpc-web` is another protocol.
fn after_content(headers: &HeaderMap) -> Option<&[u8]> {
    let kind = headers.get(CONTENT_TYPE)?.as_bytes();
    let (start, rest) = kind.split_at_checked(CONTENT.len())?;
    let is_grpc = start.eq_ignore_ascii_case(CONTENT.as_bytes())
        && matches!(rest.first(), None | Some(b'+' | b';' | b' '));
    is_grpc.then_some(rest)
}

/// Whether a request speaks gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    after_content(headers).is_some()
}

/// Whether its messages are protobuf.
fn is_protobuf(headers: &HeaderMap) -> bool {
    let rest = after_content(headers).unwrap_or_default();
    let mut parts = rest.split(|&byte| byte == b';');
    let codec = parts.next().unwrap_or_default().trim_ascii();
    codec.is_empty() || codec.eq_ignore_ascii_case(b"+proto")
}

pub(super) async fn answer(
    receiver: &OtlpReceiver,
    request: Request<RequestBody>,
) -> Response<Answer> {
    if request.version() != Version::HTTP_2 {
        let refusal = Refusal::NeedsHttp2;
        let sender = request.body().sender();
        receiver
            .refuse(sender, None, Transport::Grpc, &refusal)
            .await;
        return refusal.http(false);
    }
    let signal = signal(request.uri().path());
    let sender = Arc::clone(request.body().sender());
    match export(receiver, signal, request).await {
        Ok(()) => response(StatusCode::OK, CONTENT, Answer::grpc_ok()),
        Err(refusal) => {
            receiver
                .refuse(&sender, signal, Transport::Grpc, &refusal)
                .await;
            refusal.grpc()
        }
    }
}

fn signal(path: &str) -> Option<Signal> {
    Signal::ALL
        .into_iter()
        .find(|signal| signal.grpc_path() == path)
}

async fn export(
    receiver: &OtlpReceiver,
    signal: Option<Signal>,
    request: Request<RequestBody>,
) -> Result<(), Refusal> {
    receiver.authenticate(request.headers()).await?;
    if !is_protobuf(request.headers()) {
        return Err(Refusal::Codec);
    }
    let route = receiver.route(signal.ok_or(Refusal::UnknownPath)?)?;
    let encoding = encoding(request.headers().get("grpc-encoding"))?;
    let limit = receiver.config.max_grpc_message;
    let framed = receiver.read(route, request.into_body(), limit + PREFIX, frame::announced);
    let (framed, permit) = framed.await.map_err(|refusal| match refusal {
        Refusal::TooLarge(_) => Refusal::TooLarge(limit),
        other => other,
    })?;
    let (message, compressed) = frame::unframe(framed).map_err(|broken| match broken {
        FrameError::Short => Refusal::Cut,
        FrameError::Long | FrameError::Flag => Refusal::Framing,
    })?;
    let encoding = match (compressed, encoding) {
        (false, _) => Encoding::Identity,
        // A compressed message without an encoding is a broken call (gRPC compression.md).
        (true, Encoding::Identity) => return Err(Refusal::Framing),
        (true, encoding) => encoding,
    };
    let request = OtlpRequest {
        transport: Transport::Grpc,
        encoding,
        format: Format::Protobuf,
        limit,
        body: message,
        permit,
    };
    receiver.take(route, request).await
}
