//! [`super::pod::inject`] as the CEL of a `MutatingAdmissionPolicy`.
//!
//! The program is fixed; each part of the recipe is a variable with a literal. Real servers impose this
//! form:
//! - Values of patches are made of literals and of strings built from the pod, never of parts of the
//!   pod: 1.37 cannot convert those once a match condition was evaluated. So the user's variables are
//!   not copied into a new list; single operations edit the list in place.
//! - 1.36 panics on lists of typed object literals; plain maps of strings are safe on both.
//! - CEL has no function definitions here and no `cel.bind`, so repeated expressions are variables.
//! - The server evaluates a variable once. Most of the cost of a pod comes from the operations of the
//!   patch, which the server converts and applies one by one. So one operation adds a list or map that the
//!   pod lacks.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::attributes::{ANNOTATION_PREFIX, KINDS, MAX_VALUE, OUTER_KINDS, SAFE};
use super::cel::{literal, quoted, quoted_list};
use super::containers::{
    CONTAINER_LISTS, STORAGE, chosen_in_cel, is_mesh_in_cel, limits_storage_in_cel,
    takes_user_of_pod,
};
use super::environment::{
    EnvRule, NODE_NAME, POD_NAME, POD_UID, RESOURCE_ATTRIBUTES, SERVICE_NAME,
};
use super::gate;
use super::json::text;
use super::pod::NOT_BLANK;
use super::ports;
use super::recipe::{Recipe, StartGate};
use crate::names;
use crate::owners::{
    CRON_SUFFIX, CRON_SUFFIX_CHARS, DEPLOYMENT_CONFIG, HASH_LABELS, HASH_SUFFIX, KNATIVE_LABELS,
};

/// The variable that must be true for a patch; the caller supplies it.
pub(super) const SELECTED: &str = "selected";

/// The policy's variables without [`SELECTED`], in the order of their use.
pub(super) fn variables(recipe: &Recipe) -> Vec<(&'static str, String)> {
    let mut variables = data(recipe);
    variables.extend(pod());
    variables.push(("chosen", chosen_in_cel()));
    variables.push(("containers", containers(recipe)));
    variables.push(("additions", additions()));
    variables
}

/// The recipe.
fn data(recipe: &Recipe) -> Vec<(&'static str, String)> {
    let mut data = vec![
        ("first", literal(&Value::Array(recipe.first.clone()))),
        ("addLabels", literal(&json!(recipe.labels()))),
        ("addVolumes", literal(&Value::Array(recipe.volumes.clone()))),
    ];
    if !recipe.joined_annotations.is_empty() {
        data.push((
            "joinAnnotations",
            literal(&json!(recipe.joined_annotations)),
        ));
    }
    if let Some(gate) = &recipe.start_gate {
        data.extend([
            ("gates", literal(&json!([gate.container]))),
            ("gateVolumes", literal(&json!([gate.volume]))),
            ("gated", gate::applies_in_cel()),
        ]);
    }
    let usual = at(&recipe.annotations, recipe.sidecar.as_ref(), &recipe.env);
    if let Some((moved, other)) = ports::moved_in_cel(recipe).zip(recipe.moved.as_ref()) {
        let other = at(&other.annotations, Some(&other.sidecar), &other.env);
        data.push(("moved", moved));
        data.extend(AT_USUAL.into_iter().zip(usual));
        data.extend(AT_OTHER.into_iter().zip(other));
        let chosen = AT_USUAL.into_iter().zip(AT_OTHER);
        let chosen = chosen.map(|(usual, other)| {
            format!("variables.moved ? variables.{other} : variables.{usual}")
        });
        data.extend(AT.into_iter().zip(chosen));
    } else {
        data.extend(AT.into_iter().zip(usual));
        // The patch does not mention absent parts.
        data.retain(|(_, value)| !matches!(value.as_str(), "[]" | "{}"));
    }
    data
}

/// The parts that depend on the ports: two versions of each if the recipe has other ports, and the choice
/// between them.
const AT: [&str; 3] = ["addAnnotations", "sidecars", "rules"];
const AT_USUAL: [&str; 3] = ["usualAnnotations", "usualSidecars", "usualRules"];
const AT_OTHER: [&str; 3] = ["otherAnnotations", "otherSidecars", "otherRules"];

fn at(
    annotations: &BTreeMap<String, String>,
    sidecar: Option<&Value>,
    env: &[EnvRule],
) -> [String; 3] {
    let rules = env.iter().map(
        |rule| json!({"set": {"name": rule.name, "value": rule.value}, "unless": rule.unless}),
    );
    [
        literal(&json!(annotations)),
        literal(&sidecar.into_iter().cloned().collect()),
        literal(&rules.collect()),
    ]
}

/// What the program reads from the pod: annotations that become attributes, owners, the service.
fn pod() -> Vec<(&'static str, String)> {
    let prefix = quoted(ANNOTATION_PREFIX);
    let prefix_chars = ANNOTATION_PREFIX.len();
    let kinds = quoted_list(KINDS);
    let annotations = "object.metadata.?annotations.orValue({})".to_owned();
    let labels = "object.metadata.?labels.orValue({})".to_owned();
    let texts = format!(
        "variables.annotations.filter(k, k.startsWith({prefix}) && variables.annotations[k].size() <= {MAX_VALUE})\
         .map(k, string(k).substring({prefix_chars})).sort().map(k, [k, string(variables.annotations[{prefix} + k])])\
         .map(p, [p[0], {}]).filter(p, p[0] == \"service.name\" || p[1].size() <= {MAX_VALUE})",
        percent_encoded("p[1]")
    );
    let annotated = "variables.texts.map(p, p[0])".to_owned();
    let owners = format!(
        "object.metadata.?ownerReferences.orValue([])\
         .filter(o, o.?controller.orValue(false) && o.name.size() <= {MAX_VALUE}).map(o, ({}) \
         + [[o.kind in {kinds} ? string(o.kind).lowerAscii() : \"\", string(o.name)]]).flatten()",
        above()
    );
    let service = format!(
        "([\"service.name\"].filter(k, k in variables.annotated).map(k, string(variables.annotations[{prefix} + k])) \
         + variables.owners.map(o, o[1])).filter(s, s != \"\").map(s, s.replace(\"$\", \"$$\")) + [\"$({POD_NAME})\"]"
    );
    let computed = format!(
        "([[\"k8s.namespace.name\", request.namespace], [\"k8s.pod.name\", \"$({POD_NAME})\"], \
         [\"k8s.pod.uid\", \"$({POD_UID})\"], [\"k8s.node.name\", \"$({NODE_NAME})\"], \
         [\"service.namespace\", request.namespace]] \
         + variables.owners.filter(o, o[0] != \"\").map(o, [\"k8s.\" + o[0] + \".name\", {}])){}",
        percent_encoded("o[1]"),
        if_injectable(),
    );
    let given = "variables.texts.filter(p, p[0] != \"service.name\" && p[1] != \"\")\
                 .map(p, p[0] + \"=\" + p[1])"
        .to_owned();
    vec![
        ("annotations", annotations),
        ("labels", labels),
        ("texts", texts),
        ("annotated", annotated),
        ("owners", owners),
        ("service", service),
        ("computed", computed),
        ("given", given),
    ]
}

/// As [`crate::owners::above`], for a controller `o`: pairs of the attribute's part, which may be empty, and the
/// name.
fn above() -> String {
    let part = |kind: &str| {
        let known = OUTER_KINDS.iter().find(|(own, _)| *own == kind);
        quoted(known.map_or("", |(_, part)| part))
    };
    let knative = quoted_list(KNATIVE_LABELS.map(|(label, _)| label));
    let hashes = HASH_LABELS.map(|(label, _, kind)| format!("[{}, {}]", quoted(label), part(kind)));
    let [config_label, config_annotation] = DEPLOYMENT_CONFIG.map(quoted);
    let [hash, cron] = [HASH_SUFFIX, CRON_SUFFIX].map(|suffix| quoted(&format!("(?s).{suffix}")));
    format!(
        "o.kind == \"ReplicaSet\" \
         ? {knative}.filter(l, variables.labels[?l].orValue(\"\") != \"\").map(l, [\"\", string(variables.labels[l])]) \
         + [{}].filter(l, variables.labels[?l[0]].optMap(h, o.name.endsWith(\"-\" + h) && o.name != \"-\" + h).orValue(false))\
         .map(l, [l[1], string(o.name).substring(0, o.name.size() - variables.labels[l[0]].size() - 1)]) \
         + (o.name.matches({hash}) ? [[\"\", string(o.name).substring(0, string(o.name).lastIndexOf(\"-\"))]] : []) \
         : o.kind == \"ReplicationController\" \
         ? [variables.labels[?{config_label}].orValue(\"\"), variables.annotations[?{config_annotation}].orValue(\"\")]\
         .filter(d, d != \"\" && o.name.startsWith(d + \"-\") && string(o.name).substring(d.size()).matches(\"^-[0-9]+$\"))\
         .map(d, [\"\", string(d)]) \
         : o.kind == \"Job\" && o.name.matches({cron}) \
         ? [[{}, string(o.name).substring(0, o.name.size() - {CRON_SUFFIX_CHARS})]] : []",
        hashes.join(", "),
        part("CronJob"),
    )
}

/// From pairs of key and value, the attributes whose key no annotation of the pod sets or removes, and whose
/// value is not too long.
fn if_injectable() -> String {
    format!(
        ".filter(p, !(p[0] in variables.annotated) && p[1].size() <= {MAX_VALUE}).map(p, p[0] + \"=\" + p[1])"
    )
}

/// A string expression that encodes as [`super::attributes::percent_encode`] does. Each byte gives two
/// hexadecimal digits.
fn percent_encoded(text: &str) -> String {
    let all = quoted(&format!("^[{SAFE}]*$"));
    let one = quoted(&format!("^[{SAFE}]$"));
    format!(
        "({text}.matches({all}) ? {text} : {text}.split(\"\").map(c, c.matches({one}) ? c \
         : \"%X\".format([bytes(c)]).findAll(\"..\").map(h, \"%\" + h).join(\"\")).join(\"\"))"
    )
}

/// Every chosen container except the agent: the path of its variables, their names and those that `envFrom` may
/// set, the keys of its own attributes (none only if it has no such variable), whether those are
/// unreadable, and the attributes it should have.
fn containers(recipe: &Recipe) -> String {
    let lists = quoted_list(CONTAINER_LISTS);
    let own = quoted(RESOURCE_ATTRIBUTES);
    let tag = quoted(":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$");
    let digest = quoted("@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,}$");
    let agent = recipe.container_name().map(quoted);
    let not_the_agent = agent.map(|agent| format!("c.name != {agent} && "));
    let not_the_agent = not_the_agent.unwrap_or_default();
    let carried = if recipe.overrides_env_from {
        String::new()
    } else {
        format!(
            " + (has(c.envFrom) ? {}.filter(n, c.envFrom.exists(f, n.startsWith(f.?prefix.orValue(\"\")))) : [])",
            quoted_list(recipe.added_names())
        )
    };
    format!(
        "{lists}.filter(k, k in object.spec).map(k, object.spec[k].transformList(i, c, \
         {not_the_agent}(variables.chosen.size() == 0 || c.name in variables.chosen), {{\
         \"path\": dyn(\"/spec/\" + k + \"/\" + string(i) + \"/env\"), \
         \"none\": dyn(!has(c.env)), \
         \"env\": dyn(c.?env.orValue([])), \
         \"names\": dyn(c.?env.orValue([]).map(e, string(e.name)){carried}), \
         \"keys\": dyn(c.?env.orValue([]).filter(e, e.name == {own})\
         .map(e, e.?value.orValue(\"\").split(\",\").map(s, s.split(\"=\")[0].trim())).flatten()), \
         \"unreadable\": dyn(c.?env.orValue([]).exists(e, e.name == {own} && has(e.valueFrom))), \
         \"attributes\": dyn(variables.computed + ([[\"k8s.container.name\", string(c.name)], \
         [\"service.instance.id\", \
         (request.namespace.size() + object.metadata.?name.orValue(\"\").size() + c.name.size() + 2 <= {MAX_VALUE} \
         ? request.namespace + \".$({POD_NAME}).\" : \"$({POD_UID}).\") + c.name]] \
         + [[c.?image.orValue(\"\").split(\"@\")[0].find({tag}), c.?image.orValue(\"\").find({digest})]\
         .filter(v, v != \"\").map(v, v.substring(1)).join(\"@\")].filter(v, v != \"\").map(v, [\"service.version\", v])){} \
         + variables.given)}})).flatten()",
        if_injectable()
    )
}

/// What each of [`containers`] gets: variables before and after its own, and the attributes that its own
/// variable lacks. The content of `envFrom` is unreadable and may name the service.
fn additions() -> String {
    let (own, service) = (quoted(RESOURCE_ATTRIBUTES), quoted(SERVICE_NAME));
    format!(
        "variables.containers.map(x, {{\
         \"path\": dyn(x.path), \"none\": dyn(x.none), \"env\": dyn(x.env), \
         \"first\": dyn(variables.first.filter(v, !(v.name in x.names))), \
         \"last\": dyn(variables.rules.filter(r, !r.unless.exists(n, n in x.names)).map(r, r.set) \
         + ({service} in x.names || x.unreadable || (x.keys.size() == 0 ? {own} in x.names : \"service.name\" in x.keys) ? [] \
         : [dyn({{\"name\": {service}, \"value\": variables.service[0]}})]) \
         + ({own} in x.names ? [] : [dyn({{\"name\": {own}, \"value\": string(x.attributes.join(\",\"))}})])), \
         \"missing\": dyn(x.keys.size() == 0 ? \"\" \
         : string(x.attributes.filter(a, !(a.split(\"=\")[0] in x.keys)).join(\",\")))}})"
    )
}

/// The patch. Within a container, it uses indices of the user's list before it inserts anything at the
/// front; it edits containers before it inserts the agent.
pub(super) fn patch(recipe: &Recipe) -> String {
    let own = quoted(RESOURCE_ATTRIBUTES);
    let given = quoted(&format!("(?s)^.*[{NOT_BLANK}]"));
    let mut parts = vec![format!(
        "variables.additions.map(x, x.none ? [JSONPatch{{op: \"add\", path: x.path, value: x.first + x.last}}] \
         : x.env.transformList(i, e, x.missing != \"\" && e.name == {own} && !has(e.valueFrom), \
         JSONPatch{{op: \"add\", path: x.path + \"/\" + string(i) + \"/value\", \
         value: ([e.?value.orValue(\"\").find({given})].filter(t, t != \"\") + [x.missing]).join(\",\")}}) \
         + x.first.transformList(i, v, JSONPatch{{op: \"add\", path: x.path + \"/\" + string(i), value: v}}) \
         + x.last.map(v, JSONPatch{{op: \"add\", path: x.path + \"/-\", value: v}})).flatten()"
    )];
    if let Some(sidecar) = &recipe.sidecar {
        let place = sidecar_index();
        parts.push(add_container("sidecars", &place));
        parts.extend(takes_user_of_pod(sidecar).then(|| set_user(sidecar, &place)));
    }
    if let Some(gate) = &recipe.start_gate {
        parts.push(add_gate(gate));
    }
    parts.extend(recipe.storage_limit.as_deref().map(limit_storage));
    if !recipe.volumes.is_empty() {
        parts.push(add_volumes("addVolumes"));
    }
    parts.push(entries("labels", "addLabels"));
    if !recipe.annotations.is_empty() {
        parts.push(entries("annotations", "addAnnotations"));
    }
    if !recipe.joined_annotations.is_empty() {
        parts.push(JOIN_ANNOTATIONS.into());
    }
    format!("!variables.{SELECTED} ? [] : {}", parts.join(" + "))
}

/// Where the agent is added to the init containers.
fn sidecar_index() -> String {
    format!(
        "string(([0] + object.spec.?initContainers.orValue([]).transformList(i, c, {}, i + 1)).max())",
        is_mesh_in_cel()
    )
}

/// Adds a container of a variable's list, unless there is one of its name.
fn add_container(variable: &str, place: &str) -> String {
    format!(
        "variables.{variable}.map(a, has(object.spec.initContainers) \
         ? (object.spec.initContainers.exists(c, c.name == a.name) ? [] \
         : [JSONPatch{{op: \"add\", value: a, path: \"/spec/initContainers/\" + {place}}}]) \
         : [JSONPatch{{op: \"add\", path: \"/spec/initContainers\", value: [a]}}]).flatten()"
    )
}

/// Gives the agent that was just added a limit of its own, where other containers have one.
fn limit_storage(limit: &str) -> String {
    format!(
        "({} ? variables.sidecars.filter(a, !object.spec.?initContainers.orValue([]).exists(c, c.name == a.name))\
         .map(a, [[\"limits\", {}], [\"requests\", \"0\"]]).flatten().map(r, \
         JSONPatch{{op: \"add\", path: \"/spec/initContainers/\" + {} + \"/resources/\" + r[0] + \"/{STORAGE}\", value: r[1]}}) : [])",
        limits_storage_in_cel(),
        quoted(limit),
        sidecar_index()
    )
}

/// Adds a name to each of the lists, unless it is there. The annotations exist by now: the agent's is one.
const JOIN_ANNOTATIONS: &str = "variables.joinAnnotations.transformList(k, v, \
     !string(variables.annotations[?k].orValue(\"\")).split(\",\").exists(n, n.trim() == v), \
     JSONPatch{op: \"add\", path: \"/metadata/annotations/\" + jsonpatch.escapeKey(k), value: \
     [string(variables.annotations[?k].orValue(\"\"))].filter(t, t.trim() != \"\").map(t, t + \",\").join(\"\") + string(v)})";

/// Adds the start gate, with its resources, and its volume.
fn add_gate(gate: &StartGate) -> String {
    let place = gate::place_in_cel();
    let mut parts = vec![
        add_container("gates", &place),
        gate::resources_in_cel(&place),
    ];
    parts.extend(takes_user_of_pod(&gate.container).then(|| set_user(&gate.container, &place)));
    parts.push(add_volumes("gateVolumes"));
    format!("(!variables.gated ? [] : {})", parts.join(" + "))
}

/// Gives an added container a user where it would take root from its pod.
fn set_user(container: &Value, place: &str) -> String {
    let name = quoted(text(container, "name"));
    let user = names::USER;
    format!(
        "(object.spec.?securityContext.?runAsUser.orValue(1) != 0 \
         || object.spec.?initContainers.orValue([]).exists(c, c.name == {name}) ? [] \
         : [JSONPatch{{op: \"add\", value: {user}, path: \"/spec/initContainers/\" \
         + {place} + \"/securityContext/runAsUser\"}}])"
    )
}

fn add_volumes(variable: &str) -> String {
    format!(
        "(has(object.spec.volumes) \
         ? variables.{variable}.filter(v, !object.spec.volumes.exists(w, w.name == v.name))\
         .map(v, JSONPatch{{op: \"add\", path: \"/spec/volumes/-\", value: v}}) \
         : [JSONPatch{{op: \"add\", path: \"/spec/volumes\", value: variables.{variable}}}])"
    )
}

/// Puts a variable's entries into a map of the pod's metadata.
fn entries(field: &str, variable: &str) -> String {
    format!(
        "(has(object.metadata.{field}) ? variables.{variable}.transformList(k, v, \
         JSONPatch{{op: \"add\", path: \"/metadata/{field}/\" + jsonpatch.escapeKey(k), value: v}}) \
         : [JSONPatch{{op: \"add\", path: \"/metadata/{field}\", value: variables.{variable}}}])"
    )
}
