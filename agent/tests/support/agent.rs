//! The agent as a separate process, configured, observed and stopped from outside.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PATIENCE, eventually};

/// Lines of an agent's log that a failed test prints.
const TAIL: usize = 60;

/// A running agent; killed when the test ends. A test that fails prints the end of its log, and its metrics if it
/// still runs.
pub struct Agent {
    child: Child,
    pub ports: Vec<SocketAddr>,
    pub health: SocketAddr,
    pub metrics: SocketAddr,
    log: Arc<Mutex<Vec<Value>>>,
    reader: Option<JoinHandle<()>>,
    own_config: Option<PathBuf>,
}

/// The parts of a configuration that tests vary.
pub struct Setup {
    pub receiver: String,
    pub processors: String,
    pub pipeline_processors: String,
    pub exporter: String,
    pub queue: String,
    pub retry: String,
    /// Other fields of `sending_queue`.
    pub sending_queue: String,
    /// Fields of `file_storage`.
    pub storage: Option<String>,
    pub env: Vec<(String, String)>,
    /// Readers of metrics.
    pub readers: String,
    /// A file that the agent sees in place of another.
    pub replaced: Option<(PathBuf, String)>,
}

impl Setup {
    /// Forwards by gRPC.
    pub fn grpc(upstream: SocketAddr) -> Self {
        Self::to("otlp_grpc", upstream)
    }

    /// Forwards by HTTP.
    pub fn http(upstream: SocketAddr) -> Self {
        Self::to("otlp_http", upstream)
    }

    fn to(kind: &str, upstream: SocketAddr) -> Self {
        Self::to_with_timeout(kind, upstream, "30s")
    }

    pub fn to_with_timeout(kind: &str, upstream: SocketAddr, timeout: &str) -> Self {
        Self {
            receiver: "grpc: {endpoint: '127.0.0.1:0'}, http: {endpoint: '127.0.0.1:0'}".into(),
            processors: "memory_limiter: {check_interval: 1s, limit_mib: 64}".into(),
            pipeline_processors: "memory_limiter".into(),
            exporter: format!("{kind}: {{endpoint: 'http://{upstream}', timeout: {timeout}"),
            queue: "flush_timeout: 20ms, sizer: bytes, min_size: 3145728, max_size: 3145728".into(),
            retry: "initial_interval: 50ms, max_interval: 200ms".into(),
            sending_queue: String::new(),
            storage: None,
            env: Vec::new(),
            readers: "{pull: {exporter: {prometheus: {host: 127.0.0.1, port: 0}}}}".into(),
            replaced: None,
        }
    }

    /// Forwards over TLS to a port of this machine.
    pub fn secure(kind: &str, upstream: SocketAddr, tls: &str) -> Self {
        let port = upstream.port();
        let mut setup = Self::to(kind, upstream);
        setup.exporter =
            format!("{kind}: {{endpoint: 'https://localhost:{port}', timeout: 30s, tls: {{{tls}}}");
        setup
    }

    /// More fields of the exporter.
    pub fn exporter(mut self, fields: &str) -> Self {
        self.exporter.push_str(", ");
        self.exporter.push_str(fields);
        self
    }

    pub fn batch(mut self, fields: &str) -> Self {
        self.queue = fields.into();
        self
    }

    pub fn retry(mut self, fields: &str) -> Self {
        self.retry = fields.into();
        self
    }

    pub fn receiver(mut self, protocols: &str) -> Self {
        self.receiver = protocols.into();
        self
    }

    pub fn processors(mut self, definitions: &str, used: &str) -> Self {
        self.processors = definitions.into();
        self.pipeline_processors = used.into();
        self
    }

    /// More fields of `sending_queue`.
    pub fn sending_queue(mut self, fields: &str) -> Self {
        self.sending_queue = format!("{fields}, ");
        self
    }

    /// Keeps queues in a directory.
    pub fn storage(mut self, directory: &Path, fields: &str) -> Self {
        let directory = directory.display();
        self.storage = Some(format!("directory: '{directory}', {fields}"));
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Pushes the agent's own metrics, too.
    pub fn push(mut self, periodic: &str) -> Self {
        self.readers = format!("{}, {{periodic: {{{periodic}}}}}", self.readers);
        self
    }

    /// Lets the agent see `file` at `path`. Needs root.
    pub fn with_file(mut self, file: &Path, path: &str) -> Self {
        self.replaced = Some((file.into(), path.into()));
        self
    }

    pub fn yaml(&self) -> String {
        let exporter_id = self.exporter.split(':').next().unwrap();
        let pipeline = format!(
            "{{receivers: [otlp], processors: [{}], exporters: [{exporter_id}]}}",
            self.pipeline_processors
        );
        let queue = if self.exporter.contains("sending_queue") {
            String::new()
        } else {
            let storage = self
                .storage
                .as_ref()
                .map_or("", |_| "storage: file_storage, ");
            format!(
                ", sending_queue: {{{storage}{}batch: {{{}}}}}",
                self.sending_queue, self.queue
            )
        };
        let storage = self.storage.as_ref().map_or_else(String::new, |fields| {
            format!(", file_storage: {{{fields}}}")
        });
        let storage_id = self.storage.as_ref().map_or("", |_| ", file_storage");
        format!(
            "receivers: {{otlp: {{protocols: {{{}}}}}}}\n\
             processors: {{{}}}\n\
             exporters: {{{}{queue}, retry_on_failure: {{{}}}}}}}\n\
             extensions: {{health_check: {{endpoint: '127.0.0.1:0'}}{storage}}}\n\
             service:\n  extensions: [health_check{storage_id}]\n  \
             pipelines: {{traces: {pipeline}, metrics: {pipeline}, logs: {pipeline}}}\n  \
             telemetry: {{logs: {{encoding: json}}, metrics: {{readers: [{}]}}}}\n",
            self.receiver, self.processors, self.exporter, self.retry, self.readers
        )
    }

    /// Starts an agent and waits until it is ready.
    pub fn start(&self) -> Agent {
        self.start_with(&self.yaml())
    }

    /// The same with a configuration of its own.
    pub fn start_with(&self, yaml: &str) -> Agent {
        let file = temporary("config.yaml");
        std::fs::write(&file, yaml).unwrap();
        let mut agent = self.start_from(&file);
        agent.own_config = Some(file);
        agent
    }

    /// The same from a file that stays.
    pub fn start_from(&self, file: &Path) -> Agent {
        let mut command = match &self.replaced {
            None => Command::new(crate::program()),
            Some((replacement, path)) => {
                let mount = r#"mount --bind "$1" "$2" && shift 2 && exec "$@""#;
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", mount, "sh"]);
                command.arg(replacement).arg(path).arg(crate::program());
                command
            }
        };
        command
            .arg("--config")
            .arg(file)
            .envs(self.env.iter().cloned());
        Agent::spawn(command)
    }
}

impl Setup {
    /// The same for an agent that finds these names in `/etc/hosts`. Needs root.
    pub fn start_with_hosts(&self, hosts: &str) -> Agent {
        let [file, config] = ["hosts", "config.yaml"].map(temporary);
        std::fs::write(&file, hosts).unwrap();
        std::fs::write(&config, self.yaml()).unwrap();
        let mut command = Command::new("unshare");
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        command
            .args(["--mount", "sh", "-c", script])
            .arg(&file)
            .arg(crate::program())
            .arg("--config")
            .arg(&config)
            .envs(self.env.iter().cloned());
        let mut agent = Agent::spawn(command);
        std::fs::remove_file(file).unwrap();
        agent.own_config = Some(config);
        agent
    }
}

/// A unique path.
pub fn temporary(name: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!(
        "otelagent-test-{}-{number}-{name}",
        std::process::id()
    ))
}

impl Agent {
    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let reader = std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.map_while(Result::ok) {
                    let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                    log.lock().unwrap().push(value);
                }
            }
        });
        let find = |message: &str, field: &str, value: Option<&str>| {
            let log = log.lock().unwrap();
            log.iter()
                .find(|line| {
                    line["message"] == message && value.is_none_or(|value| line["topic"] == value)
                })
                .map(|line| line[field].as_str().unwrap().to_owned())
        };
        let deadline = Instant::now() + PATIENCE;
        let otlp = loop {
            let started = || find("started", "otlp", None);
            if let Some(otlp) = find("ready", "otlp", None).or_else(started) {
                break otlp;
            }
            assert!(
                Instant::now() < deadline,
                "the agent does not start: {:?}",
                log.lock().unwrap()
            );
            std::thread::sleep(Duration::from_millis(2));
        };
        // Unix sockets are none.
        let ports = otlp
            .split(',')
            .filter_map(|address| address.parse().ok())
            .collect();
        let health = find("listening", "address", Some("health"))
            .unwrap()
            .parse()
            .unwrap();
        // Nobody listens on this port, if metrics are only pushed.
        let metrics = find("listening", "address", Some("metrics"));
        let metrics = metrics.map_or((Ipv4Addr::LOCALHOST, 1).into(), |at| at.parse().unwrap());
        Self {
            child,
            ports,
            health,
            metrics,
            log,
            reader: Some(reader),
            own_config: None,
        }
    }

    pub fn port(&self) -> SocketAddr {
        self.ports[0]
    }

    /// Resident memory in bytes, without what is shared with files.
    pub fn rss(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let number = line.unwrap().split_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap() * 1024
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Memory in use now, in KiB.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS")
    }

    /// The peak of memory in use, in KiB.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM")
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Sends SIGHUP.
    pub fn hang_up(&self) {
        self.signal("-HUP");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args([name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the end; returns the exit code and the whole log.
    pub fn wait(mut self) -> (i32, Vec<Value>) {
        let status = self.child.wait().unwrap();
        self.reader.take().unwrap().join().unwrap();
        // Shown only if the test fails, which it may do after this agent is gone.
        self.print_log();
        let log = self.log.lock().unwrap().clone();
        (status.code().unwrap_or(-1), log)
    }

    /// Every log line so far with this message.
    pub fn logged(&self, message: &str) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        log.iter()
            .filter(|line| line["message"] == message)
            .cloned()
            .collect()
    }

    /// The same once there is one: what the agent writes is read later than what it counts.
    pub async fn until_logged(&self, message: &str) -> Vec<Value> {
        eventually(message, || !self.logged(message).is_empty()).await;
        self.logged(message)
    }

    fn print_log(&self) {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = log.len().saturating_sub(TAIL);
        println!("log of agent {}, after {skipped} lines:", self.child.id());
        for line in log.iter().skip(skipped) {
            println!("  {line}");
        }
    }

    fn print_metrics(&self) {
        println!("metrics of agent {}, except zeros:", self.child.id());
        match try_get(self.metrics, "/metrics", Duration::from_secs(5)) {
            Ok((_, text)) => text
                .lines()
                .filter(|line| !line.starts_with('#') && !line.ends_with(" 0"))
                .for_each(|line| println!("  {line}")),
            Err(error) => println!("  none: {error}"),
        }
    }

    /// Lines logged so far.
    pub fn lines(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// All metrics, by name with labels.
    pub fn metrics(&self) -> BTreeMap<String, u64> {
        let text = get(self.metrics, "/metrics").1;
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .map(|(name, value)| (name.to_owned(), whole(value)))
            .collect()
    }

    /// The sum of all series of a metric that carry `label`.
    pub fn metric(&self, name: &str, label: &str) -> u64 {
        sum(&self.metrics(), name, label)
    }

    /// accepted + recovered − delivered − in queue − lost, of one kind of item, at one moment.
    pub fn books(&self, items: &str) -> i128 {
        let metrics = self.metrics();
        let sum = |name: String| i128::from(sum(&metrics, &name, ""));
        sum(format!("otelcol_receiver_accepted_{items}_total"))
            + sum(format!("otelagent_recovered_{items}_total"))
            - sum(format!("otelcol_exporter_sent_{items}_total"))
            - sum(format!("otelagent_queue_{items}"))
            - sum(format!("otelagent_lost_{items}_total"))
    }
}

/// The whole part of a value; below zero counts as the largest number there is.
fn whole(value: &str) -> u64 {
    let whole = value.split('.').next().unwrap();
    whole.parse().unwrap_or(u64::MAX)
}

fn sum(metrics: &BTreeMap<String, u64>, name: &str, label: &str) -> u64 {
    metrics
        .iter()
        .filter(|(key, _)| {
            key.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
                && key.contains(label)
        })
        .map(|(_, value)| value)
        .sum()
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Whoever has waited for the end has printed the log.
        if std::thread::panicking() && self.reader.is_some() {
            self.print_metrics();
            self.print_log();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Not earlier: the agent would notice and log that its configuration is gone.
        if let Some(file) = self.own_config.take() {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A plain GET of HTTP/1.0, to which no server answers in chunks: status and body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    try_get(address, path, PATIENCE).unwrap()
}

/// The same, with what went wrong.
fn try_get(address: SocketAddr, path: &str, patience: Duration) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(patience))?;
    write!(
        stream,
        "GET {path} HTTP/1.0\r\nhost: test\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let body = answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned());
    status
        .zip(body)
        .ok_or_else(|| io::Error::other(format!("no answer of HTTP: {answer:?}")))
}
