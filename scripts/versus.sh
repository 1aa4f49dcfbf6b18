#!/bin/sh
# Says whether a new version of a server is slower than the one before: runs both in turn on this
# machine, and prints ten lines of Markdown.
#
#   scripts/versus.sh BEFORE AFTER [PERCENT]
#
# BEFORE and AFTER are programs that echo on the port in their only argument. Ends with 0 if AFTER
# takes at most 5 % (PERCENT) more CPU, with 5 if it takes more, and with 3 if the run shows
# neither. The run stays in ./versus-TIME. `ringmark` is the one in RINGMARK, in the PATH, or in
# target/release.
set -eu
if [ "$#" -lt 2 ] || [ "$#" -gt 3 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    case "${1-}" in -h | --help) exit 0 ;; *) exit 2 ;; esac
fi
ringmark=${RINGMARK:-$(command -v ringmark || echo "$(dirname "$0")/../target/release/ringmark")}
ringmark=$(realpath "$ringmark")
before=$(realpath "$1")
after=$(realpath "$2")
percent=${3:-5}

out=$PWD/versus-$(date -u +%Y%m%dT%H%M%SZ)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ln -s "$before" "$folder/before"
ln -s "$after" "$folder/after"
cd "$folder"
"$ringmark" run versus --out "$out" >&2
"$ringmark" report "$out" --summary --fail-if-slower "$percent%"
