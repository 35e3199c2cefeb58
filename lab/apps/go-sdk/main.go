// An application as anybody would write it with the OpenTelemetry SDK for Go: exporters with default
// settings, which take everything from the standard OTEL_* variables.
//
// What it sends is numbered, so that a receiver can tell what is missing. It does not know where its
// telemetry goes, nor by which way.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// What the standard says is used without a choice of ours.
const defaultProtocol = "http/protobuf"

type settings struct {
	run      string
	rate     int
	count    int64
	protocol string
	signals  []string
}

func main() {
	settings, err := parse()
	if err == nil {
		err = run(settings)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "go-sdk:", err)
		os.Exit(1)
	}
}

func parse() (settings, error) {
	var s settings
	// The SDK leaves the choice of transport, and so this standard variable, to the program.
	protocol := os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	if protocol == "" {
		protocol = defaultProtocol
	}
	flag.StringVar(&s.run, "run", "", "the name of this run, on everything it sends")
	flag.IntVar(&s.rate, "rate", 10, "spans per second")
	flag.Int64Var(&s.count, "count", 0, "end after so many; 0: at SIGTERM")
	flag.StringVar(&s.protocol, "protocol", protocol, "OTLP transport: grpc or http/protobuf")
	signals := flag.String("signals", "traces", "what to send: traces, metrics, logs")
	flag.Parse()
	s.signals = strings.Split(*signals, ",")
	switch {
	case flag.NArg() > 0:
		return s, fmt.Errorf("unexpected argument %q", flag.Arg(0))
	case s.run == "":
		return s, fmt.Errorf("--run is missing")
	case s.rate < 1 || s.rate > 100_000:
		return s, fmt.Errorf("--rate must be between 1 and 100000")
	}
	return s, nil
}

func run(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var counts counts
	telemetry, err := start(s, &counts)
	if err != nil {
		return err
	}
	made := produce(ctx, s, telemetry, &counts)
	// The last one says so: a receiver then knows how many there are.
	telemetry.emit(made, true)
	// Long enough for the exporters' own retries; the kubelet's patience is 30 s.
	finish, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := telemetry.finish(finish); err != nil {
		fmt.Fprintln(os.Stderr, "go-sdk: the end was not clean:", err)
	}
	report("end", s.run, made+1, &counts)
	return nil
}

// Sends at the wanted rate, and returns how many.
func produce(ctx context.Context, s settings, telemetry *telemetry, counts *counts) int64 {
	begun := time.Now()
	gap := time.Second / time.Duration(s.rate)
	reports := time.NewTicker(time.Second)
	defer reports.Stop()
	var made int64
	for s.count == 0 || made < s.count-1 {
		due := time.NewTimer(time.Until(begun.Add(time.Duration(made) * gap)))
		select {
		case <-ctx.Done():
			due.Stop()
			return made
		case <-reports.C:
			due.Stop()
			report("second", s.run, made, counts)
		case <-due.C:
			telemetry.emit(made, false)
			made++
		}
	}
	return made
}

// One line for people and scripts.
func report(event, run string, made int64, counts *counts) {
	line, _ := json.Marshal(map[string]any{
		"event":        event,
		"run":          run,
		"made":         made,
		"exported":     counts.exported.Load(),
		"exportedLogs": counts.exportedLogs.Load(),
		"failed":       counts.failed.Load(),
	})
	fmt.Println(string(line))
}
