#!/usr/bin/env bash
# Looks for undefined behaviour. Runs all tests of the servers under AddressSanitizer. Runs the data
# structures that need no kernel under Miri. Takes about ten minutes and a gigabyte in target/, and
# is not part of the tests.
#
# usage: scripts/sanitize.sh [FILTER]     only the conformance cases whose name contains FILTER
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ "${1-}" == -h || "${1-}" == --help ]]; then
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 0
fi
target=x86_64-unknown-linux-gnu
if [[ "$(uname -m)" != x86_64 ]]; then
    echo "sanitize.sh: written for x86_64, this is $(uname -m)" >&2
    exit 1
fi

# The variable RUSTC_BOOTSTRAP makes the stable compiler accept the sanitizer.
sanitized() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
        cargo "$@"
}
built=(--locked --target "$target" --target-dir target/asan)
asan() {
    sanitized build "${built[@]}" --workspace --bin ringmark-server
    sanitized test "${built[@]}" --package ringmark "$@"
}
if [[ -n "${1-}" ]]; then
    asan --test conformance -- "$1"
    exit
fi
asan --lib
# strace(1) and the sanitizer's leak check exclude each other, so no test with strace runs here.
asan --test conformance
asan --test random

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "sanitize.sh: Miri is not installed, so its part did not run; install it with" \
        "'rustup toolchain install nightly --component miri'" >&2
    exit 1
fi
# Miri would take hours for the test with a million events; smaller tests use the same code.
PROPTEST_CASES=8 MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance" \
    cargo +nightly miri test --locked --package ringmark --target-dir target/miri --lib -- \
    event_table token --skip million
