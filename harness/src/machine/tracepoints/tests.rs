#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{ptr, thread};

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use ringmark::call::Call;

use super::tracefs::ids;
use super::*;
use crate::machine::cpu::Tasks;

const STACK_BYTES: usize = 64 * 1024;
const MAIN_CLOSES: u64 = 7;
const FIRST_SENDS: u64 = 1000;
const SECOND_RECEIVES: u64 = 300;
const SECOND_CONTROLS: u64 = 40;
const OTHERS: u64 = 5;

/// The child's data, allocated before the fork.
struct Script {
    start: i32,
    report: i32,
    /// Is never written to nor closed: a read from it lasts until the process is killed.
    never: i32,
    stacks: [*mut libc::c_void; 2],
}

/// Makes the call `times` times with arguments that the kernel refuses at once.
fn refused_calls(times: u64, number: libc::c_long) {
    for _ in 0..times {
        // SAFETY: the callers pass calls whose first argument is a descriptor; -1 is none, so that
        // the kernel returns EBADF before it looks at any other argument.
        unsafe { libc::syscall(number, -1, 0, 0, 0, 0, 0) };
    }
}

fn byte(number: libc::c_long, descriptor: i32) {
    let mut byte = [0u8; 1];
    // SAFETY: `number` is read(2) or write(2), on one byte of a local that lives through the call.
    unsafe { libc::syscall(number, descriptor, byte.as_mut_ptr(), 1) };
}

/// A thread with a descriptor table of its own, that ends.
extern "C" fn first_thread(script: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the parent passes a Script that outlives both threads.
    let script = unsafe { &*script.cast::<Script>() };
    // SAFETY: unshare takes no pointers.
    unsafe { libc::unshare(libc::CLONE_FILES) };
    refused_calls(FIRST_SENDS, libc::SYS_sendto);
    byte(libc::SYS_write, script.report);
    0
}

/// A thread that stays.
extern "C" fn second_thread(script: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the parent passes a Script that outlives both threads.
    let script = unsafe { &*script.cast::<Script>() };
    refused_calls(SECOND_RECEIVES, libc::SYS_recvfrom);
    refused_calls(SECOND_CONTROLS, libc::SYS_epoll_ctl);
    byte(libc::SYS_write, script.report);
    byte(libc::SYS_read, script.never);
    0
}

/// The child of a fork: system calls only, since another thread of the tests may have held any
/// lock.
fn child(script: &Script) -> ! {
    byte(libc::SYS_read, script.start);
    refused_calls(MAIN_CLOSES, libc::SYS_close);
    refused_calls(OTHERS, libc::SYS_fsync);
    let flags = libc::CLONE_VM
        | libc::CLONE_FS
        | libc::CLONE_FILES
        | libc::CLONE_SIGHAND
        | libc::CLONE_THREAD;
    let argument = ptr::from_ref(script).cast_mut().cast();
    // SAFETY: each thread gets the upper end of its own mapping of STACK_BYTES. The threads share
    // the main thread's TLS, of which they touch only errno. `_exit` never returns.
    unsafe {
        libc::clone(first_thread, script.stacks[0].add(STACK_BYTES), flags, argument);
        libc::clone(second_thread, script.stacks[1].add(STACK_BYTES), flags, argument);
        byte(libc::SYS_read, script.never);
        libc::_exit(0)
    }
}

/// Kills and reaps the child whatever becomes of the test.
struct Reaped(libc::pid_t);

impl Drop for Reaped {
    fn drop(&mut self) {
        // SAFETY: the pid is of a child that nobody else waits for, so that it cannot have been
        // given to another.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, ptr::null_mut(), 0);
        }
    }
}

/// A child that is blocked in a read from the writer's pipe, and will report on the reader's.
fn fork_child() -> (Reaped, PipeWriter, PipeReader) {
    let ((start, started), (reported, report), (never, _never_written)) =
        (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
    let stack = || {
        // SAFETY: a new private mapping, which no one else knows; it is kept for the life of the
        // test.
        let stack = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                ptr::null_mut(),
                STACK_BYTES,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(stack, libc::MAP_FAILED);
        stack
    };
    let script = Script {
        start: start.as_raw_fd(),
        report: report.as_raw_fd(),
        never: never.as_raw_fd(),
        stacks: [stack(), stack()],
    };
    // SAFETY: the child makes system calls only.
    match unsafe { libc::fork() } {
        0 => child(&script),
        pid => {
            assert!(pid > 0, "fork: {}", io::Error::last_os_error());
            let reaped = Reaped(pid);
            wait_until(|| Tasks::read(pid.cast_unsigned()).unwrap().all_sleeping);
            (reaped, started, reported)
        }
    }
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn calls_of_all_threads_are_counted_exactly() {
    let (reaped, mut started, mut reported) = fork_child();
    let mut counters = match TracepointCounters::<Syscall>::attach(reaped.0.cast_unsigned()) {
        Ok(counters) => counters,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let before = counters.read().unwrap();
    started.write_all(b"!").unwrap();
    reported.read_exact(&mut [0; 2]).unwrap();
    // A thread that has reported makes one last call, a read or the exit, before it is still.
    let expected = |call| match call {
        Call::Close => MAIN_CLOSES,
        Call::Sendto => FIRST_SENDS,
        Call::Recvfrom => SECOND_RECEIVES,
        Call::EpollCtl => SECOND_CONTROLS,
        Call::Write | Call::Read => 2,
        _ => 0,
    };
    let unnamed = OTHERS + 2 + 1 + 1; // fsync, clone, unshare, exit
    let total = Call::ALL.into_iter().map(expected).sum::<u64>() + unnamed;
    wait_until(|| counters.read().unwrap().total() >= total);
    thread::sleep(Duration::from_millis(20)); // for a call too many to show
    let reading = counters.read().unwrap();
    assert_eq!(before.total(), 0, "a call that had begun before is not counted");
    let missing: Vec<Syscall> = counters.unavailable().collect();
    for call in Call::ALL.into_iter().filter(|call| !missing.contains(&Syscall::Named(*call))) {
        assert_eq!(reading.of(call), Some(expected(call)), "{}", call.name());
    }
    assert_eq!(reading.total(), total);
    if missing.is_empty() {
        assert_eq!(reading.other(), unnamed);
    }
    assert_eq!(reading.since(&before), reading);
    assert_eq!(reading.since(&reading).total(), 0);
}

#[test]
fn a_process_with_threads_is_refused() {
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let second = thread::spawn(move || receive.recv());
    let refusal = TracepointCounters::<Syscall>::attach(std::process::id()).err().unwrap();
    assert!(refusal.reason.contains("threads already"), "{refusal}");
    drop(send);
    second.join().unwrap().unwrap_err();
}

#[test]
fn a_process_that_is_gone_is_named() {
    let mut gone = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
    gone.wait().unwrap();
    let refusal = TracepointCounters::<Syscall>::attach(gone.id()).err().unwrap();
    assert!(refusal.reason.contains(&gone.id().to_string()), "{refusal}");
}

#[test]
fn the_host_keeps_no_mount_of_ours() {
    let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
    let before = mounts();
    let ids = ids::<Syscall>();
    assert_eq!(mounts(), before);
    drop(ids.inspect_err(|why| eprintln!("skipped in part: {why}")));
}

const NOPS: u64 = 1000;
const LINKED: u64 = 20;
const PUNTED: u64 = 10;
const WAITING_RECEIVES: u64 = 50;
const READY_RECEIVES: u64 = 30;
/// After each receive that waits, a request that does nothing tells that it does.
const REQUESTS: u64 = NOPS + 2 * LINKED + PUNTED + 2 * WAITING_RECEIVES + READY_RECEIVES;
const QUEUED: u32 = 64;

/// Queues requests: nops, or receives into memory that is never freed. A submission thread may tell
/// only after their completions that it has taken the ones before.
fn push(ring: &mut IoUring, entries: &[Entry]) {
    // SAFETY: a nop has no address, and the receives' stays valid.
    while unsafe { ring.submission().push_multiple(entries) }.is_err() {
        thread::yield_now();
    }
}

/// Submits the requests, waits for a completion of each, and takes them.
fn complete(ring: &mut IoUring, entries: &[Entry]) {
    push(ring, entries);
    let mut taken = 0;
    while taken < entries.len() {
        ring.submit_and_wait(1).unwrap();
        taken += ring.completion().count();
    }
}

/// A known number of requests of each kind.
fn known_requests(ring: &mut IoUring) {
    let nop = || opcode::Nop::new().build();
    for nops in vec![nop(); NOPS as usize].chunks(QUEUED as usize) {
        complete(ring, nops);
    }
    for _ in 0..LINKED {
        complete(ring, &[nop().flags(Flags::IO_LINK), nop()]);
    }
    for _ in 0..PUNTED {
        complete(ring, &[nop().flags(Flags::ASYNC)]);
    }
    let (mut near, far) = UnixStream::pair().unwrap();
    let byte = Box::leak(Box::new([0u8; 1]));
    let receive = opcode::Recv::new(types::Fd(far.as_raw_fd()), byte.as_mut_ptr(), 1).build();
    for _ in 0..WAITING_RECEIVES {
        push(ring, std::slice::from_ref(&receive));
        complete(ring, &[nop()]);
        near.write_all(b"!").unwrap();
        while ring.completion().next().is_none() {
            ring.submit_and_wait(1).unwrap();
        }
    }
    for _ in 0..READY_RECEIVES {
        near.write_all(b"!").unwrap();
        complete(ring, std::slice::from_ref(&receive));
    }
}

/// Runs `work` in a thread with a ring, and counts what happens in it and in the threads that the
/// kernel makes for it. None where that cannot be counted.
fn counted(
    build: impl FnOnce() -> io::Result<IoUring> + Send,
    work: impl FnOnce(&mut IoUring) + Send,
) -> Option<Reading<RingEvent>> {
    let (tell, told) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            // SAFETY: takes no pointer.
            tell.send(unsafe { libc::gettid() }.cast_unsigned()).unwrap();
            if gone.recv().is_err() {
                return;
            }
            match build() {
                Ok(mut ring) => {
                    work(&mut ring);
                    tell.send(1).unwrap();
                    // The ring's end would make completions too.
                    ended.recv().unwrap_err();
                }
                Err(error) => eprintln!("skipped: no ring: {error}"),
            }
        });
        let thread = told.recv().unwrap();
        let mut counters = match TracepointCounters::open(thread, true) {
            Ok(counters) => counters,
            Err(why) => {
                eprintln!("skipped: {why}");
                drop(go);
                return None;
            }
        };
        go.send(()).unwrap();
        told.recv().ok()?;
        let reading = counters.read().unwrap();
        drop(end);
        Some(reading)
    })
}

type Build = fn() -> io::Result<IoUring>;

#[test]
fn requests_of_every_kind_of_ring_are_counted_exactly() {
    let rings: [(&str, Build); 3] = [
        ("its own task work", || {
            IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(QUEUED)
        }),
        ("the task's work", || IoUring::new(QUEUED)),
        ("a submission thread", || IoUring::builder().setup_sqpoll(10).build(QUEUED)),
    ];
    for (ring, build) in rings {
        let Some(reading) = counted(build, known_requests) else { continue };
        for (event, expected) in [
            (RingEvent::SubmitReq, REQUESTS),
            (RingEvent::Complete, REQUESTS),
            (RingEvent::CqeOverflow, 0),
            (RingEvent::PollArm, WAITING_RECEIVES),
            (RingEvent::FileGet, WAITING_RECEIVES + READY_RECEIVES),
            (RingEvent::QueueAsyncWork, PUNTED),
            (RingEvent::Link, LINKED),
        ] {
            let count = reading.of(event);
            assert!(
                count.is_none_or(|count| count == expected),
                "{ring}, {event:?}: {count:?}, not {expected}"
            );
        }
    }
}

#[test]
fn completions_that_overflow_are_counted_exactly() {
    const SMALL: u32 = 8;
    const ROUNDS: u64 = 4;
    let build = || IoUring::builder().setup_cqsize(2 * SMALL).build(SMALL);
    let mut taken = 0;
    let reading = counted(build, |ring| {
        for _ in 0..ROUNDS {
            push(ring, &vec![opcode::Nop::new().build(); SMALL as usize]);
            ring.submit().unwrap();
        }
        while taken < ROUNDS * u64::from(SMALL) {
            ring.submit_and_wait(1).unwrap();
            taken += ring.completion().count() as u64;
        }
    });
    let Some(reading) = reading else { return };
    let (made, overflowed) =
        (reading.of(RingEvent::Complete).unwrap(), reading.of(RingEvent::CqeOverflow).unwrap());
    assert_eq!(overflowed, (ROUNDS - 2) * u64::from(SMALL));
    assert!(taken == made + overflowed || taken == made, "{made} and {overflowed}, not {taken}");
}
