package main

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"

	"go.opentelemetry.io/otel/sdk/trace"
)

// How many spans the other side acknowledged, and how many the SDK gave up on after its own retries.
type counts struct {
	exported, failed atomic.Int64
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
