//! The SDK's pipelines, as its documentation says to build them, and what is sent through them.

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _, Severity};
use opentelemetry::metrics::{Counter, MeterProvider as _};
use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use crate::counting::{Counting, Counts};
use crate::{Protocol, SignalKindName};

const SCOPE: &str = "rust-sdk";

/// The pipelines in use.
pub(crate) struct Signals {
    run: String,
    traces: Option<(SdkTracerProvider, SdkTracer)>,
    metrics: Option<(SdkMeterProvider, Counter<u64>)>,
    logs: Option<(SdkLoggerProvider, SdkLogger)>,
}

impl Signals {
    /// Starts the wanted pipelines.
    pub(crate) fn start(
        run: &str,
        protocol: Option<Protocol>,
        wanted: &[SignalKindName],
        counts: &Counts,
    ) -> Result<Self, ExporterBuildError> {
        let wants = |kind| wanted.contains(&kind);
        let traces = wants(SignalKindName::Traces).then(|| traces(protocol, counts));
        let metrics = wants(SignalKindName::Metrics).then(|| metrics(protocol));
        let logs = wants(SignalKindName::Logs).then(|| logs(protocol, counts));
        Ok(Self {
            run: run.to_owned(),
            traces: traces.transpose()?,
            metrics: metrics.transpose()?,
            logs: logs.transpose()?,
        })
    }

    /// Sends number `seq` of every signal.
    pub(crate) fn emit(&self, seq: u64, last: bool) {
        let number = i64::try_from(seq).unwrap_or(i64::MAX);
        if let Some((_, tracer)) = &self.traces {
            let mut span = tracer.start("work");
            span.set_attribute(KeyValue::new("app.run", self.run.clone()));
            span.set_attribute(KeyValue::new("app.seq", number));
            if last {
                span.set_attribute(KeyValue::new("app.last", true));
            }
            span.end();
        }
        if let Some((_, counter)) = &self.metrics {
            counter.add(1, &[KeyValue::new("app.run", self.run.clone())]);
        }
        if let Some((_, logger)) = &self.logs {
            let mut record = logger.create_log_record();
            record.set_severity_number(Severity::Info);
            record.set_body(AnyValue::from("worked"));
            record.add_attribute(Key::new("app.run"), self.run.clone());
            record.add_attribute(Key::new("app.seq"), number);
            if last {
                record.add_attribute(Key::new("app.last"), true);
            }
            logger.emit(record);
        }
    }

    /// Sends what is left, and waits until the other side has it.
    pub(crate) fn flush(&self) {
        complain([
            self.traces
                .as_ref()
                .map(|(provider, _)| provider.force_flush()),
            self.metrics
                .as_ref()
                .map(|(provider, _)| provider.force_flush()),
            self.logs
                .as_ref()
                .map(|(provider, _)| provider.force_flush()),
        ]);
    }

    /// Ends the pipelines.
    pub(crate) fn shut_down(self) {
        complain([
            self.traces.map(|(provider, _)| provider.shutdown()),
            self.metrics.map(|(provider, _)| provider.shutdown()),
            self.logs.map(|(provider, _)| provider.shutdown()),
        ]);
    }
}

fn complain(ends: [Option<OTelSdkResult>; 3]) {
    for error in ends.into_iter().flatten().filter_map(Result::err) {
        eprintln!("rust-sdk: the end was not clean: {error}");
    }
}

fn traces(
    protocol: Option<Protocol>,
    counts: &Counts,
) -> Result<(SdkTracerProvider, SdkTracer), ExporterBuildError> {
    let exporter = SpanExporter::builder();
    let exporter = match protocol {
        None => exporter.build(),
        Some(Protocol::Grpc) => exporter.with_tonic().build(),
        Some(Protocol::HttpProtobuf) => exporter.with_http().build(),
    }?;
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(Counting::new(exporter, counts.clone()))
        .build();
    let tracer = provider.tracer(SCOPE);
    Ok((provider, tracer))
}

fn metrics(
    protocol: Option<Protocol>,
) -> Result<(SdkMeterProvider, Counter<u64>), ExporterBuildError> {
    let exporter = MetricExporter::builder();
    let exporter = match protocol {
        None => exporter.build(),
        Some(Protocol::Grpc) => exporter.with_tonic().build(),
        Some(Protocol::HttpProtobuf) => exporter.with_http().build(),
    }?;
    let provider = SdkMeterProvider::builder()
        .with_periodic_exporter(exporter)
        .build();
    let counter = provider.meter(SCOPE).u64_counter("app.work").build();
    Ok((provider, counter))
}

fn logs(
    protocol: Option<Protocol>,
    counts: &Counts,
) -> Result<(SdkLoggerProvider, SdkLogger), ExporterBuildError> {
    let exporter = LogExporter::builder();
    let exporter = match protocol {
        None => exporter.build(),
        Some(Protocol::Grpc) => exporter.with_tonic().build(),
        Some(Protocol::HttpProtobuf) => exporter.with_http().build(),
    }?;
    let provider = SdkLoggerProvider::builder()
        .with_batch_exporter(Counting::new(exporter, counts.clone()))
        .build();
    let logger = provider.logger(SCOPE);
    Ok((provider, logger))
}
