#!/bin/sh
# Plays random traffic against the servers, a new seed each time, and ends at the first failure.
# Ctrl-C stops it after the current seed. In either case it prints a table of the traffic.
#
#   scripts/soak.sh                        all backends in turn, 300 seconds
#   scripts/soak.sh --seconds 60 --backend uring-bundle
#   scripts/soak.sh --seed 1000            begins at this seed instead of a new one
set -eu
cd "$(dirname "$0")/.."

seconds=300
backend=
seed=
while [ $# -gt 0 ]; do
    case $1 in
        -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
        --seconds | --backend | --seed) ;;
        *) echo "soak.sh: unknown option '$1'; see --help" >&2; exit 2 ;;
    esac
    if [ $# -lt 2 ]; then
        echo "soak.sh: $1 needs a value" >&2
        exit 2
    fi
    case $1 in
        --seconds) seconds=$2 ;;
        --backend) backend=$2 ;;
        --seed) seed=$2 ;;
    esac
    shift 2
done

cargo test --locked --package ringmark --test random --no-run
# Only the test program takes SIGINT, after each seed; cargo ignores it and waits.
trap '' INT
export RINGMARK_SOAK_SECONDS="$seconds"
if [ -n "$seed" ]; then
    export RINGMARK_SEED="$seed"
fi
exec cargo test --quiet --locked --package ringmark --test random -- ${backend:+"$backend"}
