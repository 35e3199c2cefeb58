//! `${env:NAME}`, `${env:NAME:-default}`, `${NAME}` and `${file:PATH}` in scalars, by the collector's
//! rules: `$$` is a dollar sign, a scalar that is one reference is read again as YAML, references may
//! be nested. Must not read an environment or a file itself: the caller provides a [`Resolve`].

use super::problem::Findings;
use super::tree::{Node, Resolved};

/// References one scalar may lead to, so that a cycle ends.
const DEPTH: usize = 100;

/// Where the values of `${env:…}` and `${file:…}` come from.
pub trait Resolve {
    /// The value of an environment variable, if it is set.
    fn env(&self, name: &str) -> Option<String>;
    /// The content of a file, or why it cannot be read.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// Expands every scalar below `node`; without `resolve` references are only checked, and stay.
pub(super) fn expand(
    node: Node,
    path: &str,
    resolve: Option<&dyn Resolve>,
    findings: &Findings,
) -> Node {
    match node {
        Node::Text(text) if text.contains('$') => scalar(&text, path, resolve, findings)
            .unwrap_or_else(|message| {
                findings.problem(path, message);
                Node::Opaque(text)
            }),
        Node::List(list) => {
            let items = list.into_iter().enumerate();
            let expanded = items
                .map(|(index, item)| expand(item, &format!("{path}[{index}]"), resolve, findings));
            Node::List(expanded.collect())
        }
        Node::Map(map) => {
            let dot = if path.is_empty() { "" } else { "." };
            let expanded = map.into_iter().map(|(key, value)| {
                let value = expand(value, &format!("{path}{dot}{key}"), resolve, findings);
                (key, value)
            });
            Node::Map(expanded.collect())
        }
        other => other,
    }
}

/// Expands a text of the document once more, for what its files hold now.
pub(super) fn again(text: &str, resolve: &dyn Resolve) -> Result<String, String> {
    Expansion::new("", Some(resolve), &Findings::default()).text(text, 0)
}

fn scalar(
    text: &str,
    path: &str,
    resolve: Option<&dyn Resolve>,
    findings: &Findings,
) -> Result<Node, String> {
    let mut expansion = Expansion::new(path, resolve, findings);
    let expanded = expansion.text(text, 0)?;
    if expansion.references == 0 {
        return Ok(Node::Text(expanded));
    }
    if resolve.is_none() {
        return Ok(Node::Opaque(text.to_owned()));
    }
    let as_text = || Node::Text(expanded.clone());
    let meaning = if is_one_reference(text) {
        Node::parse(&expanded).unwrap_or_else(|_| as_text())
    } else {
        as_text()
    };
    Ok(Node::Resolved(Resolved {
        meaning: Box::new(meaning),
        with_files: (expansion.files > 0).then(|| text.to_owned()),
        text: expanded,
    }))
}

/// Whether the whole scalar is a single `${…}`.
fn is_one_reference(text: &str) -> bool {
    text.strip_prefix("${")
        .and_then(closing)
        .is_some_and(|end| end + 3 == text.len())
}

/// Where the brace that closes an opened reference stands, nested references skipped.
fn closing(after_open: &str) -> Option<usize> {
    let bytes = after_open.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                depth += 1;
                at += 1;
            }
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

struct Expansion<'a> {
    path: &'a str,
    resolve: Option<&'a dyn Resolve>,
    findings: &'a Findings,
    references: usize,
    files: usize,
}

impl<'a> Expansion<'a> {
    fn new(path: &'a str, resolve: Option<&'a dyn Resolve>, findings: &'a Findings) -> Self {
        Self {
            path,
            resolve,
            findings,
            references: 0,
            files: 0,
        }
    }

    fn text(&mut self, text: &str, depth: usize) -> Result<String, String> {
        if depth > DEPTH {
            return Err(format!(
                "references lead to more than {DEPTH} further references; is there a cycle?"
            ));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            let (before, dollar) = rest.split_at(at);
            out.push_str(before);
            if let Some(after) = dollar.strip_prefix("$$") {
                out.push('$');
                rest = after;
            } else if let Some(after) = dollar.strip_prefix("${") {
                let end = closing(after)
                    .ok_or_else(|| format!("`{text}` opens `${{` and never closes it"))?;
                let (inside, closed) = after.split_at(end);
                self.references += 1;
                let value = self.reference(inside, depth)?;
                out.push_str(&value);
                rest = closed.strip_prefix('}').unwrap_or(closed);
            } else {
                out.push('$');
                rest = dollar.strip_prefix('$').unwrap_or_default();
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    fn reference(&mut self, inside: &str, depth: usize) -> Result<String, String> {
        let inside = self.text(inside, depth + 1)?;
        let (scheme, rest) = split_scheme(&inside);
        let value = match scheme {
            "env" => self.env(rest)?,
            "file" => self.file(rest)?,
            other => {
                return Err(format!(
                    "`${{{other}:…}}` is not supported; use ${{env:NAME}} or ${{file:PATH}}"
                ));
            }
        };
        self.text(&value, depth + 1)
    }

    fn env(&mut self, rest: &str) -> Result<String, String> {
        let (name, default) = match rest.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (rest, None),
        };
        if !is_variable_name(name) {
            return Err(format!(
                "`{name}` is not the name of an environment variable; letters, digits and _ only, no digit first"
            ));
        }
        let Some(resolve) = self.resolve else {
            return Ok(String::new());
        };
        Ok(match (resolve.env(name), default) {
            (Some(value), None) => value,
            (Some(value), Some(_)) if !value.is_empty() => value,
            (_, Some(default)) => default.to_owned(),
            (None, None) => {
                self.findings.warn(
                    self.path,
                    &format!("environment variable {name} is not set; using the empty string"),
                );
                String::new()
            }
        })
    }

    fn file(&mut self, path: &str) -> Result<String, String> {
        if path.is_empty() {
            return Err("`${file:}` names no file".to_owned());
        }
        self.files += 1;
        let Some(resolve) = self.resolve else {
            return Ok(String::new());
        };
        let content = resolve
            .file(path)
            .map_err(|error| format!("cannot read {path}: {error}"))?;
        // Files written by hand end in a newline that no header may carry.
        let content = content.strip_suffix('\n').unwrap_or(&content);
        let content = content.strip_suffix('\r').unwrap_or(content);
        // A file is not a template: a dollar sign in a password stays one.
        Ok(content.replace('$', "$$"))
    }
}

/// `env:NAME` and `NAME` mean the same; a default may itself hold a colon.
fn split_scheme(inside: &str) -> (&str, &str) {
    match inside.split_once(':') {
        Some((scheme, rest)) if !rest.starts_with('-') => (scheme, rest),
        _ => ("env", inside),
    }
}

fn is_variable_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && characters.all(|next| next.is_ascii_alphanumeric() || next == '_')
}
