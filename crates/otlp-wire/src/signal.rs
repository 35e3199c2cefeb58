//! The signals of OTLP, and what the specification calls them.

use crate::messages;
use crate::schema::Message;

/// What an OTLP request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
    /// Samples of profiles; their protocol is still in development.
    Profiles,
}

impl Signal {
    /// How many signals there are.
    pub const COUNT: usize = 4;

    /// Every signal, in the order of [`Signal::index`].
    pub const ALL: [Self; Self::COUNT] = [Self::Traces, Self::Metrics, Self::Logs, Self::Profiles];

    /// `traces`, `metrics`, `logs` or `profiles`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Profiles => "profiles",
        }
    }

    /// The name of the signal's items in the collector's metrics.
    pub fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metric_points",
            Self::Logs => "log_records",
            Self::Profiles => "profile_samples",
        }
    }

    /// Position in [`Signal::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The path of requests over HTTP (OTLP specification, "OTLP/HTTP Request").
    pub fn http_path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
            Self::Profiles => "/v1development/profiles",
        }
    }

    /// The path of requests over gRPC.
    pub fn grpc_path(self) -> &'static str {
        match self {
            Self::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
            Self::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Profiles => {
                "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
            }
        }
    }

    /// Whether concatenated requests form one request, and whether their resources may be edited.
    /// Profiles refer to the dictionary of their own request by index, so they stay as they are.
    pub fn is_mergeable(self) -> bool {
        self != Self::Profiles
    }

    /// The schema of a request.
    pub(crate) fn request(self) -> &'static Message {
        match self {
            Self::Traces => &messages::TRACES,
            Self::Metrics => &messages::METRICS,
            Self::Logs => &messages::LOGS,
            Self::Profiles => &messages::PROFILES,
        }
    }
}
