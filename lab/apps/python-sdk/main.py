"""An application as anybody would write it with the OpenTelemetry SDK for Python: exporters with default
settings, which take everything from the standard OTEL_* variables.

What it sends is numbered, so that a receiver can tell what is missing. It does not know where its
telemetry goes, nor by which way.
"""

import argparse
import json
import os
import signal
import threading
import time

from telemetry import PROTOCOLS, SIGNALS, Counts, Telemetry

# What the standard says is used without a choice of ours.
DEFAULT_PROTOCOL = "http/protobuf"


def parse():
    # The SDK leaves the choice of transport, and so this standard variable, to the program.
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or DEFAULT_PROTOCOL
    parser = argparse.ArgumentParser(prog="python-sdk")
    parser.add_argument("--run", required=True, help="the name of this run, on everything it sends")
    parser.add_argument("--rate", type=int, default=10, help="spans per second")
    parser.add_argument("--count", type=int, default=0, help="end after so many; 0: at SIGTERM")
    parser.add_argument("--protocol", choices=PROTOCOLS, default=protocol, help="OTLP transport")
    parser.add_argument("--signals", default="traces", help="what to send: traces,metrics,logs")
    settings = parser.parse_args()
    settings.signals = settings.signals.split(",")
    if not 1 <= settings.rate <= 100_000:
        parser.error("--rate must be between 1 and 100000")
    if unknown := set(settings.signals) - set(SIGNALS):
        parser.error(f"unknown signals: {', '.join(sorted(unknown))}")
    return settings


def produce(settings, telemetry, counts, stop):
    """Sends at the wanted rate, and returns how many."""
    begun = time.monotonic()
    reported = begun
    made = 0
    while settings.count == 0 or made < settings.count - 1:
        # A wait of less than nothing looks whether to stop, and goes on.
        if stop.wait(begun + made / settings.rate - time.monotonic()):
            break
        telemetry.emit(made, last=False)
        made += 1
        if time.monotonic() - reported >= 1:
            reported = time.monotonic()
            report("second", settings.run, made, counts)
    return made


def report(event, run, made, counts):
    """One line for people and scripts."""
    line = {
        "event": event,
        "run": run,
        "made": made,
        "exported": counts.exported,
        "exportedLogs": counts.exported_logs,
        "failed": counts.failed,
    }
    print(json.dumps(line), flush=True)


def main():
    settings = parse()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    counts = Counts()
    telemetry = Telemetry(settings.run, settings.protocol, settings.signals, counts)
    made = produce(settings, telemetry, counts, stop)
    # The last one says so: a receiver then knows how many there are.
    telemetry.emit(made, last=True)
    telemetry.finish()
    report("end", settings.run, made + 1, counts)


if __name__ == "__main__":
    main()
