#!/usr/bin/env bash
# Makes an image from binaries that are built already and the libraries that they load: docker/image.sh oteld:local
#
# It needs a Docker engine and no registry. docker/Dockerfile makes the image that is meant to be kept; this one is for
# tests, where minutes of another build are not wanted or no registry can be reached.
#
# Environment: OTELD_BINARIES  directory with oteld and otelctl (default: built by cargo, dev profile)
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# = 1 ] || { echo "usage: docker/image.sh TAG" >&2; exit 2; }
tag=$1
docker info >/dev/null 2>&1 || { echo "image: no Docker engine answers" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"

binaries=${OTELD_BINARIES:-}
if [ -z "$binaries" ]; then
  # The whole workspace, so that features and with them the dependencies are those of `cargo test --workspace`.
  cargo build --workspace --bins
  binaries=${CARGO_TARGET_DIR:-target}/debug
fi
mkdir -p "$root/usr/local/bin" "$root/var/lib/oteld" "$root/tmp"
for binary in oteld otelctl; do
  [ -x "$binaries/$binary" ] || { echo "image: there is no $binaries/$binary" >&2; exit 1; }
  cp "$binaries/$binary" "$root/usr/local/bin/"
  strip "$root/usr/local/bin/$binary" 2>/dev/null || true
  # The shared libraries and the loader, at the paths where the binary looks for them.
  for library in $(ldd "$binaries/$binary" 2>/dev/null | grep -o '/[^ ]*'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
chmod 1777 "$root/tmp"
# All of it is the image's user's, and not the data directory alone: only root could make that one somebody else's here.
tar -C "$root" --numeric-owner --owner=65532 --group=65532 -c . |
  docker import --change 'USER 65532:65532' --change 'WORKDIR /var/lib/oteld' --change 'VOLUME /var/lib/oteld' \
    --change 'ENV PATH=/usr/local/bin' --change 'ENTRYPOINT ["oteld"]' - "$tag" >/dev/null
