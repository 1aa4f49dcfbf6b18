//! Counts the instructions that a thread executes of its program's own code, by stepping through
//! them (ptrace(2)): exactly, without an emulator or a counter of the processor's. Those of
//! libraries are not counted, because libc copies otherwise on each model of processor.

use super::process;
use std::fs;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

/// A thread that is stepped through until this is dropped, or its process ends.
pub struct Steps {
    process: u32,
    thread: u32,
    counter: Arc<Counter>,
}

#[derive(Default)]
struct Counter {
    count: AtomicU64,
    /// The thread shall run by itself again.
    is_over: AtomicBool,
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.counter.is_over.store(true, SeqCst);
    }
}

impl Steps {
    /// Begins to step through a thread of a child of ours; returns why that is not allowed here.
    pub fn begin(process: u32, thread: u32) -> Result<Self, String> {
        let counter = Arc::new(Counter::default());
        let code = code_of(process);
        let (sender, begun) = std::sync::mpsc::channel();
        thread::spawn({
            let counter = Arc::clone(&counter);
            move || {
                // A step is two changes of tasks, which are quick on one CPU.
                share_a_cpu(thread);
                let seized = seize(thread);
                let is_seized = seized.is_ok();
                // Nobody may wait for it any more.
                let _ = sender.send(seized);
                if is_seized {
                    step(thread, &code, &counter);
                }
            }
        });
        let seized = begun.recv().expect("the stepping thread answers");
        seized.map_err(|error| format!("this process may not trace its child: {error}"))?;
        Ok(Self { process, thread, counter })
    }

    /// Returns how many instructions it has executed, once it waits for its sockets.
    pub fn at_rest(&self) -> u64 {
        let path = format!("/proc/{}/task/{}/stat", self.process, self.thread);
        let is_asleep = || process::fields_of(&path).first().is_some_and(|state| state == "S");
        let look = || {
            let before = self.counter.count.load(SeqCst);
            let is_still = is_asleep() && is_asleep() && self.counter.count.load(SeqCst) == before;
            is_still.then_some(before)
        };
        super::eventually("the thread comes to rest", look, Option::is_some).unwrap_or_default()
    }
}

fn request(what: libc::c_uint, thread: u32, data: libc::c_int) -> io::Result<()> {
    // SAFETY: these requests read and write no memory of ours: their address is null, and their
    // data is a number.
    let returned = unsafe {
        libc::ptrace(what, thread, std::ptr::null_mut::<libc::c_void>(), libc::c_long::from(data))
    };
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn seize(thread: u32) -> io::Result<()> {
    request(libc::PTRACE_SEIZE, thread, 0)?;
    request(libc::PTRACE_INTERRUPT, thread, 0)
}

/// Returns where the code of a process's program is mapped.
fn code_of(process: u32) -> Range<u64> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("the process lives");
    let program = fs::read_link(format!("/proc/{process}/exe")).expect("the process lives");
    let program = program.to_string_lossy();
    let is_code = |line: &&str| line.ends_with(&*program) && line.contains(" r-xp ");
    let line = maps.lines().find(is_code).expect("code of the program");
    let (start, end) =
        line.split_once(' ').and_then(|(range, _)| range.split_once('-')).expect(line);
    let number = |text| u64::from_str_radix(text, 16).expect(line);
    number(start)..number(end)
}

/// Returns the address of the instruction that a stopped thread executes next.
fn next_instruction(thread: u32) -> u64 {
    // SAFETY: the request reads a word of the thread's saved registers, at an offset that stands
    // for an address, and writes nothing.
    let word = unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, thread, INSTRUCTION_POINTER, 0) };
    word.cast_unsigned()
}

/// The offset of the instruction pointer in `struct user` (sys/user.h, x86-64): the 17th of its
/// words.
const INSTRUCTION_POINTER: libc::c_long = 16 * 8;

/// Puts the calling thread and another on the CPU where this one runs. If that is not allowed it
/// only takes longer.
fn share_a_cpu(thread: u32) {
    // SAFETY: the set is a plain array of bits, for which zero is a valid value, and it lives
    // through the calls.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut cpus);
        for task in [0, thread as libc::pid_t] {
            libc::sched_setaffinity(task, size_of::<libc::cpu_set_t>(), &cpus);
        }
    }
}

/// Steps through the thread until it is gone or its count is over.
fn step(thread: u32, code: &Range<u64>, counter: &Counter) {
    loop {
        let mut status = 0;
        // SAFETY: the status is an integer of ours, valid for the call.
        let waited = unsafe { libc::waitpid(thread as libc::pid_t, &mut status, libc::__WALL) };
        if waited < 0 || !libc::WIFSTOPPED(status) {
            return;
        }
        let is_step = libc::WSTOPSIG(status) == libc::SIGTRAP && status >> 16 == 0;
        let is_own = is_step && code.contains(&next_instruction(thread));
        counter.count.fetch_add(u64::from(is_own), SeqCst);
        // A signal of another kind is passed on.
        let is_signal = !is_step && status >> 16 == 0;
        let signal = if is_signal { libc::WSTOPSIG(status) } else { 0 };
        let is_over = counter.is_over.load(SeqCst);
        let next = if is_over { libc::PTRACE_DETACH } else { libc::PTRACE_SINGLESTEP };
        if request(next, thread, signal).is_err() || is_over {
            return;
        }
    }
}
