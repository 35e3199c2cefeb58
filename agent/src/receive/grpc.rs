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
use crate::config::Compression;
use crate::metrics::Transport;

/// The content type.
const CONTENT: &str = "application/grpc";

/// Whether a request speaks gRPC.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(CONTENT.as_bytes()))
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
    let route = receiver.route(signal.ok_or(Refusal::UnknownPath)?)?;
    let encoding = encoding(request.headers().get("grpc-encoding"))?;
    let limit = receiver.config.max_grpc_message;
    let framed = receiver.read(route, request.into_body(), limit + PREFIX, frame::announced);
    let (framed, permit) = framed.await.map_err(|refusal| match refusal {
        Refusal::TooLarge(_) => Refusal::TooLarge(limit),
        other => other,
    })?;
    let (message, compressed) = frame::unframe(framed).map_err(|broken| match broken {
        FrameError::Short => Refusal::Disconnected,
        FrameError::Long | FrameError::Flag => Refusal::Framing,
    })?;
    let encoding = match (compressed, encoding) {
        (false, _) => Compression::None,
        // A compressed message without an encoding is a broken call (gRPC compression.md).
        (true, Compression::None) => return Err(Refusal::Framing),
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
