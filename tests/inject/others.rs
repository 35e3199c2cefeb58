//! The verification of injection beside other people's admission, which changes or refuses the same pods.

use otelagent_core::inject::difference::{Judgement, compare_beside, judge, judge_hash};
use otelagent_core::inject::{Injection, Recipe, canary, inject};
use otelagent_core::names;
use otelagent_test_support::recipes::{self, CANARY};
use serde_json::{Value, json};

/// What somebody does to a pod or a container.
type Change = fn(&mut Value);

/// What other people's admission does to every pod.
const OTHERS: [(&str, Change); 7] = [
    ("rewrites images", |pod| {
        each_container(pod, |container| {
            let image = container["image"].as_str().unwrap();
            if !image.starts_with("mirror/") {
                container["image"] = format!("mirror/{image}").into();
            }
        });
    }),
    ("always pulls", |pod| {
        each_container(pod, |container| {
            container["imagePullPolicy"] = "Always".into();
        });
    }),
    ("chooses users", |pod| {
        pod["spec"]["securityContext"]["fsGroup"] = 1_000_650_000.into();
        each_container(pod, |container| {
            container["securityContext"]["runAsUser"] = 1_000_650_000.into();
        });
    }),
    ("changes resources", |pod| {
        each_container(pod, |container| {
            container["resources"]["limits"]["memory"] = "1Gi".into();
            container["resources"]["requests"]["ephemeral-storage"] = "1Mi".into();
        });
    }),
    ("adds to everything", |pod| {
        pod["metadata"]["labels"]["team"] = "x".into();
        pod["metadata"]["annotations"]["seen"] = "1".into();
        push_once(
            &mut pod["spec"],
            "volumes",
            &json!({"name": "ca", "emptyDir": {}}),
        );
        push_once(
            &mut pod["spec"],
            "tolerations",
            &json!({"key": "a", "operator": "Exists"}),
        );
        push_once(
            &mut pod["spec"],
            "imagePullSecrets",
            &json!({"name": "mirror"}),
        );
        each_container(pod, |container| {
            push_once(
                container,
                "env",
                &json!({"name": "HTTPS_PROXY", "value": "http://p"}),
            );
            push_once(
                container,
                "volumeMounts",
                &json!({"name": "ca", "mountPath": "/ca"}),
            );
        });
    }),
    ("adds a container", |pod| {
        push_once(
            &mut pod["spec"],
            "containers",
            &json!({"name": "mesh-proxy", "image": "m"}),
        );
    }),
    ("sets the endpoint itself", |pod| {
        each_container(pod, |container| {
            let endpoint = json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://theirs"});
            push_once(container, "env", &endpoint);
        });
    }),
];

fn each_container(pod: &mut Value, change: impl Fn(&mut Value)) {
    for kind in ["containers", "initContainers"] {
        let containers = pod["spec"].get_mut(kind).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(&change);
    }
}

/// Adds an item unless one of its name is there.
fn push_once(of: &mut Value, list: &str, item: &Value) {
    if of[list].is_null() {
        of[list] = json!([]);
    }
    let list = of[list].as_array_mut().unwrap();
    if !list
        .iter()
        .any(|other| other["name"] == item["name"] && other["key"] == item["key"])
    {
        list.push(item.clone());
    }
}

fn injected(pod: &Value, recipe: &Recipe) -> Value {
    match inject(pod, CANARY, recipe) {
        Injection::Injected(pod) => pod,
        Injection::Skipped(reason) => panic!("{reason}: {pod:#}"),
    }
}

fn after(other: Change, pod: &Value) -> Value {
    let mut pod = pod.clone();
    other(&mut pod);
    pod
}

/// Every recipe with each of its probes.
fn cases() -> impl Iterator<Item = (&'static Recipe, Value)> {
    recipes::each().iter().flat_map(|recipe| {
        let probes = canary::probe_pods(recipe, "0123456789");
        probes.into_iter().map(move |probe| (recipe, probe))
    })
}

/// The answer to the same pod without the label.
fn plain(other: Change, probe: &Value) -> Value {
    after(other, &canary::unlabelled(probe))
}

#[test]
fn verification_passes_whatever_others_change_before_or_after_injection() {
    for (recipe, probe) in cases() {
        for (what, other) in OTHERS {
            let before = injected(&after(other, &probe), recipe);
            let last = after(other, &injected(&probe, recipe));
            let again = after(other, &before);
            for answer in [before, last, again] {
                let plain = plain(other, &probe);
                let compared = compare_beside(&probe, &plain, &answer, recipe, CANARY);
                let name = &probe["metadata"]["name"];
                assert_eq!(compared, Ok(()), "{what}, {name}: {answer:#}");
            }
        }
    }
}

/// The variables of a container.
fn env(container: &mut Value) -> &mut Vec<Value> {
    if container["env"].is_null() {
        container["env"] = json!([]);
    }
    container["env"].as_array_mut().unwrap()
}

/// What a wrong policy or a wrong webhook may do.
const DEFECTS: [(&str, Change); 6] = [
    ("another label", |pod| {
        pod["metadata"]["labels"][names::LABEL_CONFIG] = "ffffffffff".into();
    }),
    ("another value", |pod| {
        each_container(pod, |container| {
            for variable in env(container) {
                if variable["name"] == "OTEL_SERVICE_NAME" {
                    variable["value"] = "wrong".into();
                }
            }
        });
    }),
    ("a variable missing", |pod| {
        each_container(pod, |container| {
            env(container).retain(|variable| variable["name"] != "OTEL_BSP_SCHEDULE_DELAY");
        });
    }),
    ("a variable twice", |pod| {
        each_container(pod, |container| {
            let env = env(container);
            env.extend(env.first().cloned());
        });
    }),
    ("variables in another order", |pod| {
        each_container(pod, |container| {
            env(container).reverse();
        });
    }),
    ("no injection", |pod| {
        let labels = pod["metadata"]["labels"].as_object_mut().unwrap();
        labels.retain(|key, _| ![names::LABEL_AGENT, names::LABEL_CONFIG].contains(&key.as_str()));
    }),
];

#[test]
fn verification_fails_on_a_wrong_result_whatever_others_change() {
    for (recipe, probe) in cases() {
        for (what, other) in OTHERS {
            for (defect, spoil) in DEFECTS {
                let mut answer = after(other, &injected(&probe, recipe));
                let fine = answer.clone();
                spoil(&mut answer);
                // Not every probe has what a defect spoils.
                if answer != fine {
                    let plain = plain(other, &probe);
                    let compared = compare_beside(&probe, &plain, &answer, recipe, CANARY);
                    assert!(compared.is_err(), "{what}, {defect}: {answer:#}");
                }
            }
        }
    }
}

/// The agent's container in a pod.
fn agent(pod: &mut Value) -> &mut Value {
    let inits = pod["spec"]["initContainers"].as_array_mut().unwrap();
    let mut inits = inits.iter_mut();
    inits
        .find(|container| container["name"] == names::CONTAINER)
        .unwrap()
}

#[test]
fn agents_container_may_differ_only_where_others_change_every_container() {
    let recipe = &recipes::sidecar();
    let probe = &canary::probe_pods(recipe, "0123456789")[0];
    let [rewrites, _, chooses, ..] = OTHERS.map(|(_, other)| other);
    let nobody: Change = |_| ();
    let spoiled: [(Change, Change, bool); 7] = [
        (
            rewrites,
            |agent| agent["image"] = "elsewhere/agent:1".into(),
            true,
        ),
        (
            nobody,
            |agent| agent["image"] = "elsewhere/agent:1".into(),
            false,
        ),
        (
            chooses,
            |agent| agent["securityContext"]["runAsUser"] = 7.into(),
            true,
        ),
        (
            chooses,
            |agent| agent["securityContext"]["readOnlyRootFilesystem"] = false.into(),
            false,
        ),
        (
            rewrites,
            |agent| agent["args"] = json!(["--config", "/elsewhere"]),
            false,
        ),
        (
            rewrites,
            |agent| agent["restartPolicy"] = Value::Null,
            false,
        ),
        (rewrites, |agent| agent["volumeMounts"] = json!([]), false),
    ];
    for (index, (other, spoil, passes)) in spoiled.into_iter().enumerate() {
        let mut answer = after(other, &injected(probe, recipe));
        spoil(agent(&mut answer));
        let compared = compare_beside(probe, &plain(other, probe), &answer, recipe, CANARY);
        assert_eq!(compared.is_ok(), passes, "{index}: {compared:?}");
    }
    let mut without = injected(probe, recipe);
    without["spec"]["initContainers"] = json!([]);
    let compared = compare_beside(probe, &plain(rewrites, probe), &without, recipe, CANARY);
    assert!(compared.is_err());
}

#[test]
fn refusal_is_ours_only_if_the_plain_pod_is_admitted() {
    let recipe = &recipes::recipe("node-local");
    let probe = &canary::probe_pods(recipe, "0123456789")[0];
    let judge = |plain: &Result<Value, String>, answer: &Result<Value, String>| {
        judge(probe, plain, answer, recipe, CANARY)
    };
    let refused = |why: &str| Err::<Value, _>(why.to_owned());
    let admitted = &Ok(canary::unlabelled(probe));
    let good = &Ok(injected(probe, recipe));
    let (ours, theirs) = (&refused("ours"), &refused("theirs"));
    assert_eq!(judge(admitted, good), Judgement::AsExpected);
    assert_eq!(judge(admitted, ours), Judgement::Wrong("ours".into()));
    assert_eq!(judge(theirs, ours), Judgement::Refused("theirs".into()));
    // Somebody wants a label that only injected pods have.
    assert_eq!(judge(theirs, good), Judgement::AsExpected);
    assert!(matches!(judge(admitted, admitted), Judgement::Wrong(_)));

    let hash = recipe.hash();
    assert_eq!(judge_hash(&hash, good, good), Judgement::AsExpected);
    assert_eq!(
        judge_hash("other", good, good),
        Judgement::Wrong(hash.clone())
    );
    assert_eq!(
        judge_hash(&hash, admitted, admitted),
        Judgement::Wrong("nothing".into())
    );
    assert_eq!(
        judge_hash(&hash, theirs, ours),
        Judgement::Refused("theirs".into())
    );
    assert_eq!(
        judge_hash(&hash, admitted, ours),
        Judgement::Wrong("ours".into())
    );
}
