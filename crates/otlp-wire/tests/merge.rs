//! Which requests may be merged, and what is unknown but carried on.

use otlp_wire::{Signal, inspect, is_mergeable};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

use crate::wire::{field, traces};

#[test]
fn requests_with_fields_of_their_own_are_not_mergeable() {
    let entry = field(1, &field(2, &field(2, &[])));
    let both = [entry.clone(), entry.clone()].concat();
    assert!(is_mergeable(Signal::Traces, &[]));
    assert!(is_mergeable(Signal::Traces, &both));
    for unknown in [field(2, b"a dictionary"), vec![0x18, 1], vec![0x23, 0x24]] {
        for request in [
            [entry.clone(), unknown.clone()].concat(),
            [unknown.clone(), entry.clone()].concat(),
        ] {
            assert_eq!(inspect(Signal::Traces, &request), Ok(1));
            assert!(!is_mergeable(Signal::Traces, &request));
        }
    }
    assert!(!is_mergeable(Signal::Profiles, &entry));
}

/// A request of one metric with these fields.
fn metric(fields: &[u8]) -> Vec<u8> {
    field(1, &field(2, &field(2, fields)))
}

#[test]
fn metric_of_an_unknown_type_counts_as_one_point() {
    let name = field(1, b"m");
    let newer = field(14, b"points of a newer type");
    let points = |many: usize| field(5, &field(1, &[]).repeat(many));
    let count = |fields: &[&[u8]]| inspect(Signal::Metrics, &metric(&fields.concat()));
    assert_eq!(count(&[&name]), Ok(0));
    assert_eq!(count(&[&name, &newer]), Ok(1));
    assert_eq!(count(&[&newer, &name, &newer]), Ok(1));
    assert_eq!(count(&[&points(3), &newer]), Ok(3));
    // An integer gauge of OTLP 0.8.
    assert_eq!(count(&[&name, &field(4, &[])]), Ok(1));
    let two = [metric(&newer), metric(&points(2))].concat();
    assert_eq!(inspect(Signal::Metrics, &two), Ok(3));
    // Elsewhere they are no items.
    let scope = field(1, &field(2, &newer));
    assert_eq!(inspect(Signal::Metrics, &scope), Ok(0));
    assert_eq!(inspect(Signal::Metrics, &metric(&points(0))), Ok(0));
}

proptest! {
    #[test]
    fn requests_of_today_are_mergeable(requests in vec(traces(), 0..3)) {
        let bytes: Vec<u8> = requests.iter().flat_map(Message::encode_to_vec).collect();
        prop_assert!(is_mergeable(Signal::Traces, &bytes));
    }
}
