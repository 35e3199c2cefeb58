//! Writes every field of every OTLP message, by the descriptors of opentelemetry-proto, as JSON and as protobuf;
//! the first must become the second.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use otlp_wire::{Signal, inspect};
use prost::Message as _;

use super::transcode;

/// As much of `google.protobuf.FileDescriptorSet` as is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    messages: Vec<Descriptor>,
    #[prost(message, repeated, tag = "5")]
    enums: Vec<EnumDescriptor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Descriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    fields: Vec<FieldDescriptor>,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<Descriptor>,
    #[prost(message, repeated, tag = "4")]
    enums: Vec<EnumDescriptor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FieldDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "3")]
    number: u32,
    #[prost(int32, tag = "4")]
    label: i32,
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(string, tag = "6")]
    of: String,
    #[prost(int32, optional, tag = "9")]
    oneof: Option<i32>,
    #[prost(string, tag = "10")]
    json_name: String,
    #[prost(bool, tag = "17")]
    proto3_optional: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnumDescriptor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    values: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EnumValue {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    number: u64,
}

/// How the same values may be written.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// As the specification says.
    Canonical,
    /// As everything else is taken: names of the schema, names of enums, numbers.
    Alternative,
}

#[derive(Default)]
struct Schema {
    messages: BTreeMap<String, Descriptor>,
    enums: BTreeMap<String, EnumDescriptor>,
}

impl Schema {
    fn new() -> Self {
        let set = FileSet::decode(opentelemetry_proto::DESCRIPTORS).unwrap();
        let mut schema = Self::default();
        for file in set.files {
            let prefix = format!(".{}", file.package);
            schema.add_enums(&prefix, file.enums);
            for message in file.messages {
                schema.add(&prefix, message);
            }
        }
        schema
    }

    fn add(&mut self, prefix: &str, mut message: Descriptor) {
        let name = format!("{prefix}.{}", message.name);
        for nested in std::mem::take(&mut message.nested) {
            self.add(&name, nested);
        }
        self.add_enums(&name, std::mem::take(&mut message.enums));
        self.messages.insert(name, message);
    }

    fn add_enums(&mut self, prefix: &str, enums: Vec<EnumDescriptor>) {
        for descriptor in enums {
            self.enums
                .insert(format!("{prefix}.{}", descriptor.name), descriptor);
        }
    }
}

/// Writes one example of a message in both forms.
struct Example<'s> {
    schema: &'s Schema,
    style: Style,
    /// Which field of every `oneof` is written.
    choice: usize,
    /// Counts values, so that no two are alike.
    next: u32,
    /// Every field that was written, by message and name.
    written: Vec<(String, String)>,
}

impl Example<'_> {
    fn message(&mut self, name: &str, depth: u32) -> (String, Vec<u8>) {
        let descriptor = &self.schema.messages[name];
        let in_choice = |field: &&FieldDescriptor| field.oneof.is_some() && !field.proto3_optional;
        let choices: Vec<_> = descriptor.fields.iter().filter(in_choice).collect();
        let (mut json, mut bytes) = (String::new(), Vec::new());
        for field in &descriptor.fields {
            let chosen = choices.get(self.choice % choices.len().max(1));
            if in_choice(&field) && chosen.is_some_and(|chosen| **chosen != *field) {
                continue;
            }
            if field.kind == 11 && depth == 0 {
                continue;
            }
            let (value, encoded) = self.field(field, depth);
            self.written.push((name.to_owned(), field.name.clone()));
            let key = match self.style {
                Style::Canonical => &field.json_name,
                Style::Alternative => &field.name,
            };
            let comma = if json.is_empty() { "" } else { ", " };
            write!(json, "{comma}\"{key}\": {value}").unwrap();
            bytes.extend(encoded);
        }
        (format!("{{{json}}}"), bytes)
    }

    fn field(&mut self, field: &FieldDescriptor, depth: u32) -> (String, Vec<u8>) {
        let is_repeated = field.label == 3;
        let (first, first_bytes) = self.value(field, depth);
        let (second, second_bytes) = if is_repeated {
            self.value(field, depth)
        } else {
            Default::default()
        };
        let mut out = Vec::new();
        let is_length = matches!(field.kind, 9 | 11 | 12);
        let wire = match field.kind {
            _ if is_repeated && !is_length => 2,
            9 | 11 | 12 => 2,
            1 | 6 | 16 => 1,
            7 => 5,
            _ => 0,
        };
        let mut put = |content: &[u8]| {
            prost::encoding::encode_varint(u64::from(field.number << 3 | wire), &mut out);
            if wire == 2 {
                prost::encoding::encode_varint(content.len() as u64, &mut out);
            }
            out.extend(content);
        };
        match (is_repeated, is_length) {
            (false, _) => put(&first_bytes),
            (true, true) => {
                put(&first_bytes);
                put(&second_bytes);
            }
            (true, false) => put(&[first_bytes, second_bytes].concat()),
        }
        let json = if is_repeated {
            format!("[{first}, {second}]")
        } else {
            first
        };
        (json, out)
    }

    /// A value that is no default, in JSON and on the wire without tag and length.
    fn value(&mut self, field: &FieldDescriptor, depth: u32) -> (String, Vec<u8>) {
        self.next += 1;
        let number = u64::from(self.next);
        let signed = -i64::from(self.next);
        // 64 bits are strings in the canonical form.
        let long = |text: String| match self.style {
            Style::Canonical => format!("\"{text}\""),
            Style::Alternative => text,
        };
        match field.kind {
            1 => {
                let value = f64::from(self.next) + 0.25;
                (value.to_string(), value.to_le_bytes().to_vec())
            }
            3 => (long(signed.to_string()), varint(signed.cast_unsigned())),
            4 => (long(number.to_string()), varint(number)),
            5 => (signed.to_string(), varint(signed.cast_unsigned())),
            6 => (long(number.to_string()), number.to_le_bytes().to_vec()),
            7 => (number.to_string(), self.next.to_le_bytes().to_vec()),
            8 => ("true".into(), vec![1]),
            9 => (
                format!("\"text {number}\""),
                format!("text {number}").into(),
            ),
            11 => self.message(&field.of, depth - 1),
            12 => self.bytes(field),
            13 => (number.to_string(), varint(number)),
            14 => self.name(&field.of),
            16 => (long(signed.to_string()), signed.to_le_bytes().to_vec()),
            17 => (signed.to_string(), varint(number * 2 - 1)),
            other => panic!("no example for type {other}"),
        }
    }

    fn bytes(&self, field: &FieldDescriptor) -> (String, Vec<u8>) {
        let ids = [("trace_id", 16), ("span_id", 8), ("profile_id", 16)];
        let id = ids.iter().find(|(id, _)| field.name.ends_with(id));
        if let Some((_, length)) = id {
            let text = match self.style {
                Style::Canonical => {
                    format!("\"00ab{:0width$x}\"", self.next, width = 2 * length - 4)
                }
                Style::Alternative => {
                    format!("\"00AB{:0width$X}\"", self.next, width = 2 * length - 4)
                }
            };
            let mut bytes = vec![0; length - 4];
            bytes[1] = 0xab;
            bytes.extend(self.next.to_be_bytes());
            return (text, bytes);
        }
        // Bytes whose letters differ between the alphabets.
        let text = match self.style {
            Style::Canonical => "\"++//AQ==\"",
            Style::Alternative => "\"--__AQ\"",
        };
        (text.into(), vec![0xfb, 0xef, 0xff, 1])
    }

    fn name(&self, of: &str) -> (String, Vec<u8>) {
        let values = &self.schema.enums[of].values;
        let value = &values[1 + self.next as usize % (values.len() - 1)];
        let text = match self.style {
            Style::Canonical => value.number.to_string(),
            Style::Alternative => format!("\"{}\"", value.name),
        };
        (text, varint(value.number))
    }
}

fn varint(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(value, &mut out);
    out
}

const REQUESTS: [(Signal, &str); Signal::COUNT] = [
    (Signal::Traces, "trace.v1.ExportTraceServiceRequest"),
    (Signal::Metrics, "metrics.v1.ExportMetricsServiceRequest"),
    (Signal::Logs, "logs.v1.ExportLogsServiceRequest"),
    (
        Signal::Profiles,
        "profiles.v1development.ExportProfilesServiceRequest",
    ),
];

#[test]
fn every_field_is_read_in_every_notation() {
    let schema = Schema::new();
    let mut written = Vec::new();
    for (signal, name) in REQUESTS {
        let name = format!(".opentelemetry.proto.collector.{name}");
        for style in [Style::Canonical, Style::Alternative] {
            for choice in 0..8 {
                let mut example = Example {
                    schema: &schema,
                    style,
                    choice,
                    next: 0,
                    written: Vec::new(),
                };
                let (json, expected) = example.message(&name, 8);
                let bytes = transcode(signal, &json).unwrap();
                assert!(bytes == expected, "{signal:?}, choice {choice}: {json}");
                assert!(inspect(signal, &bytes).unwrap() > 0);
                written.extend(example.written);
            }
        }
    }
    written.sort();
    written.dedup();
    let data = |name: &&String| {
        !name.contains("Response")
            && !name.contains("PartialSuccess")
            && !name.ends_with("Data")
            && !name.contains("tracez")
    };
    for name in schema.messages.keys().filter(data) {
        for field in &schema.messages[name].fields {
            let key = (name.clone(), field.name.clone());
            assert!(written.contains(&key), "{key:?} was never written");
        }
    }
}
