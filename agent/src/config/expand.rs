//! `${env:NAME}`, `${env:NAME:-default}`, `${NAME}` and `${file:PATH}` in scalars, by the collector's
//! rules: `$$` is a dollar sign, a scalar that is one reference is read again as YAML, references may
//! be nested. Must not read an environment or a file itself: the caller provides a [`Resolve`].

use super::problem::Findings;
use super::tree::Node;

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
        Node::Text(text) if text.contains('$') => {
            let expansion = Expansion::new(path, resolve, findings);
            expansion.scalar(&text).unwrap_or_else(|message| {
                findings.problem(path, message);
                Node::Opaque(text)
            })
        }
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

/// Where the brace that closes an opened reference stands, nested references skipped.
fn closing(opened: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, brace) in opened.match_indices(['{', '}']) {
        match brace {
            "{" if opened.split_at(at).0.ends_with('$') => depth += 1,
            "{" => {}
            _ if depth == 0 => return Some(at),
            _ => depth -= 1,
        }
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

    fn scalar(mut self, text: &str) -> Result<Node, String> {
        let expanded = self.text(text, 0)?;
        if self.references == 0 {
            return Ok(Node::Text(expanded));
        }
        if self.resolve.is_none() {
            return Ok(Node::Opaque(text.to_owned()));
        }
        let end = text.strip_prefix("${").and_then(closing);
        let is_one_reference = end.is_some_and(|end| end + "${}".len() == text.len());
        let parsed = is_one_reference.then(|| Node::parse(&expanded).ok());
        let meaning = parsed.flatten().unwrap_or(Node::Text(expanded.clone()));
        Ok(Node::Resolved {
            meaning: Box::new(meaning),
            with_files: (self.files > 0).then(|| text.to_owned()),
            text: expanded,
        })
    }

    fn text(&mut self, text: &str, depth: usize) -> Result<String, String> {
        if depth > DEPTH {
            return Err(format!(
                "references lead to more than {DEPTH} further references; is there a cycle?"
            ));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            if let Some(opened) = after.strip_prefix('{') {
                let end = closing(opened)
                    .ok_or_else(|| format!("`{text}` opens `${{` and never closes it"))?;
                let (inside, closed) = opened.split_at(end);
                self.references += 1;
                out.push_str(&self.reference(inside, depth)?);
                rest = closed.strip_prefix('}').unwrap_or(closed);
            } else {
                out.push('$');
                rest = after.strip_prefix('$').unwrap_or(after);
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
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.bytes().all(is_allowed)
        && !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
}
