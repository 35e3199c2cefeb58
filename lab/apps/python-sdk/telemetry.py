"""The SDK's pipelines, as its documentation says to build them, and what is sent through them."""

import sys
from dataclasses import dataclass

from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

SCOPE = "python-sdk"
SIGNALS = ("traces", "metrics", "logs")
PROTOCOLS = ("grpc", "http/protobuf")


@dataclass
class Counts:
    """How many spans and log records the other side acknowledged, and how many spans the SDK gave up on after
    its own retries."""

    exported: int = 0
    exported_logs: int = 0
    failed: int = 0


class Telemetry:
    """The pipelines in use."""

    def __init__(self, run, protocol, signals, counts):
        self._run = run
        self._tracer = self._counter = self._logger = None
        self._ends = []
        grpc = protocol == "grpc"
        if "traces" in signals:
            exporter = (grpc_traces if grpc else http_traces).OTLPSpanExporter()
            provider = TracerProvider()
            provider.add_span_processor(BatchSpanProcessor(CountingSpans(exporter, counts)))
            self._tracer = provider.get_tracer(SCOPE)
            self._ends.append(provider)
        if "metrics" in signals:
            exporter = (grpc_metrics if grpc else http_metrics).OTLPMetricExporter()
            provider = MeterProvider([PeriodicExportingMetricReader(exporter)])
            self._counter = provider.get_meter(SCOPE).create_counter("app.work")
            self._ends.append(provider)
        if "logs" in signals:
            exporter = (grpc_logs if grpc else http_logs).OTLPLogExporter()
            provider = LoggerProvider()
            provider.add_log_record_processor(BatchLogRecordProcessor(CountingLogs(exporter, counts)))
            self._logger = provider.get_logger(SCOPE)
            self._ends.append(provider)

    def emit(self, number, last):
        """Sends one of every signal, with its number."""
        attributes = {"app.run": self._run, "app.seq": number}
        if last:
            attributes["app.last"] = True
        if self._tracer:
            self._tracer.start_span("work", attributes=attributes).end()
        if self._counter:
            self._counter.add(1, {"app.run": self._run})
        if self._logger:
            self._logger.emit(severity_number=SeverityNumber.INFO, body="worked", attributes=attributes)

    def finish(self):
        """Sends what is left, and ends."""
        for provider in self._ends:
            if not provider.force_flush():
                print("python-sdk: the end was not clean", file=sys.stderr)
            provider.shutdown()


class CountingSpans(SpanExporter):
    """An exporter that counts what another one reports, and changes nothing."""

    def __init__(self, inner, counts):
        self._inner = inner
        self._counts = counts

    def export(self, spans):
        result = self._inner.export(spans)
        if result is SpanExportResult.SUCCESS:
            self._counts.exported += len(spans)
        else:
            self._counts.failed += len(spans)
            print(f"python-sdk: {len(spans)} spans were not exported", file=sys.stderr)
        return result

    def shutdown(self):
        self._inner.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return self._inner.force_flush(timeout_millis)


class CountingLogs(LogRecordExporter):
    """The same for log records."""

    def __init__(self, inner, counts):
        self._inner = inner
        self._counts = counts

    def export(self, batch):
        result = self._inner.export(batch)
        if result is LogRecordExportResult.SUCCESS:
            self._counts.exported_logs += len(batch)
        else:
            print(f"python-sdk: {len(batch)} log records were not exported", file=sys.stderr)
        return result

    def shutdown(self):
        self._inner.shutdown()

    def force_flush(self, timeout_millis=30_000):
        return self._inner.force_flush(timeout_millis)
