//! All processes of a server that forks: a process for each connection, or a shell around the
//! server.
//!
//! Counters that are inherited follow the children by themselves; clocks do not, and are read of
//! each process. That is exact as long as none begins or ends between two readings, and [`Tree`]s
//! of two moments that are equal say so, as far as the kernel tells (`faults_of_ended`).

use std::io;

use super::procfs;

/// The processes of a server at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The process that is the server, then the others that live, in ascending order.
    pids: Vec<u32>,
    /// Those that have ended and were not waited for: they use nothing any more.
    dead: Vec<u32>,
    /// Page faults of children that have ended and were waited for, of all of these: any child that
    /// came, went and was waited for has had some. Nothing is seen of one that came and went while
    /// its parent ignored SIGCHLD: nobody waits for it, and the kernel adds what it had used to
    /// nothing (wait(2)).
    faults_of_ended: u64,
}

impl Tree {
    /// A process that is known to have no children.
    pub fn alone(pid: u32) -> Self {
        Self { pids: vec![pid], dead: Vec::new(), faults_of_ended: 0 }
    }

    /// A process with all others below its supervisor: its descendants, and what they have left to
    /// that one.
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

    /// Their numbers.
    pub fn into_pids(self) -> Vec<u32> {
        self.pids
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pids.len()
    }

    /// A figure over all of them. One that has ended since has none; the next tree will then be
    /// another.
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

/// The children of a process, whichever of its threads has made them.
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

/// What /proc/PID/stat tells, of a process that has not been waited for.
struct Stat {
    is_dead: bool,
    faults_of_ended: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&procfs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc_pid_stat(5): state, cminflt and num_threads are fields 3, 11 and 20; the name, field 2,
    /// may hold anything.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_whitespace().collect();
        // The state is that of the first thread, which others may outlive.
        let threads: u64 = fields.get(17)?.parse().ok()?;
        Some(Self {
            is_dead: matches!(*fields.first()?, "Z" | "X") && threads <= 1,
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

    /// A shell that does what it is told, line by line, and answers each with a line. What it
    /// starts ends with it.
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
            // SAFETY: takes no pointer. The shell is not reaped yet, so the number is that of its
            // group.
            unsafe { libc::kill(-(self.0.id() as libc::pid_t), libc::SIGKILL) };
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
        // SAFETY: takes no pointer. Its parent waits for no child, so the number stays its own.
        unsafe { libc::kill(child as libc::pid_t, libc::SIGKILL) };
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
