package main

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const scope = "go-sdk"

// The SDK's pipelines, as its documentation says to build them, and what is sent through them.
type telemetry struct {
	run     string
	tracer  trace.Tracer
	counter metric.Int64Counter
	logger  log.Logger
	ends    []func(context.Context) error
}

func start(s settings, counts *counts) (*telemetry, error) {
	t := &telemetry{run: s.run}
	for _, name := range s.signals {
		var err error
		switch name {
		case "traces":
			err = t.startTraces(s.protocol, counts)
		case "metrics":
			err = t.startMetrics(s.protocol)
		case "logs":
			err = t.startLogs(s.protocol, counts)
		default:
			err = fmt.Errorf("unknown signal %q", name)
		}
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Sends number seq of every signal.
func (t *telemetry) emit(seq int64, last bool) {
	ctx := context.Background()
	if t.tracer != nil {
		_, span := t.tracer.Start(ctx, "work")
		span.SetAttributes(attribute.String("app.run", t.run), attribute.Int64("app.seq", seq))
		if last {
			span.SetAttributes(attribute.Bool("app.last", true))
		}
		span.End()
	}
	if t.counter != nil {
		t.counter.Add(ctx, 1, metric.WithAttributes(attribute.String("app.run", t.run)))
	}
	if t.logger != nil {
		var record log.Record
		record.SetSeverity(log.SeverityInfo)
		record.SetBody(attribute.StringValue("worked"))
		record.AddAttributes(attribute.String("app.run", t.run), attribute.Int64("app.seq", seq))
		if last {
			record.AddAttributes(attribute.Bool("app.last", true))
		}
		t.logger.Emit(ctx, record)
	}
}

// Sends what is left, and ends.
func (t *telemetry) finish(ctx context.Context) error {
	var failed []error
	for _, end := range t.ends {
		failed = append(failed, end(ctx))
	}
	return errors.Join(failed...)
}

func (t *telemetry) startTraces(protocol string, counts *counts) error {
	var exporter sdktrace.SpanExporter
	var err error
	switch protocol {
	case "grpc":
		exporter, err = otlptracegrpc.New(context.Background())
	case "http/protobuf":
		exporter, err = otlptracehttp.New(context.Background())
	default:
		err = fmt.Errorf("unknown protocol %q", protocol)
	}
	if err != nil {
		return err
	}
	exporter = counting{exporter, counts}
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter))
	t.tracer = provider.Tracer(scope)
	t.ends = append(t.ends, provider.ForceFlush, provider.Shutdown)
	return nil
}

func (t *telemetry) startMetrics(protocol string) error {
	var exporter sdkmetric.Exporter
	var err error
	switch protocol {
	case "grpc":
		exporter, err = otlpmetricgrpc.New(context.Background())
	case "http/protobuf":
		exporter, err = otlpmetrichttp.New(context.Background())
	default:
		err = fmt.Errorf("unknown protocol %q", protocol)
	}
	if err != nil {
		return err
	}
	reader := sdkmetric.NewPeriodicReader(exporter)
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	t.ends = append(t.ends, provider.ForceFlush, provider.Shutdown)
	t.counter, err = provider.Meter(scope).Int64Counter("app.work")
	return err
}

func (t *telemetry) startLogs(protocol string, counts *counts) error {
	var exporter sdklog.Exporter
	var err error
	switch protocol {
	case "grpc":
		exporter, err = otlploggrpc.New(context.Background())
	case "http/protobuf":
		exporter, err = otlploghttp.New(context.Background())
	default:
		err = fmt.Errorf("unknown protocol %q", protocol)
	}
	if err != nil {
		return err
	}
	processor := sdklog.NewBatchProcessor(countingLogs{exporter, counts})
	provider := sdklog.NewLoggerProvider(sdklog.WithProcessor(processor))
	t.logger = provider.Logger(scope)
	t.ends = append(t.ends, provider.ForceFlush, provider.Shutdown)
	return nil
}
