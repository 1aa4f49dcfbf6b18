//! A worker: a thread with its own file table, its listeners, its CPU, and one backend.

use crate::address::Address;
use crate::contract::{Entry, Facts, Knobs, WorkerTask};
use crate::counters::Counters;
use crate::cpus;
use crate::listener::{Listener, Listening};
use crate::process;
use crate::service::Service;
use crate::stop::Stop;
use crate::team::Team;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

/// The task of a worker.
pub struct Plan {
    /// Its place among the workers.
    pub index: usize,
    /// The backend.
    pub backend: &'static Entry,
    /// Its knobs.
    pub knobs: Knobs,
    /// Its service.
    pub service: Service,
    /// How it comes to its listeners.
    pub listening: Vec<Listening>,
    /// The CPU that it runs on, if it is pinned.
    pub cpu: Option<usize>,
    /// All workers of the server.
    pub team: Arc<Team>,
}

/// The message of a worker that accepts connections.
pub struct Up {
    /// Its place among the workers.
    pub index: usize,
    /// Its addresses, ports of 0 resolved.
    pub addresses: Vec<Address>,
    /// Flags and sizes in force in its backend.
    pub in_force: Facts,
}

/// A running worker.
pub struct Worker {
    /// Its counters so far.
    pub counters: Arc<Counters>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

impl Worker {
    /// Starts the thread. It sends `up` one message when it accepts connections, or none when it
    /// fails, and calls `wake` as the last thing that it does, after [`Worker::has_ended`] has
    /// become true.
    pub fn start(
        plan: Plan,
        stop: Arc<Stop>,
        up: mpsc::Sender<Up>,
        wake: fn(),
    ) -> io::Result<Self> {
        let counters = Arc::new(Counters::default());
        let ended = Arc::new(AtomicBool::new(false));
        let thread = std::thread::Builder::new().name(format!("worker-{}", plan.index)).spawn({
            let (counters, ended) = (Arc::clone(&counters), Arc::clone(&ended));
            move || {
                // A worker that panics must not leave the others and the main thread waiting for
                // it.
                let result = catch_unwind(AssertUnwindSafe(|| serve(&plan, &counters, &stop, up)))
                    .unwrap_or_else(|_| Err(io::Error::other("the worker panicked")));
                ended.store(true, Ordering::Release);
                wake();
                result
            }
        })?;
        Ok(Self { counters, ended, thread })
    }

    /// Whether it has done all that it will do.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Waits for the end and says how it went.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the worker panicked")))
    }
}

/// Whether a call is refused by rule (EPERM, EACCES, ENOSYS, EINVAL), and not because files or
/// memory ran out.
fn is_refusal(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput
    )
}

/// Gives the calling thread a file table of its own, where its backend lets it; whether it has one,
/// and its name for the ready line.
///
/// A table of its own has a limit of its own, so that connections are not bounded by one table, and
/// its descriptors need no locking against other threads. The seccomp profiles of containers refuse
/// unshare(2) of any kind: then the workers share one table.
fn take_file_table(backend: &Entry) -> io::Result<(bool, String)> {
    if backend.shares_files {
        return Ok((false, "shared: all workers serve all connections".to_owned()));
    }
    match process::unshare_files() {
        Ok(()) => Ok((true, "own".to_owned())),
        Err(error) if is_refusal(error.kind()) => Ok((false, format!("shared: {error}"))),
        Err(error) => Err(error),
    }
}

fn serve(plan: &Plan, counters: &Counters, stop: &Stop, up: mpsc::Sender<Up>) -> io::Result<()> {
    let (has_own_table, file_table) = take_file_table(plan.backend)?;
    if let Some(cpu) = plan.cpu {
        cpus::pin(&[cpu]).map_err(|error| {
            io::Error::new(error.kind(), format!("pin to CPU {cpu}: {error}; see --cpus"))
        })?;
    }
    // SAFETY: the main thread keeps shared listeners open until each worker is up or has ended, and
    // the copies in this table came from it a moment ago.
    let of_worker = |listening| unsafe { Listener::of_worker(listening, has_own_table) };
    let listeners = plan.listening.iter().map(of_worker).collect::<io::Result<Vec<_>>>()?;
    let addresses = listeners.iter().map(|listener| listener.address().clone()).collect();
    let mut message = Some((addresses, up));
    let Plan { knobs, service, team, .. } = plan;
    let task = WorkerTask { listeners, knobs, service: *service, team };
    plan.backend.serve(task, counters, stop, &mut |mut in_force| {
        in_force.insert("file_table".to_owned(), file_table.clone().into());
        if let Some((addresses, up)) = message.take() {
            // The main thread listens until it has heard from every worker.
            let _ = up.send(Up { index: plan.index, addresses, in_force });
        }
    })
}
