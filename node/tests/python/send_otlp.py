#!/usr/bin/env python3
"""Sends metrics of every instrument, logs and traces with the unmodified OpenTelemetry SDK.

Each given endpoint gets the same kinds of items, gzip-compressed. What was sent is printed as JSON:
one object a protocol, so that a test can look for exactly that. Exits with 1 when an export failed.

    python -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python send_otlp.py --grpc http://127.0.0.1:4317 --http http://127.0.0.1:4318
"""

import argparse
import json
import sys
import time

import grpc
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.metrics import Observation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

SCOPE = ("send_otlp", "1.0")


class Watched:
    """Passes exports on and remembers the ones that failed."""

    def __init__(self, exporter, failures):
        self._exporter, self._failures = exporter, failures

    def __getattr__(self, name):
        return getattr(self._exporter, name)

    def export(self, *args, **kwargs):
        result = self._exporter.export(*args, **kwargs)
        if result.name != "SUCCESS":
            self._failures.append(type(self._exporter).__module__)
        return result


def send_metrics(exporter, resource):
    views = [View(instrument_name="send.exponential", aggregation=ExponentialBucketHistogramAggregation())]
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider(resource=resource, metric_readers=[reader], views=views)
    meter = provider.get_meter(*SCOPE)
    attributes = {"route": "/cart", "code": 200}
    meter.create_counter("send.counter", unit="1").add(7, attributes)
    meter.create_up_down_counter("send.up_down_counter").add(-3, attributes)
    meter.create_gauge("send.gauge", unit="Cel").set(21.5, attributes)
    histogram = meter.create_histogram("send.histogram", unit="ms")
    exponential = meter.create_histogram("send.exponential", unit="ms")
    for value in (0, 1, 2.5, 7.5, 400):
        histogram.record(value, attributes)
        exponential.record(value, attributes)
    meter.create_observable_counter("send.observable_counter", [lambda _: [Observation(11, attributes)]])
    meter.create_observable_up_down_counter("send.observable_up_down_counter", [lambda _: [Observation(-5, attributes)]])
    meter.create_observable_gauge("send.observable_gauge", [lambda _: [Observation(0.25, attributes)]])
    # Shutting down collects and exports; a flush before it would send every point twice.
    provider.shutdown()
    return {
        "attributes": attributes,
        "values": {
            "send.counter": 7,
            "send.up_down_counter": -3,
            "send.gauge": 21.5,
            "send.observable_counter": 11,
            "send.observable_up_down_counter": -5,
            "send.observable_gauge": 0.25,
        },
        "histograms": {name: {"count": 5, "sum": 411.0} for name in ("send.histogram", "send.exponential")},
    }


def send_traces(exporter, resource):
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer(*SCOPE)
    with tracer.start_as_current_span("parent", kind=SpanKind.SERVER, attributes={"http.route": "/cart"}) as parent:
        parent.add_event("cache miss", {"key": "k"})
        context = parent.get_span_context()
        with tracer.start_as_current_span("child", kind=SpanKind.CLIENT, links=[Link(context)]) as child:
            child.set_status(Status(StatusCode.ERROR, "refused"))
            child_context = child.get_span_context()
    flushed = provider.force_flush()
    provider.shutdown()
    return flushed, {
        "trace_id": f"{context.trace_id:032x}",
        "spans": [
            {"name": "parent", "span_id": f"{context.span_id:016x}", "parent_span_id": "0" * 16},
            {"name": "child", "span_id": f"{child_context.span_id:016x}", "parent_span_id": f"{context.span_id:016x}"},
        ],
    }


def send_logs(exporter, resource):
    provider = LoggerProvider(resource=resource)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = provider.get_logger(*SCOPE)
    records = [
        {"body": "plain text", "severity": "INFO", "attributes": {"n": 1}},
        {"body": {"structured": True, "items": [1, "two"]}, "severity": "ERROR", "attributes": {"n": 2}},
    ]
    for record in records:
        now = time.time_ns()
        logger.emit(
            timestamp=now,
            observed_timestamp=now,
            severity_number=SeverityNumber[record["severity"]],
            severity_text=record["severity"],
            body=record["body"],
            attributes=record["attributes"],
        )
    flushed = provider.force_flush()
    provider.shutdown()
    return flushed, records


def send(protocol, exporters, service):
    failures = []
    resource = Resource({"service.name": f"{service}-{protocol}"})
    metrics, traces, logs = (Watched(exporter, failures) for exporter in exporters)
    sent_metrics = send_metrics(metrics, resource)
    flushed_traces, sent_traces = send_traces(traces, resource)
    flushed_logs, sent_logs = send_logs(logs, resource)
    if not (flushed_traces and flushed_logs):
        failures.append("a flush did not end in time")
    return {
        "service": f"{service}-{protocol}",
        "scope": list(SCOPE),
        "metrics": sent_metrics,
        "traces": sent_traces,
        "logs": sent_logs,
        "failures": failures,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpc", metavar="URL", help="OTLP/gRPC endpoint, such as http://127.0.0.1:4317")
    parser.add_argument("--http", metavar="URL", help="OTLP/HTTP endpoint, such as http://127.0.0.1:4318")
    parser.add_argument("--service", default="send-otlp", help="prefix of service.name (default: %(default)s)")
    parser.add_argument("--tenant", help="value of X-Scope-OrgID (default: not sent)")
    options = parser.parse_args()
    if not options.grpc and not options.http:
        parser.error("give --grpc, --http or both")
    headers = {"x-scope-orgid": options.tenant} if options.tenant else {}
    sent = {}
    if options.grpc:
        arguments = {
            "endpoint": options.grpc,
            "insecure": True,
            "headers": tuple(headers.items()),
            "compression": grpc.Compression.Gzip,
        }
        exporters = (GrpcMetrics(**arguments), GrpcSpans(**arguments), GrpcLogs(**arguments))
        sent["grpc"] = send("grpc", exporters, options.service)
    if options.http:
        base = options.http.rstrip("/")
        arguments = {"headers": headers, "compression": Compression.Gzip}
        exporters = (
            HttpMetrics(endpoint=f"{base}/v1/metrics", **arguments),
            HttpSpans(endpoint=f"{base}/v1/traces", **arguments),
            HttpLogs(endpoint=f"{base}/v1/logs", **arguments),
        )
        sent["http"] = send("http", exporters, options.service)
    json.dump(sent, sys.stdout, indent=2)
    print()
    return 1 if any(protocol["failures"] for protocol in sent.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
