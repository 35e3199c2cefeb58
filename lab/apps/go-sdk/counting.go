package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"

	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/trace"
)

// How many spans and log records the other side acknowledged, and how many spans the SDK gave up on after
// its own retries.
type counts struct {
	exported, exportedLogs, failed atomic.Int64
}

// An exporter that counts what another one reports, and changes nothing.
type counting struct {
	trace.SpanExporter
	counts *counts
}

func (c counting) ExportSpans(ctx context.Context, spans []trace.ReadOnlySpan) error {
	err := c.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		c.counts.exported.Add(int64(len(spans)))
		return nil
	}
	c.counts.failed.Add(int64(len(spans)))
	fmt.Fprintf(os.Stderr, "go-sdk: %d spans were not exported: %v\n", len(spans), err)
	return err
}

// The same for log records.
type countingLogs struct {
	sdklog.Exporter
	counts *counts
}

func (c countingLogs) Export(ctx context.Context, records []sdklog.Record) error {
	err := c.Exporter.Export(ctx, records)
	if err == nil {
		c.counts.exportedLogs.Add(int64(len(records)))
		return nil
	}
	fmt.Fprintf(os.Stderr, "go-sdk: %d log records were not exported: %v\n", len(records), err)
	return err
}
