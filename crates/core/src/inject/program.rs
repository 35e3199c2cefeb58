//! [`super::pod::inject`] once more, as the CEL of a `MutatingAdmissionPolicy`.
//!
//! The program is fixed; the recipe enters it as literals, one variable each. What it cannot do, and
//! why it is written as it is, was learnt on real servers:
//! - Values of patches are made of literals and of strings built from the pod, never of parts of the
//!   pod: 1.37 cannot convert those once a match condition was evaluated. So the user's variables are
//!   not copied into a new list; single operations edit the list in place.
//! - 1.36 panics on lists of typed object literals; plain maps of strings are safe on both.
//! - There are no functions to define and no `cel.bind`: what is used twice is a variable.
//! - The server evaluates a variable once, and literals never again. Most of what a pod costs are the
//!   operations of the patch, each converted and applied by itself: a list or map that the pod does not
//!   have is added by one operation.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::attributes::{
    ANNOTATION_PREFIX, CRON_SUFFIX, CRON_SUFFIX_CHARS, KINDS, MAX_VALUE, SAFE,
};
use super::cel::{literal, quoted, quoted_list};
use super::containers::CONTAINER_LISTS;
use super::environment::{
    EnvRule, NODE_NAME, POD_NAME, POD_UID, RESOURCE_ATTRIBUTES, SERVICE_NAME,
};
use super::pod::MESHES;
use super::ports;
use super::recipe::Recipe;

/// The variable without which nothing is patched; the caller supplies it.
pub(super) const SELECTED: &str = "selected";

/// The policy's variables but [`SELECTED`], in the order of their use.
pub(super) fn variables(recipe: &Recipe) -> Vec<(&'static str, String)> {
    let mut variables = data(recipe);
    variables.extend(pod());
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
        // What there is none of, the patch does not mention.
        data.retain(|(_, value)| !matches!(value.as_str(), "[]" | "{}"));
    }
    data
}

/// What differs with the ports: each twice where there are others, and which of them the pod is given.
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

/// What is read from the pod: its annotations that become attributes, its owners, its service.
fn pod() -> Vec<(&'static str, String)> {
    let prefix = quoted(ANNOTATION_PREFIX);
    let prefix_chars = ANNOTATION_PREFIX.len();
    let kinds = quoted_list(KINDS);
    let cron = quoted(&format!("(?s).{CRON_SUFFIX}"));
    let hash = "object.metadata.?labels[?\"pod-template-hash\"]";
    let annotations = "object.metadata.?annotations.orValue({})".to_owned();
    let annotated = format!(
        "variables.annotations.filter(k, k.startsWith({prefix}) && variables.annotations[k] != \"\" \
         && variables.annotations[k].size() <= {MAX_VALUE}).map(k, string(k).substring({prefix_chars})).sort()"
    );
    let owners = format!(
        "object.metadata.?ownerReferences.orValue([]).filter(o, o.?controller.orValue(false)).map(o, \
         (o.kind == \"ReplicaSet\" && {hash}.optMap(h, o.name.endsWith(\"-\" + h) && o.name != \"-\" + h).orValue(false) \
         ? [[\"deployment\", string(o.name).substring(0, o.name.size() - {hash}.value().size() - 1)]] \
         : o.kind == \"Job\" && o.name.matches({cron}) \
         ? [[\"cronjob\", string(o.name).substring(0, o.name.size() - {CRON_SUFFIX_CHARS})]] : []) \
         + [[o.kind in {kinds} ? string(o.kind).lowerAscii() : \"\", string(o.name)]]).flatten()"
    );
    let service = format!(
        "([\"service.name\"].filter(k, k in variables.annotated).map(k, string(variables.annotations[{prefix} + k])) \
         + variables.owners.map(o, o[1])).filter(s, s != \"\").map(s, s.replace(\"$\", \"$$\")) + [\"$({POD_NAME})\"]"
    );
    let computed = format!(
        "([[\"k8s.namespace.name\", request.namespace], [\"k8s.pod.name\", \"$({POD_NAME})\"], \
         [\"k8s.pod.uid\", \"$({POD_UID})\"], [\"k8s.node.name\", \"$({NODE_NAME})\"], \
         [\"service.namespace\", request.namespace]] \
         + variables.owners.filter(o, o[0] != \"\").map(o, [\"k8s.\" + o[0] + \".name\", {}])){UNLESS_ANNOTATED}",
        percent_encoded("o[1]"),
    );
    let given = format!(
        "variables.annotated.filter(k, k != \"service.name\")\
         .map(k, [k, string(variables.annotations[{prefix} + k])]).map(p, p[0] + \"=\" + {})",
        percent_encoded("p[1]")
    );
    vec![
        ("annotations", annotations),
        ("annotated", annotated),
        ("owners", owners),
        ("service", service),
        ("computed", computed),
        ("given", given),
    ]
}

/// Of pairs of key and value the attributes whose key no annotation of the pod gives.
const UNLESS_ANNOTATED: &str =
    ".filter(p, !(p[0] in variables.annotated)).map(p, p[0] + \"=\" + p[1])";

/// A string expression as [`super::attributes::percent_encode`] writes it. Hexadecimal digits of one
/// character's bytes come in pairs.
fn percent_encoded(text: &str) -> String {
    let all = quoted(&format!("^[{SAFE}]*$"));
    let one = quoted(&format!("^[{SAFE}]$"));
    format!(
        "({text}.matches({all}) ? {text} : {text}.split(\"\").map(c, c.matches({one}) ? c \
         : \"%X\".format([bytes(c)]).findAll(\"..\").map(h, \"%\" + h).join(\"\")).join(\"\"))"
    )
}

/// Every container but the agent: where its variables are, their names and those that `envFrom` may
/// carry, the keys of its own attributes (none only where it has no such variable), whether those cannot
/// be read, and the attributes it should have.
fn containers(recipe: &Recipe) -> String {
    let lists = quoted_list(CONTAINER_LISTS);
    let own = quoted(RESOURCE_ATTRIBUTES);
    let tag = quoted(":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$");
    let digest = quoted("@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,}$");
    let agent = recipe.sidecar_name().map(quoted);
    let not_the_agent = agent.map(|agent| format!("c.name != {agent}, "));
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
        "{lists}.filter(k, k in object.spec).map(k, object.spec[k].transformList(i, c, {not_the_agent}{{\
         \"path\": dyn(\"/spec/\" + k + \"/\" + string(i) + \"/env\"), \
         \"none\": dyn(!has(c.env)), \
         \"env\": dyn(c.?env.orValue([])), \
         \"names\": dyn(c.?env.orValue([]).map(e, string(e.name)){carried}), \
         \"keys\": dyn(c.?env.orValue([]).filter(e, e.name == {own})\
         .map(e, e.?value.orValue(\"\").split(\",\").map(s, s.split(\"=\")[0].trim())).flatten()), \
         \"unreadable\": dyn(c.?env.orValue([]).exists(e, e.name == {own} && has(e.valueFrom))), \
         \"attributes\": dyn(variables.computed + ([[\"k8s.container.name\", string(c.name)], \
         [\"service.instance.id\", request.namespace + \".$({POD_NAME}).\" + c.name]] \
         + [[c.?image.orValue(\"\").split(\"@\")[0].find({tag}), c.?image.orValue(\"\").find({digest})]\
         .filter(v, v != \"\").map(v, v.substring(1)).join(\"@\")].filter(v, v != \"\").map(v, [\"service.version\", v])){UNLESS_ANNOTATED} \
         + variables.given)}})).flatten()"
    )
}

/// What each of [`containers`] is given: variables before and after its own, and attributes that its own
/// variable lacks. What `envFrom` carries cannot be read; it may name the service.
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

/// The patch. Within a container indices of the user's list are used before anything is put in front
/// of it; containers are edited before the agent is put among them.
pub(super) fn patch(recipe: &Recipe) -> String {
    let own = quoted(RESOURCE_ATTRIBUTES);
    let mut parts = vec![format!(
        "variables.additions.map(x, x.none ? [JSONPatch{{op: \"add\", path: x.path, value: x.first + x.last}}] \
         : x.env.transformList(i, e, x.missing != \"\" && e.name == {own} && !has(e.valueFrom), \
         JSONPatch{{op: \"add\", path: x.path + \"/\" + string(i) + \"/value\", value: e.?value.orValue(\"\") \
         + (e.?value.orValue(\"\").matches(\"(^|,)$\") ? \"\" : \",\") + x.missing}}) \
         + x.first.transformList(i, v, JSONPatch{{op: \"add\", path: x.path + \"/\" + string(i), value: v}}) \
         + x.last.map(v, JSONPatch{{op: \"add\", path: x.path + \"/-\", value: v}})).flatten()"
    )];
    if recipe.sidecar.is_some() {
        parts.push(add_sidecar());
    }
    if !recipe.volumes.is_empty() {
        parts.push(ADD_VOLUMES.into());
    }
    parts.push(entries("labels", "addLabels"));
    if !recipe.annotations.is_empty() {
        parts.push(entries("annotations", "addAnnotations"));
    }
    format!("!variables.{SELECTED} ? [] : {}", parts.join(" + "))
}

fn add_sidecar() -> String {
    let meshes = MESHES.map(|mesh| format!("c.name.startsWith({})", quoted(mesh)));
    let meshes = meshes.join(" || ");
    format!(
        "variables.sidecars.map(a, has(object.spec.initContainers) \
         ? (object.spec.initContainers.exists(c, c.name == a.name) ? [] \
         : [JSONPatch{{op: \"add\", value: a, path: \"/spec/initContainers/\" \
         + string(([0] + object.spec.initContainers.transformList(i, c, {meshes}, i + 1)).max())}}]) \
         : [JSONPatch{{op: \"add\", path: \"/spec/initContainers\", value: [a]}}]).flatten()"
    )
}

const ADD_VOLUMES: &str = "(has(object.spec.volumes) \
     ? variables.addVolumes.filter(v, !object.spec.volumes.exists(w, w.name == v.name))\
     .map(v, JSONPatch{op: \"add\", path: \"/spec/volumes/-\", value: v}) \
     : [JSONPatch{op: \"add\", path: \"/spec/volumes\", value: variables.addVolumes}])";

/// Puts a variable's entries into a map of the pod's metadata.
fn entries(field: &str, variable: &str) -> String {
    format!(
        "(has(object.metadata.{field}) ? variables.{variable}.transformList(k, v, \
         JSONPatch{{op: \"add\", path: \"/metadata/{field}/\" + jsonpatch.escapeKey(k), value: v}}) \
         : [JSONPatch{{op: \"add\", path: \"/metadata/{field}\", value: variables.{variable}}}])"
    )
}
