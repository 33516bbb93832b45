#!/usr/bin/env bash
# The unmodified OpenTelemetry SDK for Python against `oteld dev`: sends every kind of item over gRPC and HTTP and
# looks for each through the query APIs. Exit status: 0 passed, 1 failed.
#
# Environment: OTELD_BINARIES   directory with oteld (default: built by cargo, dev profile)
#              OTELD_TEST_VENV  virtual environment to use, made when it is not there (default: a temporary one)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

command -v python3 >/dev/null || { echo "FAIL: python3 is missing" >&2; exit 1; }
binaries=${OTELD_BINARIES:-}
if [ -z "$binaries" ]; then
  # The whole workspace, so that features and with them the dependencies are those of `cargo test --workspace`.
  (cd "$here/../../.." && cargo build --workspace --bins)
  binaries=${CARGO_TARGET_DIR:-$here/../../../target}/debug
fi
venv=${OTELD_TEST_VENV:-$work/venv}
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install -q --disable-pip-version-check -r "$here/requirements.txt"
"$venv/bin/python" "$here/check_otlp.py" --oteld "$binaries/oteld" --data-dir "$work/data"
