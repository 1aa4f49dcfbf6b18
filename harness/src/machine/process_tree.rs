//! Finds all processes of a server that forks: one for each connection, or a shell around the
//! server.
//!
//! Inherited counters follow the children by themselves; clocks do not, and are read of each
//! process. Their sum is exact as long as no process begins or ends between two readings. Equal
//! [`Tree`]s of two moments show that, as far as the kernel tells (`faults_of_ended`).

use std::io;

use ringmark::whereabouts::stat_field;

use super::procfs;

/// The processes of a server at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The server's first process, then the others that live, in ascending order.
    pids: Vec<u32>,
    /// The processes that have ended and were not waited for: they use nothing any more.
    dead: Vec<u32>,
    /// Page faults of all children that have ended and were waited for: each has had some. One case
    /// is missed: a child that came and went while its parent ignored SIGCHLD. Nobody waits for
    /// it, and the kernel charges what it used to nobody (wait(2)).
    faults_of_ended: u64,
}

impl Tree {
    /// Stands for a process that is known to have no children.
    pub fn alone(pid: u32) -> Self {
        Self { pids: vec![pid], dead: Vec::new(), faults_of_ended: 0 }
    }

    /// Finds a process and all others below its supervisor: its descendants, and orphans that the
    /// supervisor has inherited from them.
    pub fn read(root: u32, supervisor: u32) -> io::Result<Self> {
        let mut others = children_of(supervisor)?;
        let mut next = 0;
        while let Some(&pid) = others.get(next) {
            others.append(&mut children_of(pid)?);
            next += 1;
        }
        others.sort_unstable();
        others.dedup();
        others.retain(|&pid| pid != root);
        let all = [supervisor, root].into_iter().chain(others.iter().copied());
        let faults_of_ended = all.filter_map(Stat::read).map(|stat| stat.faults_of_ended).sum();
        let (dead, living): (Vec<u32>, Vec<u32>) =
            others.into_iter().partition(|&pid| has_ended(pid));
        let pids = std::iter::once(root).chain(living).collect();
        Ok(Self { pids, dead, faults_of_ended })
    }

    /// Returns their numbers.
    pub fn into_pids(self) -> Vec<u32> {
        self.pids
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.pids.len()
    }

    /// Sums a figure over all of them. A process that has ended since has none; the next tree will
    /// then differ.
    pub fn sum<T: std::ops::AddAssign>(
        &self,
        read: impl Fn(u32) -> io::Result<T>,
    ) -> io::Result<T> {
        let (&root, others) = self.pids.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut sum = read(root)?;
        for &pid in others {
            match read(pid) {
                Ok(more) => sum += more,
                Err(_) if has_ended(pid) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }
}

/// Lists the children of a process, whichever of its threads has made them.
pub fn children_of(pid: u32) -> io::Result<Vec<u32>> {
    let tasks = match std::fs::read_dir(format!("/proc/{pid}/task")) {
        Ok(tasks) => tasks,
        Err(_) if has_ended(pid) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut children = Vec::new();
    for task in tasks {
        let Ok(task) = task else { break };
        let file = task.path().join("children");
        match procfs::read(&file) {
            Ok(text) => {
                children.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()))
            }
            Err(_) if !task.path().join("stat").exists() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(procfs::missing("task/TID/children (CONFIG_PROC_CHILDREN)"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

fn has_ended(pid: u32) -> bool {
    Stat::read(pid).is_none_or(|stat| stat.is_dead)
}

/// The state of a process that has not been waited for (/proc/PID/stat).
struct Stat {
    is_dead: bool,
    faults_of_ended: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&procfs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// Finds state, cminflt and num_threads, the fields 3, 11 and 20 of proc_pid_stat(5).
    fn parse(stat: &str) -> Option<Self> {
        // The state is that of the first thread, which others may outlive.
        let threads: u64 = stat_field(stat, 20)?.parse().ok()?;
        Some(Self {
            is_dead: matches!(stat_field(stat, 3)?, "Z" | "X") && threads <= 1,
            faults_of_ended: stat_field(stat, 11)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use rustix::process::{Pid, Signal, kill_process, kill_process_group};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    /// A shell that does what it is told, line by line, and answers each with a line. Its own
    /// children end with it.
    struct Shell(Child, BufReader<std::process::ChildStdout>);

    impl Shell {
        fn start() -> Self {
            let mut command = Command::new("sh");
            command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap());
            Self(child, lines)
        }

        fn tell(&mut self, line: &str) -> String {
            writeln!(self.0.stdin.as_mut().unwrap(), "{line}").unwrap();
            let mut answer = String::new();
            self.1.read_line(&mut answer).unwrap();
            answer.trim().to_owned()
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            // The shell is not reaped yet, so the number is that of its group.
            let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
            let _ = self.0.wait();
        }
    }

    #[track_caller]
    fn wait_until(is_so: impl Fn() -> bool) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !is_so() {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
    }

    #[test]
    fn children_are_found_and_one_that_came_and_went_shows() {
        let mut shell = Shell::start();
        let root = shell.0.id();
        let read = || Tree::read(root, root).unwrap();
        assert_eq!(shell.tell("echo begun"), "begun");
        assert_eq!(read(), Tree::alone(root));
        let child: u32 = shell.tell("sleep 600 >/dev/null & echo $!").parse().unwrap();
        let with_child = read();
        assert_eq!(with_child.pids, [root, child]);
        assert_eq!(with_child.sum(|_| Ok(1)).unwrap(), 2);
        assert_eq!(read(), with_child, "nothing has happened");
        // An external program, so that the shell has to fork.
        assert_eq!(shell.tell("/bin/true; echo done"), "done");
        let after = read();
        assert_eq!(after.pids, with_child.pids);
        assert_ne!(after, with_child, "a child has come and gone");
    }

    #[test]
    fn what_a_server_has_left_to_its_supervisor_is_its_own() {
        let mut supervisor = Shell::start();
        let root: u32 = supervisor.tell("sleep 600 >/dev/null & echo $!").parse().unwrap();
        let left: u32 = supervisor.tell("sleep 600 >/dev/null & echo $!").parse().unwrap();
        assert_eq!(Tree::read(root, supervisor.0.id()).unwrap().pids, [root, left]);
    }

    #[test]
    fn one_that_is_dead_and_not_waited_for_is_none_of_its_processes() {
        let mut shell = Shell::start();
        // A child that ends when it is told to; what the shell becomes waits for none.
        let child: u32 = shell.tell("sleep 600 >/dev/null & echo $!").parse().unwrap();
        let root = shell.0.id();
        writeln!(shell.0.stdin.as_mut().unwrap(), "exec sleep 600 >/dev/null").unwrap();
        let name = || std::fs::read_to_string(format!("/proc/{root}/comm")).unwrap();
        wait_until(|| name() == "sleep\n");
        let living = Tree::read(root, root).unwrap();
        assert_eq!(living.pids, [root, child]);
        // Its parent waits for no child, so the number stays its own.
        kill_process(Pid::from_raw(child.cast_signed()).unwrap(), Signal::KILL).unwrap();
        wait_until(|| has_ended(child));
        let after = Tree::read(root, root).unwrap();
        assert_eq!((after.count(), after.sum(|_| Ok(1)).unwrap()), (1, 1));
        assert_ne!(after, living, "it ended in between");
        assert_eq!(after, Tree::read(root, root).unwrap(), "it is dead for good");
    }

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let parse = |state: &str, threads: u32| {
            let stat = format!(
                "7 (a) S 1 (b) {state} 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 {threads} 20 21\n"
            );
            Stat::parse(&stat).unwrap()
        };
        assert_eq!((parse("Z", 1).is_dead, parse("Z", 1).faults_of_ended), (true, 10));
        assert!(!parse("S", 1).is_dead);
        assert!(!parse("Z", 2).is_dead, "other threads go on");
        assert!(Stat::parse("7 (a) S 1").is_none());
    }
}
