#!/bin/sh
# Builds the suite, runs a matrix, and prints its tables and the folder of the run.
#
#   scripts/run_matrix.sh              the quick matrix, a few minutes
#   scripts/run_matrix.sh smoke        seconds; --list names all
#   scripts/run_matrix.sh quick --out DIR --seed N
#   scripts/run_matrix.sh peers        other people's servers, built first if crates.io is reachable
set -eu
cd "$(dirname "$0")/.."

matrix=quick
case "${1:-}" in
    --list) matrix= ;;
    "" | -*) ;;
    *) matrix=$1; shift ;;
esac

cargo build --release --workspace --bins --locked
if [ "$matrix" = peers ]; then
    for peer in tokio monoio compio glommio tokio-uring; do
        cargo build --release --locked --manifest-path harness/peers/Cargo.toml \
            --package "peer-$peer" ||
            echo "run_matrix.sh: peer-$peer did not build, see above (cargo needs crates.io);" \
                "continuing without it" >&2
    done
fi
exec target/release/ringmark run ${matrix:+"$matrix"} "$@"
