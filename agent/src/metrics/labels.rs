//! The labels of metrics, and what their values mean.

use super::counters::{FailedAttempt, Lost, Push, Refused, Reload, Transport};

/// A label of a metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Label {
    pub(super) name: &'static str,
    pub(super) values: Values,
}

/// The values of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Any, of this meaning.
    Any(&'static str),
    /// One of these, each with its meaning.
    OneOf(&'static [(&'static str, &'static str)]),
}

const fn any(name: &'static str, meaning: &'static str) -> Label {
    Label {
        name,
        values: Values::Any(meaning),
    }
}

const fn one_of(name: &'static str, values: &'static [(&'static str, &'static str)]) -> Label {
    Label {
        name,
        values: Values::OneOf(values),
    }
}

const OF_SIGNAL: &str = "`traces`, `metrics`, `logs` or `profiles`";

pub(super) const DATA_TYPE: Label = any("data_type", OF_SIGNAL);
pub(super) const SIGNAL: Label = any("signal", OF_SIGNAL);
pub(super) const SIGNAL_OF_PROCESSOR: Label = any("otel_signal", OF_SIGNAL);
pub(super) const RECEIVER: Label = any("receiver", "id of the receiver");
pub(super) const PROCESSOR: Label = any("processor", "id of the processor");
pub(super) const EXPORTER: Label = any("exporter", "id of the exporter");
/// Of metrics that are not of one signal.
pub(super) const UPSTREAM: Label = any(
    "exporter",
    "id of the exporter, with the signal if it has an endpoint for it alone",
);
pub(super) const SENDER: Label = any(
    "sender",
    "IP address, or `local` for the loopback addresses and Unix sockets",
);
pub(super) const FINGERPRINT: Label = any("fingerprint", "FNV-1a (64 bits) of the file in use");
pub(super) const VERSION_LABEL: Label = any("version", "version of the agent");
pub(super) const TRANSPORT: Label = one_of("transport", Transport::MEANINGS);
pub(super) const REFUSED: Label = one_of("reason", Refused::MEANINGS);
pub(super) const LOST: Label = one_of("reason", Lost::MEANINGS);
pub(super) const FAILED_ATTEMPT: Label = one_of("reason", FailedAttempt::MEANINGS);
pub(super) const RELOAD: Label = one_of("result", Reload::MEANINGS);
pub(super) const PUSH: Label = one_of("result", Push::MEANINGS);
pub(super) const OUTCOME: Label = one_of(
    "outcome",
    &[
        ("success", "It was acknowledged."),
        ("refused", "It was refused."),
    ],
);
/// Only while the value is 1.
pub(super) const STORAGE: Label = one_of(
    "reason",
    &[
        ("missing", "The directory does not exist."),
        ("taken", "Another process uses the directory."),
        ("vanished", "The files were removed."),
        ("stalled", "The disk has not answered for a second."),
        ("full", "The disk is full."),
        ("read_only", "The file system is read-only."),
        ("denied", "The agent may not write there."),
        ("io", "Any other error of the disk."),
    ],
);
