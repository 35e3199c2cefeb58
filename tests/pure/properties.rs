//! Properties of the decisions over generated input.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use otelagent_api::Mode;
use otelagent_core::build::{Object, validate};
use otelagent_core::names;
use otelagent_core::switching::{Situation, plan};
use proptest::prelude::*;

use super::{agent_with, desired_in, environment};

fn mode() -> impl Strategy<Value = Mode> {
    proptest::sample::select(Mode::ALL.to_vec())
}

/// Whether `text` is a DNS label that starts with a letter (RFC 1035 §2.3.1), as Service names must be.
fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

fn observed() -> impl Strategy<Value = Situation> {
    let users = proptest::collection::btree_map(mode(), 0usize..3, 0..4);
    let workloads = proptest::collection::btree_map(mode(), proptest::option::of(0i64..200), 0..4);
    (
        mode(),
        proptest::option::of(mode()),
        any::<bool>(),
        users,
        workloads,
        proptest::collection::btree_set(mode(), 0..4),
        0u64..120,
    )
        .prop_map(
            |(wanted, serving, wanted_ready, users, workloads, outdated, hold)| Situation {
                now: second(100),
                wanted,
                serving,
                wanted_ready,
                users,
                workloads: workloads
                    .into_iter()
                    .map(|(mode, since)| (mode, since.map(second)))
                    .collect(),
                outdated,
                hold_old: Duration::from_secs(hold),
            },
        )
}

fn second(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A name of the length Kubernetes allows for its kind.
fn label(max: usize) -> impl Strategy<Value = String> {
    proptest::string::string_regex(&format!("[a-z]([-a-z0-9]{{0,{}}}[a-z0-9])?", max - 2)).unwrap()
}

proptest! {
    #[test]
    fn switching_never_removes_a_workload_in_use_wanted_or_serving(observed in observed()) {
        let plan = plan(&observed);
        for mode in &plan.remove {
            prop_assert_eq!(observed.users.get(mode).copied().unwrap_or(0), 0);
            prop_assert_ne!(*mode, observed.wanted);
            prop_assert_ne!(Some(*mode), observed.serving);
            prop_assert_ne!(Some(*mode), plan.serving);
            prop_assert!(!plan.keep.contains_key(mode));
        }
    }

    #[test]
    fn used_wanted_and_serving_modes_are_always_kept(observed in observed()) {
        let plan = plan(&observed);
        let users = observed.users.iter().filter(|(_, users)| **users > 0).map(|(mode, _)| *mode);
        let needed: BTreeSet<Mode> = users.chain(plan.first.is_none().then_some(observed.wanted)).chain(observed.serving).chain(plan.serving).collect();
        for mode in needed {
            prop_assert_eq!(plan.keep.get(&mode), Some(&None), "{}", mode);
        }
    }

    #[test]
    fn no_pod_is_sent_to_a_mode_that_is_not_ready(observed in observed()) {
        let plan = plan(&observed);
        if !observed.wanted_ready {
            prop_assert_eq!(plan.serving, observed.serving);
        }
    }

    #[test]
    fn wanted_workload_waits_only_where_it_is_absent_and_unused(observed in observed()) {
        let plan = plan(&observed);
        if let Some(first) = plan.first {
            prop_assert!(!observed.workloads.contains_key(&observed.wanted));
            prop_assert!(!plan.keep.contains_key(&observed.wanted));
            prop_assert_ne!(Some(observed.wanted), plan.serving);
            prop_assert_eq!(plan.keep.get(&first), Some(&None));
        }
    }

    #[test]
    fn executed_plan_does_not_change(observed in observed()) {
        let first = plan(&observed);
        let workloads: BTreeMap<Mode, Option<Timestamp>> = first.keep.clone();
        let second = plan(&Situation { serving: first.serving, workloads, ..observed.clone() });
        prop_assert_eq!(first.serving, second.serving);
        // A mode that served until now loses its claim with the cut-over; nothing else may change.
        for (mode, moment) in &first.keep {
            if Some(*mode) != observed.serving {
                prop_assert_eq!(second.keep.get(mode), Some(moment));
            }
        }
    }

    #[test]
    fn every_name_is_valid_for_its_kind(namespace in label(63), name in label(names::MAX_NAME)) {
        let label = names::agent_label(&namespace, &name);
        prop_assert!(label.len() <= 63 && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)));
        prop_assert!(label.ends_with(|c: char| c.is_ascii_alphanumeric()));
        let object = names::cluster_object(&namespace, &name, Some("0123456789"));
        prop_assert!(object.len() <= 253 && object.split('.').all(|part| !part.is_empty() && part.len() <= 63));
        prop_assert_eq!(names::owner_of_cluster_object(&object), Some((namespace.clone(), name.clone())));
        let mut agent = agent_with("otelagent-system", "mode: NodeLocal");
        agent.metadata.name = Some(name);
        let valid = validate(&agent, &environment()).unwrap();
        for mode in Mode::ALL {
            for object in desired_in(mode, &valid).objects {
                let object = object.to_json();
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                prop_assert!(is_dns_label(name), "{name}");
                // A DaemonSet's pods get a dash and five characters more.
                prop_assert!(name.len() <= 63 - 6 || object["kind"] == "ConfigMap");
            }
        }
    }

    #[test]
    fn two_objects_never_share_a_label_or_a_cluster_name(
        a in (label(63), label(names::MAX_NAME)), b in (label(63), label(names::MAX_NAME)),
    ) {
        prop_assume!(a != b);
        prop_assert_ne!(names::agent_label(&a.0, &a.1), names::agent_label(&b.0, &b.1));
        prop_assert_ne!(names::cluster_object(&a.0, &a.1, None), names::cluster_object(&b.0, &b.1, None));
    }

    #[test]
    fn desired_objects_are_a_function_of_their_input_alone(attributes in proptest::collection::btree_map("[a-z.]{1,9}", "\\PC{0,9}", 0..5)) {
        let mut agent = agent_with("otelagent-system", "mode: NodeLocal, hostMetadata: true");
        agent.spec.resource_attributes = attributes;
        let render = || {
            let valid = validate(&agent, &environment()).unwrap();
            Mode::ALL.map(|mode| {
                let desired = desired_in(mode, &valid);
                let objects: Vec<_> = desired.objects.iter().map(Object::to_json).collect();
                serde_json::to_string(&(objects, desired.recipe)).unwrap()
            })
        };
        prop_assert_eq!(render(), render());
    }
}
