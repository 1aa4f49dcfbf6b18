#!/bin/sh
# Builds the suite, runs a matrix, and prints its tables and where the files are.
#
#   scripts/run_matrix.sh              the quick matrix, a few minutes
#   scripts/run_matrix.sh smoke        harness/matrix/smoke.toml, seconds
#   scripts/run_matrix.sh quick --out DIR --seed N
set -eu
cd "$(dirname "$0")/.."

matrix=quick
case "${1:-}" in
    "" | -*) ;;
    *) matrix=$1; shift ;;
esac
file=harness/matrix/$matrix.toml
if [ ! -f "$file" ]; then
    echo "run_matrix.sh: there is no matrix '$matrix'; there are: $(cd harness/matrix && echo *.toml | sed 's/\.toml//g')" >&2
    exit 2
fi

cargo build --release --workspace --bins --locked
exec target/release/ringmark run "$file" "$@"
