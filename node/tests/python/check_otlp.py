#!/usr/bin/env python3
"""Starts `oteld dev`, lets send_otlp.py send to it, and looks for everything through the query APIs.

Prints one line a check and PASS or FAIL at the end; exits with 0 or 1.
"""

import argparse
import base64
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
START_SECONDS = 60
STOP_SECONDS = 20

# Names as Prometheus translates them: unit and type are suffixes.
SCALARS = {
    "send.counter": "send_counter_total",
    "send.up_down_counter": "send_up_down_counter",
    "send.gauge": "send_gauge_celsius",
    "send.observable_counter": "send_observable_counter_total",
    "send.observable_up_down_counter": "send_observable_up_down_counter",
    "send.observable_gauge": "send_observable_gauge",
}


class Checks:
    def __init__(self):
        self.failed = 0

    def equal(self, what, got, expected):
        if got == expected:
            print(f"ok    {what}")
        else:
            self.failed += 1
            print(f"FAIL  {what}\n      got      {json.dumps(got)}\n      expected {json.dumps(expected)}")


class Oteld:
    """A development cluster on free ports."""

    def __init__(self, binary, data_dir):
        ports = free_ports()
        self.grpc, self.http, self.query = (f"127.0.0.1:{port}" for port in ports[:3])
        self.log = pathlib.Path(f"{data_dir}.log")
        command = [binary, "dev", "--data-dir", data_dir, "--otlp-grpc", self.grpc, "--otlp-http", self.http]
        command += ["--query", self.query, "--node-port", str(ports[3])]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OTELD_")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    def wait(self):
        deadline = time.monotonic() + START_SECONDS
        while "oteld is ready" not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"FAIL: oteld dev did not become ready:\n{self.log.read_text()}")
            time.sleep(0.1)

    def stop(self):
        """Its exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"did not end within {STOP_SECONDS} s"

    def get(self, path, **parameters):
        url = f"http://{self.query}{path}?{urllib.parse.urlencode(parameters)}"
        request = urllib.request.Request(url, headers={"Accept": "application/json"})
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            return {"status": error.code, "body": error.read().decode(errors="replace")}

    def instant(self, query):
        """Label sets without the name, and values, of a PromQL query."""
        body = self.get("/prometheus/api/v1/query", query=query)
        if body.get("status") != "success":
            return body
        return [sample["value"][1] for sample in body["data"]["result"]]


def free_ports():
    """Six ports; the last four are in a row, for the nodes among themselves."""
    for first in range(20000 + os.getpid() % 5000, 32000, 10):
        sockets = []
        try:
            for port in range(first, first + 7):
                sockets.append(socket.create_server(("127.0.0.1", port)))
            return list(range(first, first + 7))
        except OSError:
            pass
        finally:
            for each in sockets:
                each.close()
    raise SystemExit("FAIL: no free ports")


def check_metrics(checks, oteld, sent):
    service, metrics = sent["service"], sent["metrics"]
    labels = f'job="{service}",route="/cart",code="200"'
    for name, value in metrics["values"].items():
        got = oteld.instant(f"{SCALARS[name]}{{{labels}}}")
        checks.equal(f"{service}: {name}", [float(v) for v in got] if isinstance(got, list) else got, [float(value)])
    expected = metrics["histograms"]["send.histogram"]
    base = "send_histogram_milliseconds"
    for suffix in ("count", "sum"):
        checks.equal(f"{service}: send.histogram {suffix}", oteld.instant(f"{base}_{suffix}{{{labels}}}"), [f"{expected[suffix]:g}"])
    for le, count in (("0", 1), ("5", 3), ("10", 4), ("250", 4), ("500", 5), ("+Inf", 5)):
        got = oteld.instant(f'{base}_bucket{{{labels},le=~"{le.replace("+", "[+]")}([.]0)?"}}')
        checks.equal(f"{service}: send.histogram le={le}", got, [str(count)])
    expected = metrics["histograms"]["send.exponential"]
    for suffix in ("count", "sum"):
        got = oteld.instant(f"send_exponential_milliseconds_{suffix}{{{labels}}}")
        checks.equal(f"{service}: send.exponential {suffix}", got, [f"{expected[suffix]:g}"])
    got = oteld.get("/prometheus/api/v1/metadata", metric="send_gauge_celsius")
    checks.equal(f"{service}: type of send.gauge", got["data"]["send_gauge_celsius"][0]["type"], "gauge")


def check_logs(checks, oteld, sent):
    service = sent["service"]
    body = oteld.get("/loki/api/v1/query_range", query=f'{{service_name="{service}"}}', direction="forward")
    streams = body["data"]["result"] if body.get("status") == "success" else []
    checks.equal(f"{service}: log query has no warnings", body.get("warnings"), None)
    records = sorted((value[0], value[1], stream["stream"]) for stream in streams for value in stream["values"])
    checks.equal(f"{service}: number of log records", len(records), len(sent["logs"]))
    for (_, line, labels), record in zip(records, sent["logs"]):
        text = record["body"]
        checks.equal(f"{service}: log body", line if isinstance(text, str) else json.loads(line), text)
        checks.equal(f"{service}: log severity", labels.get("severity_text"), record["severity"])
        checks.equal(f"{service}: log attribute", labels.get("n"), str(record["attributes"]["n"]))


def check_traces(checks, oteld, sent):
    service, trace = sent["service"], sent["traces"]
    parent, child = trace["spans"]
    body = oteld.get(f"/jaeger/api/traces/{trace['trace_id']}")
    spans = {span["operationName"]: span for span in body["data"][0]["spans"]} if body.get("data") else {}
    checks.equal(f"{service}: span names", sorted(spans), ["child", "parent"])
    if len(spans) != 2:
        return
    tags = {name: {tag["key"]: tag["value"] for tag in span["tags"]} for name, span in spans.items()}
    for span in (parent, child):
        checks.equal(f"{service}: id of {span['name']}", spans[span["name"]]["spanID"], span["span_id"])
    references = [(r["refType"], r["spanID"]) for r in spans["child"]["references"]]
    checks.equal(f"{service}: parent and link", references, [("CHILD_OF", parent["span_id"]), ("FOLLOWS_FROM", parent["span_id"])])
    checks.equal(f"{service}: kinds", [tags["parent"].get("span.kind"), tags["child"].get("span.kind")], ["server", "client"])
    checks.equal(f"{service}: attribute", tags["parent"].get("http.route"), "/cart")
    status = [tags["child"].get(key) for key in ("otel.status_code", "otel.status_description", "error")]
    checks.equal(f"{service}: status", status, ["ERROR", "refused", True])
    events = [{field["key"]: field["value"] for field in log["fields"]} for log in spans["parent"]["logs"]]
    checks.equal(f"{service}: event", events, [{"event": "cache miss", "key": "k"}])

    body = oteld.get(f"/tempo/api/v2/traces/{trace['trace_id']}")
    resources = body.get("trace", {}).get("resourceSpans", [])
    scopes = [scope for resource in resources for scope in resource["scopeSpans"]]
    checks.equal(f"{service}: scope", [(s["scope"]["name"], s["scope"]["version"]) for s in scopes], [tuple(sent["scope"])])
    spans = {span["name"]: span for scope in scopes for span in scope["spans"]}
    links = [base64.b64decode(link["spanId"]).hex() for link in spans["child"].get("links", [])]
    checks.equal(f"{service}: link in Tempo", links, [parent["span_id"]])
    checks.equal(f"{service}: event in Tempo", [e["name"] for e in spans["parent"].get("events", [])], ["cache miss"])
    found = oteld.get("/tempo/api/search", tags=f"service.name={service}")
    checks.equal(f"{service}: found by search", [t["traceID"].zfill(32) for t in found["traces"]], [trace["trace_id"]])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oteld", required=True, help="the oteld binary")
    parser.add_argument("--data-dir", required=True, help="an empty directory for the cluster's data")
    options = parser.parse_args()
    checks = Checks()
    oteld = Oteld(options.oteld, options.data_dir)
    try:
        oteld.wait()
        command = [sys.executable, HERE / "send_otlp.py"]
        command += ["--grpc", f"http://{oteld.grpc}", "--http", f"http://{oteld.http}"]
        output = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=120)
        checks.equal("the SDK reports no failed export", output.returncode, 0)
        sent = json.loads(output.stdout)
        for protocol in ("grpc", "http"):
            check_metrics(checks, oteld, sent[protocol])
            check_logs(checks, oteld, sent[protocol])
            check_traces(checks, oteld, sent[protocol])
    finally:
        status = oteld.stop()
    checks.equal("oteld dev ends well at SIGTERM", status, 0)
    if checks.failed:
        print(f"FAIL: {checks.failed} checks\n--- output of oteld dev\n{oteld.log.read_text()}")
        return 1
    print("PASS: what the Python SDK sends over gRPC and HTTP is all there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
