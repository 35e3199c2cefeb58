//! [`super::pod::inject`] once more, as the CEL of a `MutatingAdmissionPolicy`.
//!
//! The program is fixed; the recipe enters it as literals, one variable each. What it cannot do, and
//! why it is written as it is, was learnt on real servers:
//! - Values of patches are made of literals and of strings built from the pod, never of parts of the
//!   pod: 1.37 cannot convert those once a match condition was evaluated. So the user's variables are
//!   not copied into a new list; single operations edit the list in place.
//! - 1.36 panics on lists of typed object literals; plain maps of strings are safe on both.
//! - There are no functions to define and no `cel.bind`: what is used twice is a variable.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::attributes::{
    ANNOTATION_PREFIX, CRON_SUFFIX, CRON_SUFFIX_CHARS, KINDS, MAX_VALUE, SAFE, encoded, key,
};
use super::cel::{literal, quoted, quoted_list};
use super::environment::{NODE_NAME, POD_NAME, POD_UID, RESOURCE_ATTRIBUTES, SERVICE_NAME};
use super::pod::{CONTAINER_LISTS, MESHES};
use super::{EnvRule, Recipe, ports};

/// The variable without which nothing is patched; the caller supplies it.
pub(super) const SELECTED: &str = "selected";

/// The policy's variables but [`SELECTED`], in the order of their use.
pub(super) fn variables(recipe: &Recipe) -> Vec<(&'static str, String)> {
    let mut variables = data(recipe);
    variables.extend(pod(recipe));
    variables.push(("containers", containers()));
    variables
}

/// The recipe.
fn data(recipe: &Recipe) -> Vec<(&'static str, String)> {
    let attributes = encoded(recipe);
    let carriable = recipe.added_names().into_iter();
    let carriable = carriable.filter(|_| !recipe.overrides_env_from);
    let mut data = vec![
        ("first", literal(&Value::Array(recipe.first.clone()))),
        (
            "attributes",
            quoted_list(attributes.iter().map(String::as_str)),
        ),
        ("carriable", quoted_list(carriable)),
        ("addLabels", literal(&json!(recipe.labels()))),
        ("addVolumes", literal(&Value::Array(recipe.volumes.clone()))),
    ];
    let usual = at(&recipe.annotations, recipe.sidecar.as_ref(), &recipe.env);
    let Some((moved, other)) = ports::moved_in_cel(recipe).zip(recipe.moved.as_ref()) else {
        data.extend(AT.into_iter().zip(usual));
        return data;
    };
    let other = at(&other.annotations, Some(&other.sidecar), &other.env);
    data.push(("moved", moved));
    data.extend(AT_USUAL.into_iter().zip(usual));
    data.extend(AT_OTHER.into_iter().zip(other));
    let chosen = AT_USUAL.into_iter().zip(AT_OTHER);
    let chosen = chosen
        .map(|(usual, other)| format!("variables.moved ? variables.{other} : variables.{usual}"));
    data.extend(AT.into_iter().zip(chosen));
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
fn pod(recipe: &Recipe) -> Vec<(&'static str, String)> {
    let prefix = quoted(ANNOTATION_PREFIX);
    let prefix_chars = ANNOTATION_PREFIX.len();
    let kinds = quoted_list(KINDS);
    let service = recipe
        .attributes
        .iter()
        .find(|(key, _)| key == "service.name");
    let service = quoted(service.map_or("", |(_, value)| value));
    let attributes = encoded(recipe);
    let recipe_keys = quoted_list(attributes.iter().map(|attribute| key(attribute)));
    let hash = "object.metadata.?labels[?\"pod-template-hash\"]";
    vec![
        (
            "annotations",
            "object.metadata.?annotations.orValue({})".into(),
        ),
        (
            "annotated",
            format!(
                "variables.annotations.filter(k, k.startsWith({prefix}) && variables.annotations[k] != \"\" \
                 && variables.annotations[k].size() <= {MAX_VALUE}).map(k, string(k).substring({prefix_chars})).sort()"
            ),
        ),
        (
            "owners",
            format!(
                "object.metadata.?ownerReferences.orValue([]).filter(o, o.?controller.orValue(false)).map(o, \
                 (o.kind == \"ReplicaSet\" && {hash}.optMap(h, o.name.endsWith(\"-\" + h) && o.name != \"-\" + h).orValue(false) \
                 ? [[\"deployment\", string(o.name).substring(0, o.name.size() - {hash}.value().size() - 1)]] \
                 : o.kind == \"Job\" && o.name.matches({cron}) \
                 ? [[\"cronjob\", string(o.name).substring(0, o.name.size() - {CRON_SUFFIX_CHARS})]] : []) \
                 + [[o.kind in {kinds} ? string(o.kind).lowerAscii() : \"\", string(o.name)]]).flatten()",
                cron = quoted(&format!("(?s).{CRON_SUFFIX}")),
            ),
        ),
        (
            "service",
            format!(
                "([\"service.name\"].filter(k, k in variables.annotated).map(k, string(variables.annotations[{prefix} + k])) \
                 + [{service}] + variables.owners.map(o, o[1])).filter(s, s != \"\").map(s, s.replace(\"$\", \"$$\")) \
                 + [\"$({POD_NAME})\"]"
            ),
        ),
        ("overridden", format!("variables.annotated + {recipe_keys}")),
        (
            "computed",
            format!(
                "([\"k8s.namespace.name=\" + request.namespace, \"k8s.pod.name=$({POD_NAME})\", \
                 \"k8s.pod.uid=$({POD_UID})\", \"k8s.node.name=$({NODE_NAME})\", \
                 \"service.namespace=\" + request.namespace] \
                 + variables.owners.filter(o, o[0] != \"\").map(o, \"k8s.\" + o[0] + \".name=\" + {}))\
                 .filter(a, !(a.split(\"=\")[0] in variables.overridden))",
                percent_encoded("o[1]")
            ),
        ),
        (
            "given",
            format!(
                "variables.attributes.filter(a, a.split(\"=\")[0] != \"service.name\" \
                 && !(a.split(\"=\")[0] in variables.annotated)) \
                 + variables.annotated.filter(k, k != \"service.name\")\
                 .map(k, [k, string(variables.annotations[{prefix} + k])]).map(p, p[0] + \"=\" + {})",
                percent_encoded("p[1]")
            ),
        ),
    ]
}

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

/// Every container but the agent: where its variables stand, their names, the keys of its attributes,
/// whether those cannot be read, and the attributes it should have.
fn containers() -> String {
    let lists = quoted_list(CONTAINER_LISTS);
    let own = quoted(RESOURCE_ATTRIBUTES);
    let tag = quoted(":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$");
    let digest = quoted("@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,}$");
    let carried = "c.?envFrom.orValue([]).exists(f, n.startsWith(f.?prefix.orValue(\"\")))";
    format!(
        "{lists}.filter(k, k in object.spec).map(k, object.spec[k].transformList(i, c, \
         !variables.sidecars.exists(a, a.name == c.name), {{\
         \"path\": dyn(\"/spec/\" + k + \"/\" + string(i) + \"/env\"), \
         \"none\": dyn(!has(c.env)), \
         \"env\": dyn(c.?env.orValue([])), \
         \"names\": dyn(c.?env.orValue([]).map(e, string(e.name)) + variables.carriable.filter(n, {carried})), \
         \"keys\": dyn(c.?env.orValue([]).filter(e, e.name == {own})\
         .map(e, e.?value.orValue(\"\").split(\",\").map(s, s.split(\"=\")[0].trim())).flatten()), \
         \"unreadable\": dyn(c.?env.orValue([]).exists(e, e.name == {own} && has(e.valueFrom)) \
         || !c.?env.orValue([]).exists(e, e.name == {own}) && variables.carriable.exists(n, n == {own} && {carried})), \
         \"attributes\": dyn(variables.computed \
         + ([\"k8s.container.name=\" + c.name, \
         \"service.instance.id=\" + request.namespace + \".$({POD_NAME}).\" + c.name] \
         + [[c.?image.orValue(\"\").split(\"@\")[0].find({tag}), c.?image.orValue(\"\").find({digest})]\
         .filter(v, v != \"\").map(v, v.substring(1)).join(\"@\")].filter(v, v != \"\").map(v, \"service.version=\" + v))\
         .filter(a, !(a.split(\"=\")[0] in variables.overridden)) \
         + variables.given)}})).flatten()"
    )
}

/// The patch. Within a container indices of the user's list are used before anything is put in front
/// of it; containers are edited before the agent is put among them.
pub(super) fn patch() -> String {
    let own = quoted(RESOURCE_ATTRIBUTES);
    let service = quoted(SERVICE_NAME);
    let missing = "x.attributes.filter(a, !(a.split(\"=\")[0] in x.keys))";
    let env = format!(
        "variables.containers.map(x, \
         (x.none ? [JSONPatch{{op: \"add\", path: x.path, value: []}}] : []) \
         + x.env.transformList(i, e, e.name == {own} && !has(e.valueFrom) && {missing}.size() > 0, \
         JSONPatch{{op: \"add\", path: x.path + \"/\" + string(i) + \"/value\", value: e.?value.orValue(\"\") \
         + (e.?value.orValue(\"\").matches(\"(^|,)$\") ? \"\" : \",\") + {missing}.join(\",\")}}) \
         + variables.first.filter(v, !(v.name in x.names)).transformList(i, v, \
         JSONPatch{{op: \"add\", path: x.path + \"/\" + string(i), value: v}}) \
         + variables.rules.filter(r, !r.unless.exists(n, n in x.names)).map(r, \
         JSONPatch{{op: \"add\", path: x.path + \"/-\", value: r.set}}) \
         + ({service} in x.names || \"service.name\" in x.keys || x.unreadable ? [] \
         : [JSONPatch{{op: \"add\", path: x.path + \"/-\", value: {{\"name\": {service}, \"value\": variables.service[0]}}}}]) \
         + ({own} in x.names ? [] \
         : [JSONPatch{{op: \"add\", path: x.path + \"/-\", value: {{\"name\": {own}, \"value\": string(x.attributes.join(\",\"))}}}}])\
         ).flatten()"
    );
    let meshes: Vec<String> = MESHES
        .iter()
        .map(|mesh| format!("c.name.startsWith({})", quoted(mesh)))
        .collect();
    let meshes = meshes.join(" || ");
    let inits = "object.spec.?initContainers.orValue([])";
    let sidecar = format!(
        "variables.sidecars.filter(a, !{inits}.exists(c, c.name == a.name)).map(a, \
         (has(object.spec.initContainers) ? [] : [JSONPatch{{op: \"add\", path: \"/spec/initContainers\", value: []}}]) \
         + [JSONPatch{{op: \"add\", value: a, path: \"/spec/initContainers/\" \
         + string(([0] + {inits}.transformList(i, c, {meshes}, i + 1)).max())}}]).flatten()"
    );
    let volumes = "(variables.addVolumes.size() == 0 || has(object.spec.volumes) ? [] \
         : [JSONPatch{op: \"add\", path: \"/spec/volumes\", value: []}]) \
         + variables.addVolumes.filter(v, !object.spec.?volumes.orValue([]).exists(w, w.name == v.name))\
         .map(v, JSONPatch{op: \"add\", path: \"/spec/volumes/-\", value: v})";
    let labels = entries("labels", "addLabels");
    let annotations = entries("annotations", "addAnnotations");
    format!("!variables.{SELECTED} ? [] : {env} + {sidecar} + {volumes} + {labels} + {annotations}")
}

/// Puts a variable's entries into a map of the pod's metadata.
fn entries(field: &str, variable: &str) -> String {
    format!(
        "(variables.{variable}.size() == 0 || has(object.metadata.{field}) ? [] \
         : [JSONPatch{{op: \"add\", path: \"/metadata/{field}\", value: {{}}}}]) \
         + variables.{variable}.transformList(k, v, \
         JSONPatch{{op: \"add\", path: \"/metadata/{field}/\" + jsonpatch.escapeKey(k), value: v}})"
    )
}
