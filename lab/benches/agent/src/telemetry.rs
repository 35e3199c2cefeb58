//! Trace requests as an application would send them: about 400 bytes a span, every span numbered by
//! its ids. Must not know networks.

use std::io::Write;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use crate::Outcome;
use crate::ids::SpanIds;
use crate::wire::{self, Ids};

/// Spans of a ring: so many that no compressor's window holds two rounds of it.
const RING_SPANS: usize = 40_000;

/// How requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all, as SDKs do by default.
    Identity,
    /// Level 6, the default of SDKs that compress.
    Gzip,
    /// Level 3, its own default.
    Zstd,
}

impl Encoding {
    /// As headers and configurations say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// Compressed, behind the five bytes gRPC puts in front of a message.
    fn frame(self, message: &[u8]) -> Outcome<Bytes> {
        let mut framed = vec![u8::from(self != Self::Identity), 0, 0, 0, 0];
        match self {
            Self::Identity => framed.extend_from_slice(message),
            Self::Gzip => {
                let level = flate2::Compression::new(6);
                let mut encoder = flate2::write::GzEncoder::new(&mut framed, level);
                encoder.write_all(message)?;
                encoder.finish()?;
            }
            Self::Zstd => zstd::stream::copy_encode(message, &mut framed, 3)?,
        }
        let length = u32::try_from(framed.len() - FRAMING)?;
        for (place, byte) in framed.iter_mut().skip(1).zip(length.to_be_bytes()) {
            *place = byte;
        }
        Ok(framed.into())
    }
}

/// Bytes gRPC puts in front of a message.
const FRAMING: usize = 5;

/// One encoded request.
#[derive(Clone, Debug)]
pub struct EncodedRequest {
    /// An `ExportTraceServiceRequest`, compressed as its stock is, framed for gRPC.
    pub framed: Bytes,
    /// Number of its first span; the others follow.
    pub first: u64,
    /// How many spans it has.
    pub spans: u64,
}

impl EncodedRequest {
    /// Without framing, as HTTP sends it.
    pub fn message(&self) -> Bytes {
        self.framed.slice(FRAMING..)
    }
}

/// Requests to send, without end.
pub struct Stock {
    /// Spans of each request.
    pub spans: usize,
    /// How each is compressed.
    pub encoding: Encoding,
    supply: Supply,
}

enum Supply {
    /// Encoded in advance and sent again and again: costs the sender nothing.
    Ring {
        requests: Vec<EncodedRequest>,
        at: usize,
    },
    /// Numbers are written into a template, so that no span is sent twice.
    Numbered {
        templates: Vec<(Vec<u8>, Vec<Ids>)>,
        next: u64,
    },
}

impl Stock {
    /// A ring of requests that differ from one another.
    pub fn ring(spans: usize, encoding: Encoding) -> Outcome<Self> {
        let mut numbered = Self::of_templates(spans, Encoding::Identity, RING_SPANS / spans)?;
        let requests = (0..RING_SPANS / spans).map(|_| {
            let request = numbered.draw()?;
            let framed = encoding.frame(&request.message())?;
            Ok(EncodedRequest { framed, ..request })
        });
        Ok(Self {
            spans,
            encoding,
            supply: Supply::Ring {
                requests: requests.collect::<Outcome<_>>()?,
                at: 0,
            },
        })
    }

    /// Requests whose spans all have numbers of their own.
    pub fn numbered(spans: usize, encoding: Encoding) -> Outcome<Self> {
        Self::of_templates(spans, encoding, 64)
    }

    fn of_templates(spans: usize, encoding: Encoding, count: usize) -> Outcome<Self> {
        let mut random = fastrand::Rng::with_seed(7);
        let templates = (0..count).map(|_| {
            let message = request(spans, &mut random).encode_to_vec();
            let mut ids = Vec::with_capacity(spans);
            wire::each_span(&message, |found| ids.push(found)).ok_or("unreadable template")?;
            Ok((message, ids))
        });
        Ok(Self {
            spans,
            encoding,
            supply: Supply::Numbered {
                templates: templates.collect::<Outcome<_>>()?,
                // An id of zeros is none (W3C Trace Context).
                next: 1,
            },
        })
    }

    /// The next request.
    ///
    /// # Errors
    /// Only where a compressor fails.
    pub fn draw(&mut self) -> Outcome<EncodedRequest> {
        match &mut self.supply {
            Supply::Ring { requests, at } => {
                let request = requests.get(*at % requests.len()).cloned();
                *at += 1;
                request.ok_or_else(|| "an empty ring".into())
            }
            Supply::Numbered { templates, next } => {
                let first = *next;
                let spans = self.spans as u64;
                *next += spans;
                let index = usize::try_from((first - 1) / spans)? % templates.len();
                let (template, ids) = templates.get(index).ok_or("no template")?;
                let mut message = template.clone();
                for (number, place) in (first..).zip(ids) {
                    let ids = SpanIds::of(number);
                    write(&mut message, place.trace, ids.trace[0]);
                    write(&mut message, place.trace + 8, ids.trace[1]);
                    write(&mut message, place.span, ids.span);
                }
                Ok(EncodedRequest {
                    framed: self.encoding.frame(&message)?,
                    first,
                    spans,
                })
            }
        }
    }
}

fn write(message: &mut [u8], at: usize, bytes: [u8; 8]) {
    if let Some(place) = message.get_mut(at..at + 8) {
        place.copy_from_slice(&bytes);
    }
}

/// One resource and scope, as an SDK's batch of one process has.
fn request(spans: usize, random: &mut fastrand::Rng) -> ExportTraceServiceRequest {
    let resource = [
        ("service.name", "checkout"),
        ("service.version", "2.14.3"),
        ("service.instance.id", "checkout-6d5f7c9b8-x2k4j"),
        ("telemetry.sdk.language", "java"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.version", "1.50.0"),
    ];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: resource.map(|(key, value)| text(key, value)).into(),
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "io.opentelemetry.tomcat-10.0".into(),
                    version: "2.16.0-alpha".into(),
                    ..InstrumentationScope::default()
                }),
                spans: (0..spans).map(|_| span(random)).collect(),
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// A server span with the attributes of the HTTP conventions.
fn span(random: &mut fastrand::Rng) -> Span {
    let routes = ["/api/v1/orders", "/api/v1/carts", "/api/v1/customers"];
    let route = routes.get(random.usize(..3)).copied().unwrap_or_default();
    let method = if random.bool() { "GET" } else { "POST" };
    let begin = 1_790_000_000_000_000_000 + random.u64(..1_000_000_000);
    let status = [200, 200, 200, 201, 404][random.usize(..5)];
    Span {
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        parent_span_id: random.u64(1..).to_be_bytes().to_vec(),
        name: format!("{method} {route}/{{id}}"),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: begin,
        end_time_unix_nano: begin + random.u64(100_000..200_000_000),
        attributes: vec![
            text("http.request.method", method),
            text("http.route", &format!("{route}/{{id}}")),
            text("url.path", &format!("{route}/{}", random.u32(..))),
            text("url.scheme", "https"),
            number("http.response.status_code", status),
            text("server.address", "shop.example.com"),
            text(
                "client.address",
                &format!("10.0.{}.{}", random.u8(..), random.u8(..)),
            ),
            text("network.protocol.version", "1.1"),
            number("thread.id", random.i64(20..60)),
        ],
        flags: 0x101,
        ..Span::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_as_large_as_real_ones_and_numbered_without_gaps() {
        let mut stock = Stock::numbered(100, Encoding::Identity).unwrap();
        let (first, second) = (stock.draw().unwrap(), stock.draw().unwrap());
        assert_eq!((first.first, second.first, second.spans), (1, 101, 100));
        assert!(
            (38_000..46_000).contains(&first.framed.len()),
            "{}",
            first.framed.len()
        );
        let request = ExportTraceServiceRequest::decode(second.message()).unwrap();
        let ids: Vec<_> = request.resource_spans[0].scope_spans[0]
            .spans
            .iter()
            .map(|span| span.span_id.clone())
            .collect();
        let expected = (101..201).map(|number| SpanIds::of(number).span.to_vec());
        assert_eq!(ids, expected.collect::<Vec<_>>());
    }

    #[test]
    fn ring_repeats_after_forty_thousand_spans() {
        let mut stock = Stock::ring(10, Encoding::Gzip).unwrap();
        let firsts: Vec<_> = (0..4001).map(|_| stock.draw().unwrap().first).collect();
        assert_eq!((firsts[1], firsts[3999], firsts[4000]), (11, 39_991, 1));
    }
}
