//! All processes of a server that forks: a process for each connection, or a shell around the server.
//!
//! Counters that are inherited follow the children by themselves; clocks do not, and are read of each process. That
//! is exact as long as none begins or ends between two readings, and [`Tree`]s of two moments that are equal say so.

use std::io;
use std::path::Path;

use super::procfs;

/// The processes of a server at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The process that was started, then the others in ascending order.
    pids: Vec<u32>,
    /// Page faults of children that have ended and were waited for, of all of these: any child that has come and
    /// gone has had some.
    faults_of_ended: u64,
}

impl Tree {
    /// A process that is known to have no children.
    pub fn alone(pid: u32) -> Self {
        Self { pids: vec![pid], faults_of_ended: 0 }
    }

    /// A process, its descendants, and those of them that it has left to this process (see [`adopt_orphans`]).
    pub fn read(root: u32) -> io::Result<Self> {
        let mut others = orphans(root)?;
        others.append(&mut children_of(root)?);
        let mut next = 0;
        while let Some(&pid) = others.get(next) {
            others.append(&mut children_of(pid)?);
            next += 1;
        }
        others.sort_unstable();
        others.dedup();
        others.retain(|&pid| pid != root);
        let pids: Vec<u32> = std::iter::once(root).chain(others).collect();
        let faults_of_ended =
            pids.iter().filter_map(|&pid| Stat::read(pid)).map(|stat| stat.faults_of_ended).sum();
        Ok(Self { pids, faults_of_ended })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pids.len()
    }

    /// A figure over all of them. One that has ended since has none; the next tree will then be another.
    pub fn sum<T: std::ops::AddAssign>(&self, read: impl Fn(u32) -> io::Result<T>) -> io::Result<T> {
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

/// Makes this process the parent of those whose own parent ends, in place of init, so that none gets lost.
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: prctl takes no pointer here.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Kills and reaps the processes that a server which has ended has left to this process, until there are no more.
pub fn end_orphans(server: u32) {
    // What cannot be listed cannot be ended.
    while let Some(left) = orphans(server).ok().filter(|left| !left.is_empty()) {
        for pid in left {
            // SAFETY: kill takes no pointer; waitpid takes null where the status is not wanted. The process is a
            // child of this one that nobody else waits for, so that its number cannot have been given to another.
            unsafe {
                libc::kill(pid as libc::pid_t, libc::SIGKILL);
                libc::waitpid(pid as libc::pid_t, std::ptr::null_mut(), 0);
            }
        }
    }
}

/// What a server that is not ours has in its environment, with its own number, and so have its descendants: those
/// that leave its process group are known by it.
pub const MARK: &str = "RINGMARK_SERVER";

/// Descendants of a server that have become children of this process.
fn orphans(server: u32) -> io::Result<Vec<u32>> {
    let mark = format!("{MARK}={server}");
    let is_orphan = |&pid: &u32| {
        let is_of_group = Stat::read(pid).is_some_and(|stat| stat.group == server);
        let is_marked = || {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        };
        pid != server && (is_of_group || is_marked())
    };
    Ok(children_of(std::process::id())?.into_iter().filter(is_orphan).collect())
}

/// The children of a process, whichever of its threads has made them.
fn children_of(pid: u32) -> io::Result<Vec<u32>> {
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
            Ok(text) => children.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
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
    // What is dead and not yet waited for has no program.
    !Path::new(&format!("/proc/{pid}")).exists() || Stat::read(pid).is_none_or(|stat| stat.is_dead)
}

/// What /proc/PID/stat tells, of a process that has not been waited for.
struct Stat {
    is_dead: bool,
    group: u32,
    faults_of_ended: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&procfs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc_pid_stat(5): state, pgrp and cminflt are fields 3, 5 and 11; the name, field 2, may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        Some(Self {
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            group: fields.get(2)?.parse().ok()?,
            faults_of_ended: fields.get(8)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    /// A shell that does what it is told, line by line, and answers each with a line.
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
            let _ = self.0.kill();
            let _ = self.0.wait();
            end_orphans(self.0.id());
        }
    }

    #[test]
    fn children_are_found_and_one_that_came_and_went_shows() {
        adopt_orphans().unwrap();
        let mut shell = Shell::start();
        let root = shell.0.id();
        assert_eq!(shell.tell("echo begun"), "begun");
        let alone = Tree::read(root).unwrap();
        assert_eq!(alone, Tree::alone(root));
        let child: u32 = shell.tell("sleep 600 >/dev/null & echo $!").parse().unwrap();
        let with_child = Tree::read(root).unwrap();
        assert_eq!(with_child.pids, [root, child]);
        assert_eq!(with_child.sum(|_| Ok(1)).unwrap(), 2);
        assert_eq!(Tree::read(root).unwrap(), with_child, "nothing has happened");
        // An external program, so that the shell has to fork.
        assert_eq!(shell.tell("/bin/true; echo done"), "done");
        let after = Tree::read(root).unwrap();
        assert_eq!(after.pids, with_child.pids);
        assert_ne!(after, with_child, "a child has come and gone");
    }

    #[test]
    fn what_is_left_behind_is_adopted_and_ended() {
        adopt_orphans().unwrap();
        let mut shell = Shell::start();
        let root = shell.0.id();
        let orphan: u32 = shell.tell("(sleep 600 >/dev/null & echo $!)").parse().unwrap();
        // Its parent, the subshell, has ended once the shell goes on.
        assert_eq!(shell.tell("echo on"), "on");
        assert_eq!(Tree::read(root).unwrap().pids, [root, orphan]);
        drop(shell);
        assert!(!Path::new(&format!("/proc/{orphan}")).exists(), "killed and reaped");
    }

    #[test]
    fn one_that_left_the_group_is_known_by_its_mark() {
        adopt_orphans().unwrap();
        let mut shell = Shell::start();
        let root = shell.0.id();
        let start = format!("({MARK}={root} setsid sleep 600 >/dev/null & echo $!)");
        let orphan: u32 = shell.tell(&start).parse().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while Stat::read(orphan).unwrap().group == root && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(shell.tell("echo on"), "on");
        assert_eq!(Tree::read(root).unwrap().pids, [root, orphan]);
        drop(shell);
        assert!(!Path::new(&format!("/proc/{orphan}")).exists(), "killed and reaped");
    }

    #[test]
    fn the_fields_are_found_behind_any_name() {
        let stat = Stat::parse("7 (a) S 1 (b) Z 3 4 5 6 7 8 9 10 11 12 13 14\n").unwrap();
        assert_eq!((stat.is_dead, stat.group, stat.faults_of_ended), (true, 4, 10));
        assert!(Stat::parse("7 (a) S 1").is_none());
    }
}
