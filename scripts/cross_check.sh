#!/bin/sh
# Checks ringmark's load against what is known: a server that answers after a known delay, Little's
# law, other clients, and perf's task clock. Prints the errors in µs and per cent; takes less than a
# minute.
#
#   scripts/cross_check.sh
#
# It needs python3; and sockperf and perf, or their checks are left out in words.
set -eu
cd "$(dirname "$0")/.."
command -v python3 > /dev/null || { echo "cross_check.sh: install python3" >&2; exit 2; }
cargo build --release --workspace --bins --locked
cargo build --release --package ringmark-harness --example delay_server --locked
exec python3 scripts/cross_check.py
