#!/usr/bin/env bash
# Looks for undefined behaviour: all tests of the servers under AddressSanitizer, and the data structures
# that need no kernel under Miri. Takes about ten minutes and a gigabyte in target/; not part of the tests.
#
# usage: scripts/sanitize.sh [FILTER]     only the conformance cases whose name contains FILTER
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ "${1-}" == -h || "${1-}" == --help ]]; then
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 0
fi
target=x86_64-unknown-linux-gnu
if [[ "$(uname -m)" != x86_64 ]]; then
    echo "sanitize.sh: written for x86_64, this is $(uname -m)" >&2
    exit 1
fi

# The stable compiler has the sanitizer behind this variable.
asan() {
    RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address \
        cargo test --locked --package ringmark --target "$target" --target-dir target/asan "$@"
}
if [[ -n "${1-}" ]]; then
    asan --test conformance -- "$1"
    exit
fi
asan --lib
# strace(1) and the leak check of the sanitizer exclude each other, so the tests with strace are left out.
asan --test conformance
asan --test random

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "sanitize.sh: no Miri here, its part is left out; install it with" \
        "'rustup toolchain install nightly --component miri'" >&2
    exit 1
fi
# The million of events takes Miri hours; the smaller tests use the same code.
PROPTEST_CASES=8 MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-permissive-provenance" \
    cargo +nightly miri test --locked --package ringmark --target-dir target/miri --lib -- \
    event_table token --skip million
