//! The table of all backends: whether this kernel lets each run, what it needs, and how often it
//! wakes up while nothing happens.

use crate::address::Address;
use crate::backend;
use crate::contract::{Entry, InvalidArgument, Knob, Knobs};
use crate::protocol::{FORMAT_VERSION, ServerEvent};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Idle connections while wake-ups are counted.
const CONNECTIONS: usize = 10;

/// How long a server is left alone before its wake-ups are counted.
const SETTLING: Duration = Duration::from_millis(300);

/// A backend on this machine.
pub struct ListRow {
    entry: &'static Entry,
    unsupported: Option<String>,
    /// Wake-ups per second, or why they could not be counted; none if that was not asked for.
    idle_wakeups: Option<io::Result<f64>>,
}

/// Probes every backend. If `idle` is not zero, also runs each one for that long, with a few idle
/// connections, as a process of the program `server`, all at the same time.
pub fn rows(server: &Path, idle: Duration) -> Result<Vec<ListRow>, InvalidArgument> {
    let mut rows = Vec::new();
    for entry in backend::ALL {
        let unsupported =
            (entry.probe)(&Knobs::parse(entry, &[])?, 1).err().map(|refusal| refusal.reason);
        rows.push(ListRow { entry, unsupported, idle_wakeups: None });
    }
    if !idle.is_zero() {
        thread::scope(|scope| {
            for row in rows.iter_mut().filter(|row| row.unsupported.is_none()) {
                scope.spawn(|| {
                    row.idle_wakeups = Some(idle_wakeups(server, row.entry.name, idle));
                });
            }
        });
    }
    Ok(rows)
}

/// As an object with an array of objects.
pub fn to_json(rows: &[ListRow]) -> Value {
    let backends: Value = rows
        .iter()
        .map(|row| {
            json!({
                "name": row.entry.name,
                "summary": row.entry.summary,
                "echoes": row.entry.echoes,
                "supported": row.unsupported.is_none(),
                "reason": row.unsupported,
                "needs": {
                    "linux": row.entry.needs.linux,
                    "default_container": row.entry.needs.default_container,
                    "limits": row.entry.needs.limits,
                },
                "shares_files": row.entry.shares_files,
                "descriptors_per_worker": row.entry.descriptors_per_worker,
                "idle_wakeups_per_s": row.idle_wakeups.as_ref().and_then(|rate| rate.as_ref().ok()),
                "knobs": row.entry.knobs.iter().map(Knob::to_json).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "format": "ringmark-backends",
        "format_version": FORMAT_VERSION,
        "backends": backends,
    })
}

/// As a table for people, with its legend.
pub fn to_text(rows: &[ListRow]) -> String {
    let header = ["backend", "here", "Linux", "container", "idle/s", "needs"].map(str::to_owned);
    let mut table = vec![header];
    for row in rows {
        let idle = match &row.idle_wakeups {
            None => "-".to_owned(),
            Some(Ok(wakeups)) => format!("{wakeups:.1}"),
            Some(Err(_)) => "?".to_owned(),
        };
        table.push([
            row.entry.name.to_owned(),
            if row.unsupported.is_none() { "ok" } else { "no" }.to_owned(),
            row.entry.needs.linux.to_owned(),
            if row.entry.needs.default_container { "yes" } else { "no" }.to_owned(),
            idle,
            row.entry.needs.limits.to_owned(),
        ]);
    }
    let widths: Vec<usize> =
        (0..6).map(|column| table.iter().map(|row| row[column].len()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for (index, cells) in table.iter().enumerate() {
        let cells: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
        let Some(row) = index.checked_sub(1).and_then(|index| rows.get(index)) else { continue };
        text += &format!("    {}\n", row.entry.summary);
        if let Some(reason) = &row.unsupported {
            text += &format!("    unsupported: {reason}\n");
        }
        if let Some(Err(error)) = &row.idle_wakeups {
            text += &format!("    idle wake-ups not counted: {error}\n");
        }
    }
    text + "\nLinux: the oldest kernel that has what the default knobs use. container: whether the \
    default seccomp profile of\ncommon container runtimes lets it run. idle/s: wake-ups per second \
    of all its threads with 10 idle connections,\nas the kernel counts them; - where not \
    measured.\n"
}

/// Runs a backend with idle connections and counts how often its threads gave up the CPU by
/// themselves: each time, something had woken them.
fn idle_wakeups(server: &Path, backend: &str, time: Duration) -> io::Result<f64> {
    let child = Command::new(server)
        .args(["--backend", backend, "--listen", "127.0.0.1:0", "--drain-seconds", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut server = Reaped(child);
    let address = ready_address(&mut server.0)?;
    let connections =
        (0..CONNECTIONS).map(|_| TcpStream::connect(address)).collect::<io::Result<Vec<_>>>()?;
    thread::sleep(SETTLING);
    let begun = Instant::now();
    let before = sleeps(server.0.id())?;
    thread::sleep(time);
    let counted = sleeps(server.0.id())? - before;
    let elapsed = begun.elapsed();
    drop(connections);
    Ok(counted as f64 / elapsed.as_secs_f64())
}

/// A child that is killed and reaped when it is dropped.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended by itself: then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ready_address(child: &mut Child) -> io::Result<SocketAddr> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let address = match serde_json::from_str(&line) {
        Ok(ServerEvent::Ready { addresses, .. }) => addresses.first().and_then(Address::ip),
        _ => None,
    };
    address.ok_or_else(|| io::Error::other(format!("the server is not ready: {}", line.trim_end())))
}

/// Voluntary context switches of all threads of a process (proc_pid_status(5)).
fn sleeps(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end in between.
        let status = fs::read_to_string(task?.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}
