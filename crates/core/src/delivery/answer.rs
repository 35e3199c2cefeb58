//! What one agent answers at `/delivery`.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Longest text that is taken of an answer, in characters.
const MAX_TEXT: usize = 200;
/// Most reasons that are taken of one answer.
const MAX_REASONS: usize = 2;

/// What an agent says of its delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryAnswer {
    /// The upstream has taken what was sent last.
    Delivers,
    /// Nothing has been sent yet.
    Idle,
    /// The last attempts failed, but not for long enough to be sure.
    Undecided,
    /// What was taken has not been delivered for a minute, for this reason.
    Fails(String),
}

/// What an agent says of its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConfigurationWord {
    /// Fingerprint of the one that it runs.
    pub runs: String,
    /// Where it finds mistakes in the one that it was given, if it refuses that.
    pub refuses: Option<String>,
}

/// Everything that is taken of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAnswer {
    /// Whether it delivers.
    pub delivery: DeliveryAnswer,
    /// Its configuration; agents of earlier releases say nothing of it.
    pub configuration: Option<ConfigurationWord>,
}

#[derive(Deserialize)]
struct AnswerBody {
    status: String,
    #[serde(default)]
    config: Option<ConfigState>,
    #[serde(default)]
    problems: Vec<String>,
    /// By name of the exporter.
    delivery: BTreeMap<String, ExporterState>,
}

#[derive(Deserialize)]
struct ConfigState {
    fingerprint: String,
    #[serde(default)]
    refused: Option<String>,
}

#[derive(Deserialize)]
struct ExporterState {
    state: String,
    #[serde(default)]
    error: Option<String>,
}

impl AgentAnswer {
    /// Reads an answer: its HTTP status and its body.
    ///
    /// # Errors
    /// If the bundled agent gives no such answer.
    pub fn read(status: u16, body: &[u8]) -> Result<Self, String> {
        let unexpected = || format!("HTTP status {status}, and no answer of the bundled agent");
        let body: AnswerBody = serde_json::from_slice(body).map_err(|_| unexpected())?;
        let delivery = match (status, body.status.as_str()) {
            (200, "delivering") => body.within_patience(),
            (503, "failing") => DeliveryAnswer::Fails(body.why()),
            _ => return Err(unexpected()),
        };
        let configuration = body.config.map(|config| ConfigurationWord {
            runs: clean(&config.fingerprint),
            refuses: config.refused.map(|at| clean(&at)),
        });
        Ok(Self {
            delivery,
            configuration,
        })
    }
}

impl AnswerBody {
    fn within_patience(&self) -> DeliveryAnswer {
        let has = |state: &str| self.delivery.values().any(|of| of.state == state);
        if has("failing") {
            DeliveryAnswer::Undecided
        } else if has("ok") {
            DeliveryAnswer::Delivers
        } else {
            DeliveryAnswer::Idle
        }
    }

    /// The upstream's errors, else what the agent calls its problems.
    fn why(&self) -> String {
        let errors = self.delivery.iter().filter_map(|(exporter, of)| {
            let error = of.error.as_ref().filter(|_| of.state == "failing")?;
            Some(clean(&format!("{exporter}: {error}")))
        });
        let problems = self.problems.iter().map(|problem| clean(problem));
        let errors: Vec<String> = errors.take(MAX_REASONS).collect();
        let reasons = if errors.is_empty() {
            problems.take(MAX_REASONS).collect()
        } else {
            errors
        };
        match reasons.join("; ") {
            none if none.is_empty() => "the agent gives no reason".into(),
            some => some,
        }
    }
}

/// Text of bounded length on one line.
fn clean(text: &str) -> String {
    let words = text.split(|char: char| char.is_whitespace() || char.is_control());
    let line: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    line.join(" ").chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(status: u16, body: &Value) -> Result<DeliveryAnswer, String> {
        let answer = AgentAnswer::read(status, body.to_string().as_bytes())?;
        Ok(answer.delivery)
    }

    #[test]
    fn answer_is_read_by_what_exporters_have_done() {
        let of = |states: &[&str]| {
            let exporters = states.iter().enumerate();
            let exporters = exporters.map(|(n, state)| (n.to_string(), json!({"state": state})));
            let exporters: serde_json::Map<String, Value> = exporters.collect();
            read(
                200,
                &json!({"status": "delivering", "delivery": exporters, "queue": {}}),
            )
            .unwrap()
        };
        assert_eq!(of(&["ok", "idle"]), DeliveryAnswer::Delivers);
        assert_eq!(of(&["idle"]), DeliveryAnswer::Idle);
        assert_eq!(of(&[]), DeliveryAnswer::Idle);
        assert_eq!(of(&["ok", "failing"]), DeliveryAnswer::Undecided);
    }

    #[test]
    fn failure_has_the_upstreams_error_or_else_the_agents_problems() {
        let exporter = json!({"state": "failing", "seconds": 61, "error": "HTTP status 401: no\u{1b}[31m\ntoken"});
        let body = json!({"status": "failing", "problems": ["x"], "delivery": {"otlp_http": exporter, "b": {"state": "ok"}}});
        let why = "otlp_http: HTTP status 401: no [31m token";
        assert_eq!(read(503, &body), Ok(DeliveryAnswer::Fails(why.into())));
        let body = json!({"status": "failing", "problems": ["traces are waiting"], "delivery": {"otlp_http": {"state": "ok"}}});
        let why = "traces are waiting";
        assert_eq!(read(503, &body), Ok(DeliveryAnswer::Fails(why.into())));
    }

    #[test]
    fn lies_are_cut_or_no_answer() {
        let long = json!({"status": "failing", "delivery": {"a": {"state": "failing", "error": "x".repeat(50_000)}}});
        let Ok(DeliveryAnswer::Fails(why)) = read(503, &long) else {
            panic!("a failure")
        };
        assert_eq!(why.chars().count(), MAX_TEXT);
        for (status, body) in [
            (200, json!({"status": "failing", "delivery": {}})),
            (503, json!({"status": "delivering", "delivery": {}})),
            (200, json!({"status": "Server available", "uptime": "1s"})),
            (404, json!("")),
            (200, json!({"status": ["delivering"], "delivery": 3})),
        ] {
            let why = read(status, &body).unwrap_err();
            assert!(why.starts_with(&format!("HTTP status {status}")), "{why}");
        }
        let nested = "[".repeat(10_000);
        assert!(AgentAnswer::read(200, nested.as_bytes()).is_err());
    }

    #[test]
    fn agent_says_which_configuration_it_runs_and_where_it_refuses_another() {
        let word = |config: &Value| {
            let body = json!({"status": "delivering", "delivery": {}, "config": config});
            let answer = AgentAnswer::read(200, body.to_string().as_bytes()).unwrap();
            answer.configuration
        };
        assert_eq!(word(&Value::Null), None, "of an earlier release");
        let runs = word(&json!({"fingerprint": "00c0"})).unwrap();
        assert_eq!((runs.runs.as_str(), runs.refuses), ("00c0", None));
        let refuses = word(&json!({"fingerprint": "00c0", "refused": "exporters\n.a"})).unwrap();
        assert_eq!(refuses.refuses.as_deref(), Some("exporters .a"));
        let long = word(&json!({"fingerprint": "0".repeat(50_000)})).unwrap();
        assert_eq!(long.runs.len(), MAX_TEXT);
    }
}
