//! Measures the parts of the io_uring servers by themselves.
//!
//! - `token`: what does it cost that `user_data` carries a kind and a generation beside an index?
//!   Nothing next to a system call, or the tokens would have to go.
//! - `buffer_ring`: what does the book-keeping of provided buffers cost a message, from the
//!   completion that names a buffer to its return to the kernel? Alone (`one`), with as many in
//!   hand as the completions of one enter can name (`turn`), and for a bundle of as many
//!   (`bundle`).
//! - `ring_noop`: what does a crossing into the kernel cost either way, and what is left of it in a
//!   batch?
//!
//! # What compares with what in `ring_noop`
//! - `getppid` crosses and does next to nothing: the floor under every system call.
//! - `nop/N` is one enter that submits N requests and takes their N completions. A request that
//!   does nothing still is made, issued and completed, so that `nop/1` over `getppid` is what
//!   io_uring asks for any request, and `nop/256` by the element is what a request costs when
//!   crossing costs it nothing any more.
//! - `epoll_ctl` is one change of one registration (MOD, of a descriptor that is not ready), a
//!   crossing each, for which epoll has no batch. It compares with a request: `nop/1` where there
//!   is only one to make, the later ones by the element where there are many.
//! - `epoll_wait/N` is one wait that finds N eventfds ready, level-triggered, and does not sleep.
//!   It does **not** compare with `nop/N`: the completion of a real request has brought the bytes,
//!   while after a wait each of its N descriptors still wants a receive and a send, which are
//!   crossings of at least a `getppid` each.
//!
//! Nothing sleeps and nothing is woken here, so that no service is as fast as its calls are: see
//! `servers`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;
use io_uring::{EnterFlags, IoUring, opcode};
use ringmark::backend::uring::buffer_ring::{BufferRing, Growth};
use ringmark::backend::uring::token::{RequestKind, Token};
use ringmark::counters::Counters;
use ringmark::sys;
use std::hint::black_box;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::parent_id;
use std::time::Duration;

/// Tokens of one iteration.
const TOKENS: usize = 1024;

const SEED: u64 = 1;

/// Provided buffers and their size, as by default.
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: usize = 4096;

/// Completions that one enter makes at most.
const TURN: u16 = 40;

/// Requests of one enter, or descriptors that are ready at one wait.
const BATCHES: [usize; 5] = [1, 4, 16, 64, 256];

fn token(criterion: &mut Criterion) {
    let mut rng = Rng::with_seed(SEED);
    let tokens = Vec::from_iter((0..TOKENS).map(|_| {
        let kind = [RequestKind::Receive, RequestKind::Send][rng.usize(0..2)];
        Token { kind, generation: rng.u32(0..1 << 24), index: rng.u32(..) }
    }));
    let encoded = Vec::from_iter(tokens.iter().map(|token| token.encode()));
    let mut group = criterion.benchmark_group("token");
    group.throughput(Throughput::Elements(TOKENS as u64));
    group.bench_function("encode", |bencher| {
        bencher.iter(|| {
            for token in &tokens {
                black_box(token.encode());
            }
        });
    });
    group.bench_function("decode", |bencher| {
        bencher.iter(|| {
            for &user_data in &encoded {
                black_box(Token::decode(user_data));
            }
        });
    });
    group.finish();
}

fn buffer_ring(criterion: &mut Criterion) {
    let uring = match IoUring::new(4) {
        Ok(uring) => uring,
        Err(error) => return skip("buffer_ring", &error),
    };
    // SAFETY: nothing ever receives: what is taken are zeros.
    let mut buffers = match unsafe {
        BufferRing::new(&uring.submitter(), BUFFERS, BUFFER_BYTES, false, Growth::Used)
    } {
        Ok(buffers) => buffers,
        Err(error) => return skip("buffer_ring", &error),
    };
    // Given back in the order in which they were taken, they also stand in the ring in the order of
    // their numbers.
    let (in_ring, mut next) = (buffers.available() as u16, 0);
    let mut take_turns = move |count: u16| {
        let first = next;
        next = (next + count) % in_ring;
        (first..first + count).map(move |id| id % in_ring)
    };
    let mut pieces = Vec::with_capacity(usize::from(TURN));

    let mut group = criterion.benchmark_group("buffer_ring");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one", |bencher| {
        bencher.iter(|| {
            for id in take_turns(1) {
                let piece = buffers.take(id, BUFFER_BYTES as u32, false);
                buffers.give_back(black_box(piece));
            }
        });
    });
    group.throughput(Throughput::Elements(u64::from(TURN)));
    group.bench_function("turn", |bencher| {
        bencher.iter(|| {
            pieces.extend(take_turns(TURN).map(|id| buffers.take(id, BUFFER_BYTES as u32, false)));
            black_box(&mut pieces).drain(..).for_each(|piece| buffers.give_back(piece));
        });
    });
    group.bench_function("bundle", |bencher| {
        bencher.iter(|| {
            let first = take_turns(TURN).next().unwrap_or_default();
            let bytes = u32::from(TURN) * BUFFER_BYTES as u32;
            buffers.take_bundle(first, bytes, |_, piece| pieces.push(piece));
            black_box(&mut pieces).drain(..).for_each(|piece| buffers.give_back(piece));
        });
    });
    group.finish();
}

fn ring_noop(criterion: &mut Criterion) {
    let counters = Counters::default();
    let mut group = criterion.benchmark_group("ring_noop");
    match Ring::new() {
        Ok(mut ring) => {
            for batch in BATCHES {
                group.throughput(Throughput::Elements(batch as u64));
                group.bench_function(BenchmarkId::new("nop", batch), |bencher| {
                    bencher.iter(|| ring.nops(&counters, batch));
                });
            }
        }
        Err(error) => skip("ring_noop/nop", &error),
    }
    for batch in BATCHES {
        let mut ready = None;
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("epoll_wait", batch), |bencher| {
            let (epoll, _eventfds) = ready.get_or_insert_with(|| ready_eventfds(&counters, batch));
            let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; batch];
            bencher.iter(|| {
                let found = sys::epoll_wait(&counters, epoll.as_raw_fd(), &mut events, -1);
                assert_eq!(found.expect("a wait"), batch);
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("epoll_ctl", |bencher| {
        let (epoll, eventfd) = (epoll(), eventfd());
        register(&counters, &epoll, &eventfd, libc::EPOLL_CTL_ADD);
        bencher.iter(|| register(&counters, &epoll, &eventfd, libc::EPOLL_CTL_MOD));
    });
    group.bench_function("getppid", |bencher| bencher.iter(parent_id));
    group.finish();
}

fn skip(what: &str, error: &io::Error) {
    eprintln!(
        "{what}: skipped: io_uring: {error}; `ringmark-server --list` says why, and what to do \
         about it"
    );
}

/// A ring with the flags of the servers', entered as they do.
struct Ring {
    uring: IoUring,
    registered: u32,
}

impl Ring {
    fn new() -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_submit_all().setup_defer_taskrun();
        let uring = builder.build(BATCHES[BATCHES.len() - 1] as u32)?;
        let registered = sys::register_ring_fd(uring.as_raw_fd())?;
        Ok(Self { uring, registered })
    }

    /// Submits so many requests and takes their completions, with one enter.
    fn nops(&mut self, counters: &Counters, count: usize) {
        for _ in 0..count {
            // SAFETY: the request has no address.
            unsafe { self.uring.submission().push(&opcode::Nop::new().build()) }
                .expect("the queue has room");
        }
        let flags = EnterFlags::GETEVENTS | EnterFlags::REGISTERED_RING;
        let (fd, count) = (self.registered as RawFd, count as u32);
        sys::io_uring_enter(counters, fd, count, count, flags.bits(), None).expect("an enter");
        let succeeded =
            self.uring.completion().filter(|completion| completion.result() == 0).count();
        assert_eq!(succeeded, count as usize);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        sys::unregister_ring_fd(self.uring.as_raw_fd(), self.registered);
    }
}

fn epoll() -> OwnedFd {
    sys::epoll_create().expect("an epoll instance")
}

fn eventfd() -> OwnedFd {
    sys::eventfd().expect("an eventfd; see `ulimit -n`")
}

fn register(counters: &Counters, epoll: &OwnedFd, fd: &OwnedFd, operation: libc::c_int) {
    let (epoll, fd) = (epoll.as_raw_fd(), fd.as_raw_fd());
    sys::epoll_ctl(counters, epoll, operation, fd, libc::EPOLLIN as u32, fd as u64)
        .expect("a registration");
}

/// An epoll instance and so many eventfds that it always finds ready.
fn ready_eventfds(counters: &Counters, count: usize) -> (OwnedFd, Vec<OwnedFd>) {
    let epoll = epoll();
    let eventfds = Vec::from_iter((0..count).map(|_| {
        let eventfd = eventfd();
        sys::eventfd_signal(&eventfd).expect("a signal");
        register(counters, &epoll, &eventfd, libc::EPOLL_CTL_ADD);
        eventfd
    }));
    (epoll, eventfds)
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .nresamples(5_000);
    targets = token, buffer_ring, ring_noop
}
criterion_main!(benches);
