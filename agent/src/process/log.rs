//! The log: one subscriber for the process, with a changeable level. A thread writes its lines: if their reader
//! stops, a full pipe must not stop everything else.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing::warn;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogEncoding, LogLevel, LogOutput, Telemetry};
use crate::thread;

/// The number of lines that may wait for their reader.
const WAITING: usize = 256;

/// How long the end of the process waits for them.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The handle to change the level later, and to end the log.
pub(super) struct Log {
    level: reload::Handle<LevelFilter, Registry>,
    waiting: Arc<AtomicUsize>,
}

impl Log {
    pub(super) fn set_level(&self, level: LogLevel) {
        // Fails only after the end of the subscriber, which lives as long as the process.
        let _ = self.level.reload(filter(level));
    }

    /// Waits until all lines are written, for a moment.
    pub(super) fn end(&self) {
        let until = Instant::now() + LAST_LINES;
        while self.waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}

pub(super) fn start(telemetry: &Telemetry) -> Log {
    let (level, handle) = reload::Layer::new(filter(telemetry.log_level));
    let (queue, lines) = LineQueue::new();
    let (output, writer) = (telemetry.log_output, queue.clone());
    let started = thread::start("log", move || match output {
        LogOutput::Stderr => writer.write_lines(&lines, io::stderr()),
        LogOutput::Stdout => writer.write_lines(&lines, io::stdout()),
    });
    let waiting = Arc::clone(&queue.waiting);
    let writer = match (started, output) {
        (Ok(_), _) => BoxMakeWriter::new(move || queue.clone()),
        // Without a thread, lines are written at once.
        (Err(_), LogOutput::Stderr) => BoxMakeWriter::new(io::stderr),
        (Err(_), LogOutput::Stdout) => BoxMakeWriter::new(io::stdout),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .with_writer(writer);
    // Only our own lines: otherwise a client that violates HTTP/2 could fill the log.
    let ours = Targets::new().with_target(env!("CARGO_CRATE_NAME"), LevelFilter::TRACE);
    let registry = tracing_subscriber::registry().with(level).with(ours);
    match telemetry.log_encoding {
        LogEncoding::Json => registry.with(lines.json().flatten_event(true)).init(),
        LogEncoding::Console => registry.with(lines).init(),
    }
    Log {
        level: handle,
        waiting,
    }
}

/// Takes lines to the thread that writes them; drops them if too many wait.
#[derive(Clone)]
struct LineQueue {
    lines: SyncSender<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    left_out: Arc<AtomicU64>,
}

impl LineQueue {
    fn new() -> (Self, Receiver<Vec<u8>>) {
        let (lines, queue) = sync_channel(WAITING);
        let waiting = Arc::default();
        let left_out = Arc::default();
        let taken = Self {
            lines,
            waiting,
            left_out,
        };
        (taken, queue)
    }

    fn write_lines(&self, lines: &Receiver<Vec<u8>>, mut output: impl Write) {
        for line in lines {
            // There is no other place to report a failure.
            let _ = output.write_all(&line).and_then(|()| output.flush());
            let is_last = self.waiting.fetch_sub(1, Ordering::AcqRel) == 1;
            let left_out = &self.left_out;
            if is_last && left_out.load(Ordering::Relaxed) > 0 {
                let left_out = left_out.swap(0, Ordering::Relaxed);
                warn!(
                    left_out,
                    "lines of the log are missing, since nothing has read it for a while"
                );
            }
        }
    }
}

impl Write for LineQueue {
    /// Takes one line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        if self.lines.try_send(line.to_vec()).is_err() {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
