#!/usr/bin/env bash
# Measures `oteld dev` against the null server: the same load on both, in one run, on one machine.
# Writes benches/results/<date>-<host kind>.md. Absolute numbers are this machine's; compare the ratios.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'TEXT'
Usage: benches/run.sh [--items N] [--batch N] [--connections N] [--protocols "grpc http"] [--signals "metrics logs traces"]
                      [--settle SECONDS] [--note TEXT]

Builds release binaries, runs nullotlp and then oteld (3 storage nodes in one process, so 3 replicas of everything),
sends the same load to each, and writes a table of CPU seconds per million items and bytes on disk per item.

Environment: OTELD_COMMAND  command that starts the server on the ports 24317 (OTLP/gRPC), 24318 (OTLP/HTTP) and 28081
                            (queries) with its data in $DATA_DIR
TEXT
}

items=1000000 batch=1000 connections=2 protocols="grpc http" signals="metrics logs traces" settle=10 note=""
arguments="$*"
while [ $# -gt 0 ]; do
  case $1 in
    --items) items=$2 ;;
    --batch) batch=$2 ;;
    --connections) connections=$2 ;;
    --protocols) protocols=$2 ;;
    --signals) signals=$2 ;;
    --settle) settle=$2 ;;
    --note) note=$2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift 2
done

target=${CARGO_TARGET_DIR:-target}
work=$(mktemp -d)
# Not the default ports: a cluster that happens to run here is not disturbed and not measured.
grpc=127.0.0.1:24317 http=127.0.0.1:24318 query=127.0.0.1:28081
oteld="oteld dev --no-self-telemetry --otlp-grpc $grpc --otlp-http $http --query $query --node-port 27070"
pid=""
stop_server() {
  if [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null; then
    kill -TERM "$pid"
    wait "$pid" 2>/dev/null || true
  fi
  pid=""
}
trap 'stop_server; rm -rf "$work"' EXIT

# User and system CPU seconds of a process. The command name in the line may hold spaces, so cut behind its ")".
cpu_seconds() { sed 's/.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ printf "%.2f", ($12 + $13) / hz }'; }
rss_max_mib() { awk '/^VmHWM/ { printf "%.0f", $2 / 1024 }' "/proc/$1/status"; }
disk_bytes() { if [ -d "$1" ]; then du -s --block-size=1 "$1" | cut -f1; else echo 0; fi; }
field() { sed -n "s/.*\"$1\":\([-0-9.eE+]*\).*/\1/p"; }
calc() { awk "BEGIN { printf \"$1\", $2 }"; }

await() { # description, command...
  local what=$1 tries=0
  shift
  until "$@" >/dev/null 2>&1; do
    tries=$((tries + 1))
    if ! kill -0 "$pid" 2>/dev/null; then echo "$what: the server ended; its output:" >&2; cat "$work/server.log" >&2; exit 1; fi
    if [ $tries -gt 600 ]; then echo "$what: not after 60 s" >&2; tail -50 "$work/server.log" >&2; exit 1; fi
    sleep 0.1
  done
}
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

echo "building release binaries" >&2
cargo build --release -p oteld-benches
[ -n "${OTELD_COMMAND:-}" ] || cargo build --release -p oteld --bin oteld

for port in 24317 24318 28081; do
  if port_open $port; then echo "port $port is taken; stop what listens there" >&2; exit 1; fi
done

start_null() {
  "$target/release/nullotlp" --grpc $grpc --http $http >"$work/server.log" 2>&1 &
  pid=$!
  await "nullotlp listens" port_open 24317
  await "nullotlp listens" port_open 24318
}
start_oteld() {
  export DATA_DIR=$work/data
  rm -rf "$DATA_DIR"
  # exec: the process id must be the server's own.
  bash -c "exec ${OTELD_COMMAND:-$target/release/$oteld --data-dir \$DATA_DIR}" >"$work/server.log" 2>&1 &
  pid=$!
  await "oteld is ready" curl -fsS http://$query/readyz
  await "oteld listens" port_open 24317
  await "oteld listens" port_open 24318
}

rows=""
run_one() { # server, signal, protocol
  local server=$1 signal=$2 protocol=$3
  "start_$server"
  local idle_before idle_after before after report disk_before disk_load disk_stop rss
  idle_before=$(cpu_seconds $pid); sleep 2; idle_after=$(cpu_seconds $pid)
  disk_before=$(disk_bytes "$work/data")
  before=$(cpu_seconds $pid)
  report=$("$target/release/otelload" "$signal" --protocol "$protocol" --endpoint "http://${!protocol}" --items "$items" --batch "$batch" \
    --connections "$connections" -o json) || true
  # Work that the load left behind (flush, merge) belongs to it.
  [ "$server" = null ] || sleep "$settle"
  after=$(cpu_seconds $pid)
  disk_load=$(disk_bytes "$work/data")
  rss=$(rss_max_mib $pid)
  stop_server
  disk_stop=$(disk_bytes "$work/data")
  local taken failed idle cpu per_million
  taken=$(field items <<<"$report")
  if [ -z "$taken" ] || [ "$taken" = 0 ]; then
    echo "$server $signal $protocol: nothing was acknowledged: $report" >&2; tail -30 "$work/server.log" >&2
    rows+="| $signal | $protocol | $server | 0 | | | | | | | | | nothing was acknowledged |"$'\n'
    last_per_million=""
    return
  fi
  failed=$(sed -n 's/.*"errors":{\([^}]*\)}.*/\1/p' <<<"$report")
  idle=$(calc %.3f "($idle_after - $idle_before) / 2")
  cpu=$(calc %.2f "$after - $before")
  per_million=$(calc %.2f "$cpu * 1000000 / $taken")
  local disk="—" stopped="—" ratio="1"
  if [ "$server" = oteld ]; then
    disk=$(calc %.1f "($disk_load - $disk_before) / $taken")
    stopped=$(calc %.1f "($disk_stop - $disk_before) / $taken")
    ratio=$([ -n "$last_per_million" ] && calc %.1f "$per_million / ($last_per_million > 0 ? $last_per_million : 0.01)" || echo "—")
  fi
  last_per_million=$per_million
  rows+="| $signal | $protocol | $server | $taken | $(calc %.0f "$(field items_per_second <<<"$report")") | $per_million | $ratio | $idle"
  rows+=" | $(calc %.1f "$(field p50_ms <<<"$report")") / $(calc %.1f "$(field p99_ms <<<"$report")") | $disk | $stopped | $rss | ${failed:-none} |"$'\n'
  echo "$server $signal $protocol: $taken items, $per_million CPU s a million" >&2
}

last_per_million=""
for signal in $signals; do
  for protocol in $protocols; do
    for server in null oteld; do run_one "$server" "$signal" "$protocol"; done
  done
done

cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)
cores=$(nproc)
kind=$(printf '%s-cores-%s' "$cores" "${cpu:-unknown-cpu}" | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9\n' - | sed 's/-$//')
mkdir -p benches/results
out=benches/results/$(date -u +%F)-$kind.md
{
  echo "# $(date -u '+%F %H:%M') UTC, $cores cores, ${cpu:-CPU unknown}, $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
  echo
  echo "Command: \`benches/run.sh${arguments:+ $arguments}\` at commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown). Server, load generator and everything else on one machine."
  [ -z "$note" ] || { echo; echo "$note"; }
  echo
  echo "\`null\` decodes with prost and drops. \`oteld\` is \`${OTELD_COMMAND:-oteld dev --no-self-telemetry}\`: three storage nodes in one process, every item stored three times; its bytes on disk are those of all replicas together (WAL and segments, blocks as the file system counts them). CPU is that of the server process, until $settle s after the last request for oteld. The ratio is to null's CPU with the same signal and protocol. Idle is CPU seconds a second before the load."
  echo
  echo "| signal | protocol | server | items | items/s | CPU s per million | ratio | idle | p50 / p99 ms | B on disk per item | after stop | peak RSS MiB | failed requests |"
  echo "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
  printf '%s' "$rows"
} >"$out"
cat "$out"
echo "written to $out" >&2
