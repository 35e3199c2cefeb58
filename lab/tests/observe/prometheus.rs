//! A running Prometheus, and what it says.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testbed::parts::{self, Part};

use super::files;

/// How long is waited for what must happen; only a test that fails waits as long.
const PATIENCE: Duration = Duration::from_mins(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(500);
/// What durations of the rules become, so that a test needs no hours.
const WINDOW: &str = "[10s]";
const FOR: &str = "for: 2s";

/// A series that a query found: its labels and its value.
pub(crate) type Sample = (BTreeMap<String, String>, f64);

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    free.local_addr().unwrap().port()
}

/// The rules with short durations: ranges and how long a condition must hold. Thresholds stay as they are.
fn hasty(rules: &str) -> String {
    let lines = rules.lines().map(|line| match line.split_once("for: ") {
        Some((before, _)) if before.trim().is_empty() => format!("{before}{FOR}\n"),
        _ => with_short_ranges(line) + "\n",
    });
    lines.collect()
}

fn with_short_ranges(line: &str) -> String {
    let mut parts = line.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    let parts = parts.map(|part| match part.split_once(']') {
        Some((range, rest)) if range.starts_with(|next: char| next.is_ascii_digit()) => {
            format!("{WINDOW}{rest}")
        }
        _ => format!("[{part}"),
    });
    first + &parts.collect::<String>()
}

/// A body of an answer to a GET of HTTP/1.0, which no server sends in chunks.
pub(crate) fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: test\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    body.ok_or_else(|| std::io::Error::other(answer))
}

/// Waits until a check succeeds; it says what it has seen.
pub(crate) fn until<T>(what: &str, check: impl Fn() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match check() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < end, "never {what}: {seen}"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Prometheus with the rules, until it is dropped.
pub(crate) struct Prometheus {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
}

impl Prometheus {
    /// `scrape` is a configuration without global settings.
    pub(crate) fn start(scrape: &str) -> Self {
        let program = parts::ensure(Part::Prometheus).expect("Prometheus");
        let folder = std::env::temp_dir().join(format!("prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [config, rules, log, data] =
            ["config.yaml", "rules.yaml", "log", "data"].map(|name| folder.join(name));
        std::fs::write(&rules, hasty(&files::text(files::RULES))).unwrap();
        let global = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n",
            rules.display()
        );
        std::fs::write(&config, global + scrape).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let child = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).unwrap())
            .spawn()
            .expect("Prometheus runs");
        let prometheus = Self {
            child,
            address,
            folder,
        };
        until("ready", || {
            let answer = get(prometheus.address, "/-/ready");
            let answer = answer.map_err(|error| error.to_string())?;
            answer.contains("is Ready").then_some(()).ok_or(answer)
        });
        prometheus
    }

    fn api(&self, path: &str) -> Value {
        let answer = get(self.address, &format!("/api/v1/{path}")).expect("an answer");
        let answer: Value = serde_json::from_str(&answer).expect(&answer);
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// What a query finds now.
    pub(crate) fn query(&self, expr: &str) -> Vec<Sample> {
        let mut encoded = String::new();
        for byte in expr.bytes() {
            let _ = write!(encoded, "%{byte:02X}");
        }
        let data = self.api(&format!("query?query={encoded}"));
        let found = data["result"].as_array().unwrap().iter();
        found
            .map(|series| {
                let labels = serde_json::from_value(series["metric"].clone()).unwrap();
                let value = series["value"][1].as_str().unwrap();
                (labels, value.parse().unwrap())
            })
            .collect()
    }

    /// The alerts that fire, each with its labels. Their texts are complete.
    pub(crate) fn firing(&self) -> Vec<BTreeMap<String, String>> {
        let data = self.api("alerts");
        let alerts = data["alerts"].as_array().unwrap().iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing
            .map(|alert| {
                for text in ["summary", "description"] {
                    let text = alert["annotations"][text].as_str().unwrap();
                    assert!(
                        !text.contains("<no value>") && !text.contains("<error"),
                        "{alert}"
                    );
                }
                serde_json::from_value(alert["labels"].clone()).unwrap()
            })
            .collect()
    }

    /// Waits until an alert fires with these labels.
    pub(crate) fn until_firing(&self, alert: &str, labels: &[(&str, &str)]) {
        let begun = Instant::now();
        let is_it = |found: &BTreeMap<String, String>| {
            let has = |name: &str, value: &str| found.get(name).is_some_and(|is| is == value);
            has("alertname", alert) && labels.iter().all(|(name, value)| has(name, value))
        };
        until(&format!("{alert} {labels:?}"), || {
            let firing = self.firing();
            let fires = firing.iter().any(is_it);
            fires.then_some(()).ok_or_else(|| format!("{firing:#?}"))
        });
        println!("{alert} {labels:?} fires after {:?}", begun.elapsed());
    }

    /// Whether an alert fires now, with any labels.
    pub(crate) fn is_firing(&self, alert: &str) -> bool {
        self.firing()
            .iter()
            .any(|found| found["alertname"] == alert)
    }

    /// Waits until no alert fires.
    pub(crate) fn until_silent(&self) {
        let begun = Instant::now();
        until("silent", || {
            let firing = self.firing();
            let is_silent = firing.is_empty();
            is_silent
                .then_some(())
                .ok_or_else(|| format!("{firing:#?}"))
        });
        println!("no alert fires after {:?}", begun.elapsed());
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log"));
            println!("log of Prometheus:\n{}", log.unwrap_or_default());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn durations_of_rules_become_short_and_nothing_else_changes() {
    let rules = "  expr: rate(a{b=\"[x]\"}[10m]) > 300 and c[1h]\n  for: 24h\n  severity: x\n";
    let short = "  expr: rate(a{b=\"[x]\"}[10s]) > 300 and c[10s]\n  for: 2s\n  severity: x\n";
    assert_eq!(hasty(rules), short);
}
