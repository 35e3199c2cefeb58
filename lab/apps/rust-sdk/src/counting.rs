//! An exporter that counts what another one reports, and changes nothing.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogBatch, LogExporter};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// How many spans and log records the other side acknowledged, and how many spans the SDK gave up on.
#[derive(Clone, Default)]
pub(crate) struct Counts(Arc<[AtomicU64; 3]>);

impl Counts {
    /// Spans that the other side acknowledged.
    pub(crate) fn exported(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Spans that the SDK gave up on after its own retries.
    pub(crate) fn failed(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }

    /// Log records that the other side acknowledged.
    pub(crate) fn exported_logs(&self) -> u64 {
        self.0[2].load(Ordering::Relaxed)
    }

    fn add(&self, spans: u64, delivered: bool) {
        self.0[usize::from(!delivered)].fetch_add(spans, Ordering::Relaxed);
    }
}

/// Counts what `inner` reports.
pub(crate) struct Counting<E> {
    inner: E,
    counts: Counts,
}

impl<E> Counting<E> {
    /// Counts in `counts` what `inner` reports.
    pub(crate) fn new(inner: E, counts: Counts) -> Self {
        Self { inner, counts }
    }
}

impl<E: fmt::Debug> fmt::Debug for Counting<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

impl<E: SpanExporter> SpanExporter for Counting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let result = self.inner.export(batch).await;
        self.counts.add(spans, result.is_ok());
        if let Err(error) = &result {
            eprintln!("rust-sdk: {spans} spans were not exported: {error}");
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: LogExporter> LogExporter for Counting<E> {
    async fn export(&self, batch: LogBatch<'_>) -> OTelSdkResult {
        let records = batch.iter().count() as u64;
        let result = self.inner.export(batch).await;
        if let Err(error) = &result {
            eprintln!("rust-sdk: {records} log records were not exported: {error}");
        } else {
            self.counts.0[2].fetch_add(records, Ordering::Relaxed);
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
