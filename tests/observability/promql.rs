//! What a query of Prometheus names: metrics, labels and values. Whether it is a query at all, promtool says.

use std::collections::BTreeSet;

/// A selector: the name of a metric and its matchers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selector {
    pub(super) metric: String,
    /// Labels, each with the values that are compared with it.
    pub(super) matchers: Vec<(String, Vec<String>)>,
}

/// The names in a query.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) selectors: Vec<Selector>,
    /// Labels that results are grouped or matched by.
    pub(super) grouping: BTreeSet<String>,
    /// Labels that the query makes itself.
    pub(super) made: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Sign(char),
}

const GROUPING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "bool", "offset"];

fn tokens(query: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = query.chars().peekable();
    while let Some(next) = rest.next() {
        if next == '"' {
            let mut text = String::new();
            while let Some(next) = rest.next().filter(|next| *next != '"') {
                text.push(next);
            }
            tokens.push(Token::Text(text));
        } else if next == '[' {
            // A range.
            let _ = rest.by_ref().find(|next| *next == ']');
        } else if next.is_ascii_alphabetic() || next == '_' {
            let mut word = String::from(next);
            while let Some(next) =
                rest.next_if(|next| next.is_ascii_alphanumeric() || "_:".contains(*next))
            {
                word.push(next);
            }
            tokens.push(Token::Word(word));
        } else if next.is_ascii_digit() {
            while rest
                .next_if(|next| next.is_ascii_alphanumeric() || *next == '.')
                .is_some()
            {}
        } else if !next.is_whitespace() {
            tokens.push(Token::Sign(next));
        }
    }
    tokens
}

/// The names in a query.
pub(super) fn names(query: &str) -> Names {
    let tokens = tokens(query);
    let mut names = Names::default();
    let mut at = 0;
    while at < tokens.len() {
        let next = tokens.get(at + 1);
        match &tokens[at] {
            Token::Word(word) if GROUPING.contains(&word.as_str()) => {
                assert_eq!(next, Some(&Token::Sign('(')), "{query}");
                let listed = tokens[at + 1..].iter();
                let listed = listed.take_while(|token| **token != Token::Sign(')'));
                let listed: Vec<&Token> = listed.collect();
                at += listed.len();
                let labels = listed.into_iter().filter_map(|token| match token {
                    Token::Word(label) => Some(label.clone()),
                    _ => None,
                });
                names.grouping.extend(labels);
            }
            Token::Word(word) if OPERATORS.contains(&word.as_str()) => {}
            // An aggregation that names its labels first.
            Token::Word(_) if next.is_some_and(is_grouping) => {}
            Token::Word(word) if next == Some(&Token::Sign('(')) => {
                names.made.extend(made(word, &tokens[at + 1..]));
            }
            Token::Word(word) => {
                let mut matchers = Vec::new();
                if next == Some(&Token::Sign('{')) {
                    let inside = tokens[at + 2..].iter();
                    let inside = inside.take_while(|token| **token != Token::Sign('}'));
                    let inside: Vec<Token> = inside.cloned().collect();
                    at += inside.len() + 2;
                    matchers = read_matchers(&inside);
                }
                let metric = word.clone();
                names.selectors.push(Selector { metric, matchers });
            }
            _ => {}
        }
        at += 1;
    }
    names
}

fn is_grouping(token: &Token) -> bool {
    matches!(token, Token::Word(word) if ["by", "without"].contains(&word.as_str()))
}

/// The label that a call makes, if it makes one: the first text among its own arguments.
fn made(function: &str, call: &[Token]) -> Option<String> {
    if !["label_replace", "label_join"].contains(&function) {
        return None;
    }
    let mut depth = 0;
    for token in call {
        match token {
            Token::Sign('(' | '{') => depth += 1,
            Token::Sign(')' | '}') => depth -= 1,
            Token::Text(label) if depth == 1 => return Some(label.clone()),
            _ => {}
        }
    }
    None
}

fn read_matchers(inside: &[Token]) -> Vec<(String, Vec<String>)> {
    let mut matchers: Vec<(String, Vec<String>)> = Vec::new();
    for token in inside {
        match token {
            Token::Word(label) => matchers.push((label.clone(), Vec::new())),
            Token::Text(values) => {
                let last = matchers.last_mut().expect("a label before its value");
                last.1.extend(values.split('|').map(str::to_owned));
            }
            Token::Sign(_) => {}
        }
    }
    matchers
}

#[test]
fn names_of_a_query_are_found() {
    let query = r#"sum by (pod, signal) (label_replace(rate(a_b{x="1", y=~"2|3"}[5m]), "signal", "s", "", "")) > 0.5
        unless on (pod) c{z!=""} == 1 or absent(d == 1)"#;
    let found = names(query);
    let selector = |metric: &str, matchers: &[(&str, &[&str])]| Selector {
        metric: metric.into(),
        matchers: matchers
            .iter()
            .map(|(label, values)| {
                let values = values.iter().map(|value| (*value).to_owned());
                ((*label).to_owned(), values.collect())
            })
            .collect(),
    };
    let expected = Names {
        selectors: vec![
            selector("a_b", &[("x", &["1"]), ("y", &["2", "3"])]),
            selector("c", &[("z", &[""])]),
            selector("d", &[]),
        ],
        grouping: ["pod", "signal"].map(str::to_owned).into(),
        made: ["signal".to_owned()].into(),
    };
    assert_eq!(found, expected);
}
