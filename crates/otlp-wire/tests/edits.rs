//! Edits of attributes at their edges: order, duplicates, unknown fields, and what they may cost.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use otlp_wire::{
    AttributeAction, AttributeEdit, AttributeValue, EditError, Edits, Signal, inspect,
};
use prost::Message;

use crate::wire::{apply, field, insert, text};

#[test]
fn fields_in_descending_order_are_read() {
    let resource = Resource {
        attributes: vec![text("a", "1")],
        ..Resource::default()
    };
    let scope = field(2, &Span::default().encode_to_vec());
    let entry = [
        field(3, b"url"),
        field(2, &scope),
        field(1, &resource.encode_to_vec()),
    ]
    .concat();
    let request = field(1, &entry);
    assert_eq!(inspect(Signal::Traces, &request), Ok(1));
    let edited = apply(&[insert("a"), insert("b")], &request);
    let decoded = ExportTraceServiceRequest::decode(edited.as_slice()).unwrap();
    let entry = &decoded.resource_spans[0];
    assert_eq!(entry.schema_url, "url");
    assert_eq!(entry.scope_spans[0].spans.len(), 1);
    let attributes = &entry.resource.as_ref().unwrap().attributes;
    assert_eq!(attributes, &[text("a", "1"), text("b", "v")]);
}

#[test]
fn several_resources_of_an_entry_become_one() {
    let resource = |key: &str| {
        let resource = Resource {
            attributes: vec![text(key, "1")],
            ..Resource::default()
        };
        field(1, &resource.encode_to_vec())
    };
    let entry = [resource("a"), resource("b"), field(2, &[])].concat();
    let edited = apply(&[insert("b")], &field(1, &entry));
    let decoded = ExportTraceServiceRequest::decode(edited.as_slice()).unwrap();
    let attributes = &decoded.resource_spans[0]
        .resource
        .as_ref()
        .unwrap()
        .attributes;
    assert_eq!(attributes, &[text("a", "1"), text("b", "1")]);
    let tags = edited
        .windows(2)
        .filter(|window| window[0] == 0x0a && window[1] > 8)
        .count();
    assert!(tags >= 1);
}

#[test]
fn unknown_fields_survive_edits() {
    let unknown = field(15, b"from the future");
    let resource = [field(14, b"newer"), Resource::default().encode_to_vec()].concat();
    let entry = [field(1, &resource), unknown.clone()].concat();
    let request = [field(1, &entry), unknown.clone()].concat();
    let edited = apply(&[insert("a")], &request);
    for survivor in [&unknown[..], &field(14, b"newer")] {
        assert!(
            edited
                .windows(survivor.len())
                .any(|window| window == survivor)
        );
    }
    assert!(edited.ends_with(&unknown));
}

/// A request of one entry with this resource and an empty scope.
fn request(attributes: &[KeyValue]) -> Vec<u8> {
    let resource = Resource {
        attributes: attributes.to_vec(),
        ..Resource::default()
    };
    let entry = [field(1, &resource.encode_to_vec()), field(2, &[])].concat();
    field(1, &entry)
}

fn edit(key: &str, action: AttributeAction) -> AttributeEdit {
    let key = key.to_owned();
    AttributeEdit { key, action }
}

fn value(value: &str) -> AttributeValue {
    AttributeValue::Text(value.to_owned())
}

/// The attributes of the only resource after these edits.
fn edited(attributes: &[KeyValue], edits: &[AttributeEdit]) -> Vec<KeyValue> {
    let edited = apply(edits, &request(attributes));
    let decoded = ExportTraceServiceRequest::decode(edited.as_slice()).unwrap();
    let resource = decoded.resource_spans[0].resource.clone();
    resource.unwrap().attributes
}

#[test]
fn one_edited_attribute_remains_of_duplicates() {
    let twice = [text("a", "1"), text("b", "2"), text("a", "3")];
    let update = [edit("a", AttributeAction::Update(value("4")))];
    assert_eq!(edited(&twice, &update), [text("a", "4"), text("b", "2")]);
    let delete = [edit("a", AttributeAction::Delete)];
    assert_eq!(edited(&twice, &delete), [text("b", "2")]);
    assert_eq!(edited(&twice, &[insert("a")]), twice);
}

#[test]
fn later_edits_see_what_earlier_ones_did() {
    let before = [text("a", "1"), text("b", "2")];
    let edits = [
        edit("a", AttributeAction::Delete),
        edit("c", AttributeAction::Upsert(value("3"))),
        edit("a", AttributeAction::Insert(value("4"))),
        edit("c", AttributeAction::Update(value("5"))),
        edit("b", AttributeAction::Upsert(value("6"))),
        edit("b", AttributeAction::Upsert(value("7"))),
        edit("d", AttributeAction::Insert(value("8"))),
        edit("d", AttributeAction::Delete),
        edit("e", AttributeAction::Update(value("9"))),
    ];
    let after = [text("b", "7"), text("c", "5"), text("a", "4")];
    assert_eq!(edited(&before, &edits), after);
}

#[test]
fn entries_that_carry_nothing_are_left_out() {
    let span = field(2, &Span::default().encode_to_vec());
    let full = field(1, &field(2, &span));
    let resource = field(1, &Resource::default().encode_to_vec());
    let nothing = [
        field(1, &[]),
        field(1, &resource),
        field(1, &field(3, b"url")),
    ]
    .concat();
    let edited = apply(
        &[insert("a")],
        &[nothing.clone(), full.clone(), nothing].concat(),
    );
    assert_eq!(edited, apply(&[insert("a")], &full));
    // What is not known may be data.
    let newer = field(1, &field(15, b"newer"));
    assert!(apply(&[insert("a")], &newer).len() > newer.len());
}

/// Three attributes as an agent on a node adds them.
fn three(action: fn(AttributeValue) -> AttributeAction) -> Vec<AttributeEdit> {
    let keys = ["k8s.node.name", "host.name", "deployment.environment.name"];
    let edits = keys.map(|key| edit(key, action(value("a-node-with-a-name-of-some-length"))));
    edits.to_vec()
}

/// Every action, with edits that make requests as large as it can.
fn every_action() -> [Vec<AttributeEdit>; 4] {
    [
        three(AttributeAction::Insert),
        three(AttributeAction::Update),
        three(AttributeAction::Upsert),
        three(|_| AttributeAction::Delete),
    ]
}

#[test]
fn million_empty_entries_cost_nothing() {
    let mut request = field(1, &field(2, &field(2, &[])));
    request.extend([0x0a, 0x00].repeat(1 << 20));
    assert_eq!(inspect(Signal::Traces, &request), Ok(1));
    for edits in every_action() {
        assert!(apply(&edits, &request).len() < 200);
    }
}

#[test]
fn growth_beyond_the_limit_is_refused_before_it_is_allocated() {
    // Entries with a scope of their own, which stay.
    let request = [0x0a, 0x02, 0x12, 0x00].repeat(1 << 20);
    for edits in &every_action()[..3] {
        let mut asked = Vec::new();
        let mut grant = |bytes| {
            asked.push(bytes);
            false
        };
        let edited = Edits::new(edits);
        let grows = !matches!(edits[0].action, AttributeAction::Update(_));
        let refused = edited.apply(&request, request.len() * 2, &mut grant);
        if grows {
            assert_eq!(refused, Err(EditError::TooLarge(request.len() * 2)));
            assert!(asked.is_empty());
        } else {
            assert_eq!(refused, Err(EditError::Exhausted));
        }
    }
}

#[test]
fn whole_result_is_paid_for_before_it_is_allocated() {
    let request = request(&[text("a", "1")]);
    let edits = Edits::new(&[insert("b")]);
    let size = apply(&[insert("b")], &request).len();
    let refused = edits.apply(&request, size, &mut |bytes| bytes < size);
    assert_eq!(refused, Err(EditError::Exhausted));
    let refused = edits.apply(&request, size - 1, &mut |_| true);
    assert_eq!(refused, Err(EditError::TooLarge(size - 1)));
    assert!(
        edits
            .apply(&request, size, &mut |bytes| bytes <= size)
            .is_ok()
    );
}

#[test]
fn copied_value_is_that_of_the_other_attribute_or_none() {
    let from = |key: &str, source: &str| edit(key, AttributeAction::InsertFrom(source.to_owned()));
    let before = [text("node", "n2"), text("name", "own")];
    let both = [from("host", "node"), insert("host")];
    assert_eq!(
        edited(&before, &both),
        [text("node", "n2"), text("name", "own"), text("host", "n2")]
    );
    assert_eq!(edited(&before, &[from("name", "node")]), before);
    assert_eq!(edited(&[], &both), [text("host", "v")]);
    let chained = [insert("node"), from("host", "node"), from("third", "host")];
    assert_eq!(
        edited(&[], &chained),
        [text("node", "v"), text("host", "v"), text("third", "v")]
    );
}
