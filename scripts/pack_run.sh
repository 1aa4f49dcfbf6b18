#!/bin/sh
# Makes the folder of a finished run small enough to commit. Packs its long tables, which ringmark
# reads packed too. Removes histograms, and the page that `ringmark report` makes again.
#
#   scripts/pack_run.sh results/FOLDER...
#
# Add the run to a document, and `ringmark report --splice` keeps the pictures that it shows.
set -eu
[ $# -gt 0 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
case $1 in -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;; esac

for run; do
    [ -f "$run/manifest.json" ] || { echo "pack_run.sh: $run is not the folder of a run" >&2; exit 2; }
    [ ! -e "$run/trials.jsonl" ] || { echo "pack_run.sh: $run has not finished: resume it" >&2; exit 2; }
    for table in trials events memory_points scale windows functions instructions; do
        find "$run" -name "$table.csv" -size +0 -exec gzip --best --no-name --force {} +
        find "$run" -name "$table.csv" -size 0 -delete
    done
    find "$run" -name report.html -delete
    find "$run" -type d -name histograms -prune -exec rm -r {} +
done
