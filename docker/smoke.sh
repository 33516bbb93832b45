#!/usr/bin/env bash
# Starts cluster.yml's own services on a real Docker engine, sends OTLP to one front, reads it from the other, kills
# containers, and sends and reads again. Exit status: 0 passed, 1 failed, 77 no engine can be had here.
#
# It needs no image from a registry: docker/image.sh makes it from binaries built here.
#
# Environment: OTELD_BINARIES  directory with oteld and otelctl (default: built by cargo, dev profile)
#              SMOKE_INSTALL=0 do not install or start an engine, use one that runs or give up
set -euo pipefail
cd "$(dirname "$0")/.."

project=oteld-smoke
work=$(mktemp -d)
engine_pid=""
started=0
say() { printf 'smoke: %s\n' "$*" >&2; }
no_engine() { say "skipped: $*"; exit 77; }
compose() { docker compose -p "$project" -f cluster.yml -f docker/smoke.yml "$@"; }

finish() {
  local code=$?
  trap - EXIT
  if [ "$started" = 1 ]; then
    if [ $code -ne 0 ]; then
      compose ps -a >&2 || true
      compose logs --tail 40 >&2 || true
    fi
    compose down --volumes --timeout 5 >/dev/null 2>&1 || say "could not remove the containers of project $project"
  fi
  if [ -n "$engine_pid" ]; then
    docker image rm oteld:smoke >/dev/null 2>&1 || true
    kill "$engine_pid" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$engine_pid" 2>/dev/null || break; sleep 0.1; done
  fi
  rm -rf "$work"
  exit $code
}
trap finish EXIT

# --- an engine and Compose ------------------------------------------------------------------------------------------

start_engine() { # extra dockerd arguments
  setsid dockerd "$@" >"$work/dockerd.log" 2>&1 </dev/null &
  engine_pid=$!
  for _ in $(seq 300); do
    docker info >/dev/null 2>&1 && return 0
    kill -0 "$engine_pid" 2>/dev/null || break
    sleep 0.1
  done
  kill "$engine_pid" 2>/dev/null || true
  wait "$engine_pid" 2>/dev/null || true
  engine_pid=""
  return 1
}

ensure_engine() {
  docker info >/dev/null 2>&1 && return
  [ "${SMOKE_INSTALL:-1}" = 1 ] || no_engine "no Docker engine answers, and SMOKE_INSTALL=0"
  [ "$(id -u)" = 0 ] || no_engine "no Docker engine answers, and only root can start one"
  [ ! -S /var/run/docker.sock ] || ! pgrep -x dockerd >/dev/null || no_engine "a Docker engine runs but does not answer"
  if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
    command -v apt-get >/dev/null || no_engine "no Docker engine is installed, and there is no apt-get to install one"
    say "installing docker.io"
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update && apt-get install -y --no-install-recommends docker.io iptables; } >"$work/apt.log" 2>&1 </dev/null ||
      no_engine "docker.io does not install: $(tail -1 "$work/apt.log")"
  fi
  say "starting dockerd"
  # The second try is for machines whose root file system is an overlay itself.
  start_engine || start_engine --storage-driver=vfs || no_engine "dockerd does not start: $(grep -v level=info "$work/dockerd.log" | tail -1)"
}

ensure_compose() {
  docker compose version >/dev/null 2>&1 && return
  [ "${SMOKE_INSTALL:-1}" = 1 ] || no_engine "docker compose is missing, and SMOKE_INSTALL=0"
  command -v apt-get >/dev/null || no_engine "docker compose is missing, and there is no apt-get to get it"
  say "fetching the Compose plugin from Debian trixie"
  # Debian before trixie has Compose 1 only. One package is fetched through apt (so its signature is checked) with
  # lists of its own, and unpacked beside the system's packages.
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -f $keyring ] || no_engine "docker compose is missing, and this is not Debian"
  mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
  chmod -R a+rX "$work"
  echo "deb [signed-by=$keyring] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} trixie main" >"$work/apt/trixie.list"
  local options=(-o Dir::Etc::sourcelist="$work/apt/trixie.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/apt/lists"
    -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User=root -o APT::Update::Post-Invoke=)
  (cd "$work/apt" && apt-get "${options[@]}" update && apt-get "${options[@]}" download docker-compose) >"$work/apt.log" 2>&1 </dev/null ||
    no_engine "the Compose plugin cannot be fetched: $(tail -1 "$work/apt.log")"
  dpkg -x "$work"/apt/docker-compose_*.deb "$work/compose"
  local plugins=$HOME/.docker/cli-plugins
  mkdir -p "$plugins"
  install -m 0755 "$work/compose/usr/libexec/docker/cli-plugins/docker-compose" "$plugins/docker-compose"
  docker compose version >/dev/null 2>&1 || no_engine "the Compose plugin does not run"
}

# --- sending and reading --------------------------------------------------------------------------------------------

address() { compose port "$1" "$2" 2>/dev/null; }
# Tries until the command succeeds, for at most so many seconds.
within() { # seconds, what, command...
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    if [ $SECONDS -ge $deadline ]; then say "FAILED: $what"; return 1; fi
    sleep 0.5
  done
}
# Waiting for what has ended already helps nobody.
none_ended() {
  [ -z "$(compose ps -a -q --status exited)" ] || { say "FAILED: a container ended by itself"; exit 1; }
}
ready() { none_ended; curl -fsS -m 5 -o /dev/null "http://$(address "$1" 8081)/readyz" 2>/dev/null; }

marker=$(od -An -N6 -tx1 /dev/urandom | tr -d ' \n')
# The log holds the last failure, the server's own words included.
post() {
  curl -sS -m 15 --fail-with-body -H 'Content-Type: application/json' --data "$3" "http://$(address "$1" 4318)/v1/$2" >"$work/post.log" 2>&1
}

# Sends point, record and span number $2 to front $1. A request that is sent again must count once.
send() { # front, number
  local front=$1 number=$2 now trace resource
  now=${times[$number]:=$(date +%s%N)}
  trace=$(printf '%s%020x' "$marker" "$number")
  resource='"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"smoke-'$marker'"}}]}'
  post "$front" logs '{"resourceLogs":[{'"$resource"',"scopeLogs":[{"logRecords":[{"timeUnixNano":"'"$now"'","severityNumber":9,"body":{"stringValue":"record '"$number"'"}}]}]}]}' &&
    post "$front" metrics '{"resourceMetrics":[{'"$resource"',"scopeMetrics":[{"metrics":[{"name":"smoke.value","gauge":{"dataPoints":[{"timeUnixNano":"'"$now"'","asDouble":'"$number"',"attributes":[{"key":"number","value":{"stringValue":"'"$number"'"}}]}]}}]}]}]}' &&
    post "$front" traces '{"resourceSpans":[{'"$resource"',"scopeSpans":[{"spans":[{"traceId":"'"$trace"'","spanId":"'"${trace:0:12}"'0001","name":"span '"$number"'","kind":2,"startTimeUnixNano":"'"$((now - 1000000))"'","endTimeUnixNano":"'"$now"'"}]}]}]}'
}

count() { grep -o "$1" | wc -l; }
# Succeeds when front $1 shows each of the numbers 1..$2 exactly once, in all three signals.
shows() { # front, numbers
  local front=$1 expected=$2 base logs points number
  base=http://$(address "$front" 8081)
  logs=$(curl -fsS -m 15 -G "$base/loki/api/v1/query_range" --data-urlencode "query={service_name=\"smoke-$marker\"}" \
    --data-urlencode "start=$((first_time - 60000000000))" --data-urlencode "end=$(date +%s%N)" --data-urlencode limit=1000 2>"$work/read.log" |
    count '"record [0-9]*"') || return 1
  points=$(curl -fsS -m 15 -G "$base/prometheus/api/v1/query" --data-urlencode "query=count(last_over_time(smoke_value{job=\"smoke-$marker\"}[1h]))" 2>>"$work/read.log" |
    sed -n 's/.*"value":\[[^,]*,"\([0-9]*\)".*/\1/p') || return 1
  local spans=0
  for number in $(seq "$expected"); do
    [ "$(curl -fsS -m 15 "$base/jaeger/api/traces/$(printf '%s%020x' "$marker" "$number")" 2>>"$work/read.log" |
      count "\"span $number\"")" = 1 ] && spans=$((spans + 1))
  done
  seen="$logs records, ${points:-0} series, $spans spans of $expected each"
  [ "$logs" = "$expected" ] && [ "${points:-0}" = "$expected" ] && [ "$spans" = "$expected" ]
}
must_show() { # front, numbers, situation
  seen=""
  if ! within 30 "$1 does not show everything $3" shows "$1" "$2"; then
    say "$1 shows: ${seen:-nothing}; $(cat "$work/read.log")"
    return 1
  fi
  say "$1 shows all $2 of each signal $3"
}
must_send() { # front, number
  within 30 "$1 does not acknowledge item $2" send "$1" "$2" || { say "it says: $(cat "$work/post.log")"; return 1; }
}

command -v curl >/dev/null || no_engine "curl is missing"
ensure_engine
ensure_compose
say "engine $(docker version -f '{{.Server.Version}}'), Compose $(docker compose version --short)"
docker/image.sh oteld:smoke
export OTELD_IMAGE=oteld:smoke
declare -A times
first_time=$(date +%s%N)
started=1
compose down --volumes --timeout 5 >/dev/null 2>&1 || true
compose up -d --no-build storage-1 storage-2 storage-3 front-1 front-2 >"$work/up.log" 2>&1 || { cat "$work/up.log" >&2; exit 1; }
for front in front-1 front-2; do within 120 "$front is not ready" ready $front; done
within 60 "otelctl in a container does not see a healthy cluster" compose exec -T front-1 otelctl cluster status >"$work/status.log" 2>&1 ||
  { cat "$work/status.log" >&2; exit 1; }
say "the cluster is healthy"

for number in 1 2 3; do must_send front-1 "$number"; done
must_send front-2 1 # the same request again, through the other front
must_show front-2 3 "that went to front-1"

say "killing storage-2"
compose kill -s KILL storage-2 >/dev/null 2>&1
for number in 4 5; do must_send front-1 "$number"; done
must_show front-2 5 "with storage-2 dead"

say "starting storage-2 again, killing storage-1 and front-1"
compose start storage-2 >/dev/null 2>&1
within 60 "the restarted storage-2 is not ready" compose exec -T storage-2 oteld health >"$work/health.log" 2>&1 || { cat "$work/health.log" >&2; exit 1; }
compose kill -s KILL storage-1 front-1 >/dev/null 2>&1
must_send front-2 6
must_show front-2 6 "after storage-2 came back and storage-1 died"
say "passed"
