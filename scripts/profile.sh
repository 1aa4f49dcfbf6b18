#!/bin/sh
# Samples a server with perf(1) under load. Prints the share of CPU time of each important function,
# with everything that it calls. This explains a measurement of the matrix and does not replace it.
# The load has 64 connections and 64 bytes. The server is on CPU 0, the load on CPU 1.
#
#   scripts/profile.sh epoll-et uring-multishot      a closed loop
#   scripts/profile.sh --rate 30000 epoll-et         an open loop at that rate
set -eu
cd "$(dirname "$0")/.."

functions="tcp_sendmsg|net_rx_action|tcp_recvmsg"
functions="$functions|__x64_sys_(sendto|recvfrom|epoll_wait|epoll_ctl|poll|pselect6)"
functions="$functions|io_send|io_recv|io_submit_sqes|io_cqring_wait|__io_run_local_work"
functions="$functions|__do_sys_io_uring_enter"

rate=
case "${1:-}" in
    "" | -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --rate) rate="--rate $2"; shift 2 ;;
esac
command -v perf >/dev/null || { echo "profile.sh: perf(1) is not installed" >&2; exit 1; }
cargo build --release --workspace --bins --locked

scratch=$(mktemp -d)
server= load=
clean_up() {
    for pid in $load $server; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
    rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

for backend; do
    said=$scratch/$backend
    : >"$said"
    target/release/ringmark-server --backend "$backend" --listen 127.0.0.1:0 --cpus 0 \
        --drain-seconds 1 >"$said" &
    server=$!
    until grep -q '"ready"' "$said"; do
        kill -0 "$server" 2>/dev/null || { echo "profile.sh: $backend did not start" >&2; exit 1; }
        sleep 0.1
    done
    address=$(sed -n 's/.*"addresses":\["\([^"]*\)".*/\1/p' "$said")
    # shellcheck disable=SC2086 -- none or two words
    taskset -c 1 target/release/ringmark load --connect "$address" --connections 64 \
        --message-bytes 64 --duration 4s $rate >"$scratch/load" 2>&1 &
    load=$!
    sleep 1
    perf record -q -e cpu-clock -F 1999 -g -p "$server" -o "$scratch/perf" -- sleep 2
    wait "$load"
    load=
    kill "$server"
    wait "$server" || true
    server=
    echo "== $backend: share of the server's CPU samples, in percent, callees included"
    perf report -i "$scratch/perf" --children --stdio -g none 2>/dev/null |
        awk -v functions="^($functions)\$" '$NF ~ functions { printf "%8s  %s\n", $1, $NF }'
done
