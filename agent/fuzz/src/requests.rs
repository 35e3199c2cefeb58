//! Requests: checks, edits, decompression.

use std::io::Read;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::profiles::v1development::ExportProfilesServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use otelagent_agent::offline::decompress;
use otlp_wire::frame::{self, FrameError};
use otlp_wire::{
    AttributeAction, AttributeEdit, AttributeValue, Edits, Malformed, RequestPart, Signal, inspect,
    json, repair,
};
use prost::Message;

/// What prost counts in a request, if it is one.
fn prost_counts(signal: Signal, bytes: &[u8]) -> Option<usize> {
    Some(match signal {
        Signal::Traces => {
            let request = ExportTraceServiceRequest::decode(bytes).ok()?;
            let entries = request.resource_spans.iter();
            let scopes = entries.flat_map(|entry| &entry.scope_spans);
            scopes.map(|scope| scope.spans.len()).sum()
        }
        Signal::Logs => {
            let request = ExportLogsServiceRequest::decode(bytes).ok()?;
            let entries = request.resource_logs.iter();
            let scopes = entries.flat_map(|entry| &entry.scope_logs);
            scopes.map(|scope| scope.log_records.len()).sum()
        }
        Signal::Metrics => {
            let request = ExportMetricsServiceRequest::decode(bytes).ok()?;
            let entries = request.resource_metrics.iter();
            let scopes = entries.flat_map(|entry| &entry.scope_metrics);
            let metrics = scopes.flat_map(|scope| &scope.metrics);
            metrics.map(|metric| points(metric.data.as_ref())).sum()
        }
        Signal::Profiles => {
            let request = ExportProfilesServiceRequest::decode(bytes).ok()?;
            let entries = request.resource_profiles.iter();
            let scopes = entries.flat_map(|entry| &entry.scope_profiles);
            let profiles = scopes.flat_map(|scope| &scope.profiles);
            profiles.map(|profile| profile.samples.len()).sum()
        }
    })
}

fn points(data: Option<&Data>) -> usize {
    match data {
        None => 0,
        Some(Data::Gauge(data)) => data.data_points.len(),
        Some(Data::Sum(data)) => data.data_points.len(),
        Some(Data::Histogram(data)) => data.data_points.len(),
        Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
        Some(Data::Summary(data)) => data.data_points.len(),
    }
}

/// The first byte names the signal: what is taken is exactly what prost takes, and no item is missed.
pub fn scan(bytes: &[u8]) {
    let Some((&first, request)) = bytes.split_first() else {
        return;
    };
    let signal = Signal::ALL[usize::from(first) % Signal::COUNT];
    mend(signal, request);
    if let Ok(items) = inspect(signal, request) {
        cut(signal, request, items);
    }
    match (inspect(signal, request), prost_counts(signal, request)) {
        // Of a oneof that is there twice prost keeps the last, and fields under number 1000 it does not
        // know: both are data that will be passed on.
        (Ok(items), Some(counted)) => assert!(items >= counted, "{items} < {counted}"),
        (Err(_), None) => {}
        // Their lengths mean nothing to prost.
        (Err(Malformed::IdLength { .. }), _) => {}
        // A message of a deprecated field is checked, which prost does not know.
        (Err(_), Some(_)) if has_field_1000(request) => {}
        (taken, counted) => panic!("{signal:?}: {taken:?}, prost {counted:?}"),
    }
}

/// The parts of a request are requests, and together have its items.
fn cut(signal: Signal, request: &[u8], items: usize) {
    let whole = RequestPart::whole(signal, request.to_vec().into());
    let (mut waiting, mut left) = (vec![whole], items);
    while let Some(mut part) = waiting.pop() {
        let message = part.chunks().concat();
        assert_eq!(message.len(), part.bytes());
        assert_eq!(inspect(signal, &message), Ok(part.items()));
        let own = part.own_bytes();
        match part.split(&mut |_| true) {
            Some(half) => {
                assert!(part.own_bytes() + half.own_bytes() <= own);
                assert!(part.bytes().max(half.bytes()) < message.len());
                waiting.extend([half, part]);
            }
            None => left -= part.items(),
        }
    }
    assert_eq!(left, 0);
}

/// A request with bad strings and no other fault is taken once they are mended, and keeps its length.
fn mend(signal: Signal, request: &[u8]) {
    if inspect(signal, request) != Err(Malformed::Utf8) {
        return;
    }
    let mut mended = request.to_vec();
    let Ok(strings) = repair(signal, &mut mended) else {
        assert!(inspect(signal, &mended).is_err());
        return;
    };
    assert!(strings > 0 && strings <= request.len());
    assert_ne!(inspect(signal, &mended), Err(Malformed::Utf8));
}

/// The first byte names the signal: JSON that is taken becomes a request that every reader takes, within
/// the limit and paid for.
pub fn json(bytes: &[u8]) {
    const LIMIT: usize = 4096;
    let Some((&first, text)) = bytes.split_first() else {
        return;
    };
    let signal = Signal::ALL[usize::from(first) % Signal::COUNT];
    let mut granted = 0;
    let mut grant = |more: usize| {
        granted += more;
        true
    };
    let Ok(request) = json::transcode(signal, text, LIMIT, &mut grant) else {
        return;
    };
    assert!(request.len() <= LIMIT);
    assert!(request.capacity() <= text.len() + granted);
    let items = inspect(signal, &request).expect("what is transcoded is a request");
    assert_eq!(Some(items), prost_counts(signal, &request));
}

/// The tag of field 1000 with a length.
fn has_field_1000(request: &[u8]) -> bool {
    request
        .windows(2)
        .any(|window| window[0] & 0x87 == 0x82 && window[1] & 0x7f == 0x3e)
        || request.windows(2).any(|window| window == [0xc2, 0xbe])
        || request.windows(2).any(|window| window == [0xc2, 0x3e])
}

fn edit(choice: u8) -> AttributeEdit {
    let value = match choice & 3 {
        0 => AttributeValue::Text("new".to_owned()),
        1 => AttributeValue::Bool(true),
        2 => AttributeValue::Integer(-7),
        _ => AttributeValue::Float(1.5),
    };
    let key = ["service.name", "a", "b", "k8s.pod.name"][usize::from(choice >> 2 & 3)];
    AttributeEdit {
        key: key.to_owned(),
        action: match choice >> 4 & 3 {
            0 if choice & 0x40 != 0 => AttributeAction::InsertFrom("a".to_owned()),
            0 => AttributeAction::Insert(value),
            1 => AttributeAction::Update(value),
            2 => AttributeAction::Upsert(value),
            _ => AttributeAction::Delete,
        },
    }
}

/// The first two bytes choose edits: editing bytes and decoding them is decoding and editing objects.
pub fn edits(bytes: &[u8]) {
    let Some((&[one, two], request)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let chosen = [edit(one), edit(two)];
    let mut granted = 0;
    let mut grant = |bytes| {
        granted += bytes;
        true
    };
    let edited = Edits::new(&chosen).apply(request, usize::MAX, &mut grant);
    if inspect(Signal::Traces, request).is_err() {
        return;
    }
    let edited = edited.expect("a request that was inspected");
    assert_eq!((edited.len(), edited.capacity()), (granted, granted));
    assert_eq!(
        inspect(Signal::Traces, &edited),
        inspect(Signal::Traces, request)
    );
    let mut expected = ExportTraceServiceRequest::decode(request).expect("scan agrees with prost");
    for entry in &mut expected.resource_spans {
        edit_object(entry.resource.get_or_insert_default(), &chosen);
    }
    let mut decoded =
        ExportTraceServiceRequest::decode(edited.as_slice()).expect("still a request");
    // Without fields that prost does not know they may be left out.
    for request in [&mut decoded, &mut expected] {
        let entries = &mut request.resource_spans;
        entries.retain(|entry| !entry.scope_spans.is_empty());
    }
    // As text, since a number that is none equals nothing.
    assert_eq!(format!("{decoded:?}"), format!("{expected:?}"));
}

fn edit_object(resource: &mut Resource, edits: &[AttributeEdit]) {
    let attributes = &mut resource.attributes;
    for edit in edits {
        let first = attributes.iter().position(|known| known.key == edit.key);
        match (&edit.action, first) {
            (AttributeAction::Insert(value) | AttributeAction::Upsert(value), None) => {
                attributes.push(attribute(&edit.key, value));
            }
            (AttributeAction::InsertFrom(source), None) => {
                let source = attributes.iter().find(|known| known.key == *source);
                if let Some(source) = source.cloned() {
                    let key = edit.key.clone();
                    attributes.push(KeyValue { key, ..source });
                }
            }
            (AttributeAction::Update(value) | AttributeAction::Upsert(value), Some(at)) => {
                attributes.retain(|known| known.key != edit.key);
                attributes.insert(at, attribute(&edit.key, value));
            }
            (AttributeAction::Delete, Some(_)) => attributes.retain(|known| known.key != edit.key),
            _ => {}
        }
    }
}

fn attribute(key: &str, value: &AttributeValue) -> KeyValue {
    let value = match value.clone() {
        AttributeValue::Text(text) => any_value::Value::StringValue(text),
        AttributeValue::Bool(value) => any_value::Value::BoolValue(value),
        AttributeValue::Integer(value) => any_value::Value::IntValue(value),
        AttributeValue::Float(value) => any_value::Value::DoubleValue(value),
    };
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// What is unframed is what was framed, and nothing else is unframed.
pub fn framing(bytes: &[u8]) {
    let announced = frame::announced(bytes);
    assert_eq!(announced == 0, bytes.len() < frame::PREFIX);
    match frame::unframe(bytes.to_vec()) {
        Ok((message, compressed)) => {
            let length = u32::try_from(message.len()).expect("it was in 32 bits");
            let again = [&[u8::from(compressed)], &length.to_be_bytes()[..], &message].concat();
            assert_eq!(again, bytes);
            assert_eq!(announced, bytes.len());
        }
        Err(FrameError::Short) => assert!(bytes.len() < announced.max(frame::PREFIX)),
        Err(FrameError::Long) => assert!(bytes.len() > announced),
        Err(FrameError::Flag) => assert!(bytes[0] > 1 && bytes.len() == announced),
    }
}

/// Decompressed bodies stay below the limit and their memory, and are what others unpack. The first
/// byte names the encoding, the second the limit, the third the memory, both in KiB.
pub fn inflate(bytes: &[u8]) {
    let Some((&[kind, limit, memory], body)) = bytes.split_first_chunk::<3>() else {
        return;
    };
    let encoding: &[u8] = [&b"gzip"[..], b"zstd", b"identity", b"deflate"][usize::from(kind) % 4];
    let (limit, memory) = (usize::from(limit) * 1024, usize::from(memory) * 1024);
    let expected = unpack(encoding, body, limit);
    match (decompress(encoding, body, limit, memory), expected) {
        (Ok(out), Some(expected)) => {
            // A body that is not compressed has been measured where it arrived.
            assert!(out.len() <= limit || encoding == b"identity");
            assert_eq!(out, expected);
        }
        // The checksum and length that end the only member may stand once more behind it.
        (Ok(out), None) if encoding == b"gzip" => {
            let mut member = Vec::new();
            let mut decoder = flate2::bufread::GzDecoder::new(body);
            decoder.read_to_end(&mut member).expect("one whole member");
            let end = body.len() - decoder.into_inner().len();
            assert_eq!(out, member);
            assert!(!out.is_empty() && body.ends_with(&body[end - 8..end]));
        }
        // That a frame is shorter than it says, zstd finds out only where all of it would have fitted
        // into the space it was given.
        (Ok(_), None) => assert_eq!(encoding, b"zstd", "others cannot unpack it"),
        (Err(why), Some(_)) => assert!(
            why.contains("memory") || encoding == b"zstd" && why.contains("not valid"),
            "{why}"
        ),
        (Err(_), None) => {}
    }
}

/// `None` where it is broken or larger than the limit.
fn unpack(encoding: &[u8], body: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let most = limit as u64 + 1;
    match encoding {
        b"gzip" => {
            let mut rest = body;
            // Member by member, with the other of the library's two decoders.
            loop {
                let mut decoder = flate2::bufread::GzDecoder::new(rest);
                decoder.by_ref().take(most).read_to_end(&mut out).ok()?;
                if out.len() > limit {
                    return None;
                }
                rest = decoder.into_inner();
                if rest.is_empty() {
                    break;
                }
            }
        }
        b"zstd" => {
            let mut decoder = zstd::stream::read::Decoder::new(body).ok()?;
            decoder.window_log_max(23).ok()?;
            let mut piece = vec![0; 64 * 1024];
            loop {
                let read = decoder.read(&mut piece).ok()?;
                out.extend_from_slice(&piece[..read]);
                if out.len() > limit {
                    return None;
                }
                if read == 0 {
                    break;
                }
            }
        }
        b"deflate" => {
            let is_zlib = matches!(body, [method, check, ..]
                if method & 0x8f == 8 && u16::from_be_bytes([*method, *check]) % 31 == 0);
            let mut state = flate2::Decompress::new(is_zlib);
            let mut piece = vec![0; limit + 1];
            let finish = flate2::FlushDecompress::Finish;
            let ended = state.decompress(body, &mut piece, finish).ok()?;
            let (read, written) = (state.total_in(), state.total_out());
            let is_whole = ended == flate2::Status::StreamEnd && read == body.len() as u64;
            piece.truncate(usize::try_from(written).ok()?);
            if !is_whole || piece.len() > limit {
                return None;
            }
            out = piece;
        }
        _ => out.extend_from_slice(body),
    }
    Some(out)
}
