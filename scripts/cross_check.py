"""The checks of cross_check.sh: measures what is known, and prints how far ringmark is off."""

import json
import re
import shutil
import socket
import statistics
import subprocess
import time

RELEASE = "target/release"
PORT = 18_900


def load(port, *options):
    """Returns the result of a load."""
    command = [f"{RELEASE}/ringmark", "load", "--json", f"--connect=127.0.0.1:{port}"]
    command += ["--message-bytes=64", *options]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return next(result for result in map(json.loads, lines) if result["event"] == "result")


def delayed(port, short_us, long_us, every, *options):
    """Returns the result of a load on a server that answers after known delays."""
    program = f"{RELEASE}/examples/delay_server"
    arguments = [str(number) for number in (port, 64, short_us, long_us, every)]
    server = subprocess.Popen([program, *arguments])
    try:
        time.sleep(0.3)
        return load(port, *options)
    finally:
        server.kill()
        server.wait()


def check_delays():
    """A delay of 300 µs, and of 2,000 µs for one message in 50: p50 and p99 are known, but for the
    way there and back, which a server without delay shows."""
    loops = [("closed", ["--connections=1"]), ("open", ["--connections=1", "--rate=200"])]
    for number, (loop, options) in enumerate(loops):
        port = PORT + 10 * number
        options = [*options, "--duration=6s"]
        way = delayed(port, 0, 0, 1, *options)["latency_us"]["p50"]
        found = delayed(port + 1, 300, 2000, 50, *options)["latency_us"]
        for name, known in [("p50", 300), ("p99", 2000)]:
            error = found[name] - known - way
            print(
                f"delay, {loop} loop: {name} {found[name]:.1f} µs; known {known} µs and the way "
                f"{way:.1f} µs; off by {error:+.1f} µs ({100 * error / (known + way):+.1f} %)"
            )


def start_server():
    """Starts an epoll server; returns it and its address."""
    program = [f"{RELEASE}/ringmark-server", "--backend", "epoll-et", "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    ready = json.loads(server.stdout.readline())
    return server, ready["addresses"][0].rsplit(":", 1)[1]


def check_law():
    """Connections times depth is the rate times the mean latency, in a closed loop."""
    for connections, pipeline in [(1, 1), (16, 4), (64, 1)]:
        server, port = start_server()
        try:
            result = load(
                port, f"--connections={connections}", f"--pipeline={pipeline}", "--duration=2s"
            )
        finally:
            server.terminate()
            server.wait()
        known = connections * pipeline
        found = result["achieved_per_s"] * result["latency_us"]["mean"] / 1e6
        print(
            f"Little's law: {known} in flight, by rate and mean latency {found:.2f}; off by "
            f"{100 * (found / known - 1):+.2f} %"
        )


def check_second_client():
    """One message to and fro: our load, a loop of blocking calls, and sockperf with its server."""
    server, port = start_server()
    try:
        ours = load(port, "--connections=1", "--duration=3s")["latency_us"]["p50"]
        blocking = blocking_p50_us(port)
    finally:
        server.terminate()
        server.wait()
    print(
        f"second client: p50 {ours:.1f} µs by ringmark, {blocking:.1f} µs by a blocking loop in "
        f"Python, over the same server; off by {ours - blocking:+.1f} µs"
    )
    if not shutil.which("sockperf"):
        print("third client: not asked, sockperf is not installed")
        return
    theirs = sockperf_p50_us(PORT + 50)
    print(
        f"third client: p50 {theirs:.1f} µs by sockperf, over its own server; off by "
        f"{ours - theirs:+.1f} µs"
    )


def blocking_p50_us(port):
    """Returns the median time of a message there and back, in µs."""
    message = bytes(range(64))
    times_ns = []
    with socket.create_connection(("127.0.0.1", int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            begun = time.perf_counter_ns()
            connection.sendall(message)
            answer = connection.recv(64, socket.MSG_WAITALL)
            times_ns.append(time.perf_counter_ns() - begun)
            assert answer == message, "the server altered bytes"
    return statistics.median(times_ns) / 1000


def sockperf_p50_us(port):
    """Returns sockperf's median time there and back, in µs."""
    where = ["--tcp", "--ip=127.0.0.1", f"--port={port}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(["sockperf", "server", *where], **quiet)
    try:
        time.sleep(0.5)
        command = ["sockperf", "ping-pong", *where, "--msg-size=64", "--time=3", "--full-rtt"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    finally:
        server.terminate()
        server.wait()
    return float(re.search(r"percentile 50\.0+ *= *([0-9.]+)", said)[1])


def check_task_clock():
    """The server's CPU clock against perf's, over the same echoes."""
    if not shutil.which("perf"):
        print("task clock: not checked, perf is not installed")
        return
    server, port = start_server()
    perf = subprocess.Popen(
        ["perf", "stat", "-x,", "-e", "task-clock", "-p", str(server.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.5)
    with_clock = load(port, "--connections=16", "--echoes=200000")
    perf.send_signal(2)
    line = next(line for line in perf.communicate()[1].splitlines() if "task-clock" in line)
    server.terminate()
    end = json.loads(server.stdout.read().splitlines()[-1])
    server.wait()
    echoes = with_clock["echoes"]
    by_perf = float(line.split(",")[0]) * 1e6 / echoes
    by_us = end["cpu_ns"] / echoes
    print(
        f"task clock: {by_perf:.0f} ns an echo by perf, {by_us:.0f} ns by the server's clock, from "
        f"start to end; off by {100 * (by_us / by_perf - 1):+.2f} %"
    )


check_delays()
check_law()
check_second_client()
check_task_clock()
