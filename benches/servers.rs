//! Measures what a client sees of each backend, with nothing between it and the loop.
//!
//! - `accept`: how many connections a second are opened, accepted and closed? A number of them is
//!   opened, and when the server has accepted all, reset; it is done when the server has closed
//!   all.
//! - `echo_round_trip`: how long is a small message on its way, when the server does nothing else?
//!   On an idle machine most of it is the waking of CPUs that have halted, which `uring-sqpoll`,
//!   whose thread keeps one awake, is spared.
//! - `echo_throughput`: how many small messages a second go through one thread of the server? One
//!   client thread writes a message on each of its connections, then reads one from each, and
//!   begins again, so that the slower of the two sides sets the pace.
//!
//! These are for a change to a backend: `--save-baseline before`, then `--baseline before`. They do
//! not decide between backends: one is measured after the other, so that whatever the machine does
//! meanwhile is part of the difference, and there is no CPU time here. `ringmark run` decides.
//!
//! The server is a worker as `ringmark-server` runs it, on a thread of this process, pinned to a
//! CPU, the client to another one where there are two. Every byte that comes back is compared.
//! `null`, which does not echo, is left out of `accept` too: it looks for connections that have
//! ended only once a second.
//!
//! A reset leaves no port in TIME_WAIT. If a firewall tracks the connections of the host,
//! measure without it: `unshare -rn sh -c 'ip link set lo up && cargo bench -- accept'`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ringmark::backend::{self, Entry, Knobs};
use ringmark::cpus::{self, CpuList};
use ringmark::echo::Stream;
use ringmark::listener::Listening;
use ringmark::protocol::ServerCounters;
use ringmark::service::Service;
use ringmark::stop::Stop;
use ringmark::worker::{Plan, Worker};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// Connections that are open at a time in `accept` and `echo_throughput`.
const CONNECTIONS: usize = 64;

/// As in most workloads of the matrices.
const MESSAGE_BYTES: usize = 64;

/// Far above what any wait takes: what has not come by then will not come.
const PATIENCE: Duration = Duration::from_secs(20);

fn servers(criterion: &mut Criterion) {
    let backends = supported();
    accept(criterion, &backends);
    echo(criterion, &backends, "echo_round_trip", 1);
    echo(criterion, &backends, "echo_throughput", CONNECTIONS);
}

/// The backends that echo and that this kernel lets run; says of the others why it does not.
fn supported() -> Vec<(&'static Entry, Knobs)> {
    let mut supported = Vec::new();
    for entry in backend::ALL.iter().filter(|entry| entry.echoes) {
        let knobs = Knobs::parse(entry, &[]).expect("the defaults are valid");
        match (entry.probe)(&knobs, 1) {
            Ok(()) => supported.push((entry, knobs)),
            Err(unsupported) => {
                eprintln!("{}: unsupported, not measured: {unsupported}", entry.name)
            }
        }
    }
    supported
}

fn accept(criterion: &mut Criterion, backends: &[(&'static Entry, Knobs)]) {
    let mut group = criterion.benchmark_group("accept");
    group.throughput(Throughput::Elements(CONNECTIONS as u64));
    for (entry, knobs) in backends {
        let mut server = None;
        group.bench_function(entry.name, |bencher| {
            let server = server.get_or_insert_with(|| Server::start(entry, knobs));
            bencher.iter(|| {
                let sockets = Vec::from_iter((0..CONNECTIONS).map(|_| connect(server.address)));
                server.wait_until_open(CONNECTIONS);
                for socket in sockets {
                    SockRef::from(&socket)
                        .set_linger(Some(Duration::ZERO))
                        .expect("SO_LINGER is set");
                }
                server.wait_until_open(0);
            });
        });
        if let Some(server) = server {
            server.end();
        }
    }
    group.finish();
}

/// Sends a message on each of so many connections, then takes one back from each.
fn echo(
    criterion: &mut Criterion,
    backends: &[(&'static Entry, Knobs)],
    name: &str,
    connections: usize,
) {
    let mut group = criterion.benchmark_group(name);
    let bytes = connections * MESSAGE_BYTES;
    group.throughput(Throughput::ElementsAndBytes {
        elements: connections as u64,
        bytes: bytes as u64,
    });
    for (entry, knobs) in backends {
        let mut talk = None;
        group.bench_function(entry.name, |bencher| {
            let (_, connections) = talk.get_or_insert_with(|| {
                let server = Server::start(entry, knobs);
                let open = |number| Connection::open(server.address, number as u64);
                let connections = Vec::from_iter((0..connections).map(open));
                (server, connections)
            });
            bencher.iter(|| {
                connections.iter_mut().for_each(Connection::send);
                connections.iter_mut().for_each(Connection::receive);
            });
        });
        if let Some((server, connections)) = talk {
            drop(connections);
            server.end();
        }
    }
    group.finish();
}

/// A worker, on a thread of this process.
struct Server {
    address: SocketAddr,
    stop: Arc<Stop>,
    worker: Worker,
}

impl Server {
    /// Its copy of the file table must hold no connection of ours: one that we close would stay
    /// open there.
    fn start(backend: &'static Entry, knobs: &Knobs) -> Self {
        let stop = Arc::new(Stop::new(PATIENCE).expect("an eventfd"));
        let plan = Plan {
            index: 0,
            backend,
            knobs: knobs.clone(),
            service: Service::Echo,
            listening: vec![Listening::Alone(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())],
            cpu: *SERVER_CPU,
            team: Arc::default(),
        };
        let (sender, receiver) = mpsc::channel();
        let worker = Worker::start(plan, Arc::clone(&stop), sender, || {}).expect("a thread");
        match receiver.recv() {
            Ok(up) => {
                let address = up.addresses[0].ip().expect("an IP address");
                Self { address, stop, worker }
            }
            Err(_) => panic!("{} does not start: {:?}", backend.name, worker.join()),
        }
    }

    /// Waits until so many connections are accepted and not closed.
    fn wait_until_open(&self, connections: usize) {
        let begun = Instant::now();
        loop {
            let open = ServerCounters::sum([&*self.worker.counters]).of_loop("open");
            if open == connections as u64 {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{open} connections are open instead of {connections}"
            );
            thread::yield_now();
        }
    }

    /// To be called when all connections are closed, for which it waits.
    fn end(self) {
        self.stop.give().expect("an eventfd takes a signal");
        self.worker.join().expect("the server ends in order");
    }
}

/// The server's CPU, if it has one of its own: then the thread that asks first, the client's, is
/// pinned to another.
static SERVER_CPU: LazyLock<Option<usize>> = LazyLock::new(|| {
    let allowed = CpuList::allowed();
    let Ok([server, client, ..]) = allowed.as_ref().map(CpuList::cpus) else {
        eprintln!(
            "server and client are not pinned: this process may not run on two CPUs, as far as it \
             knows"
        );
        return None;
    };
    cpus::pin(&[*client]).expect("a CPU of the list is allowed");
    eprintln!("server on CPU {server}, client on CPU {client}");
    Some(*server)
});

fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
}

/// A connection that knows what must come back.
struct Connection {
    socket: TcpStream,
    sent: Stream,
    due: Stream,
}

impl Connection {
    fn open(address: SocketAddr, number: u64) -> Self {
        let socket = connect(address);
        socket.set_nodelay(true).expect("TCP_NODELAY is set");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out is set");
        let stream = Stream::new(number);
        Self { socket, sent: stream, due: stream }
    }

    fn send(&mut self) {
        self.socket.write_all(self.sent.peek(MESSAGE_BYTES)).expect("the server takes a message");
        self.sent.advance(MESSAGE_BYTES);
    }

    fn receive(&mut self) {
        let mut message = [0; MESSAGE_BYTES];
        self.socket.read_exact(&mut message).expect("the server sends a message back");
        self.due.verify(&message).unwrap_or_else(|wrong| panic!("not what was sent: {wrong:?}"));
    }
}

criterion_group! {
    name = benches;
    // All of it within four minutes.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(5))
        .sample_size(50)
        .nresamples(5_000);
    targets = servers
}
criterion_main!(benches);
