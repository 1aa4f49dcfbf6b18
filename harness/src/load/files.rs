//! How many connections the threads of a load can hold: each thread in a file table of its own, or
//! all in one.

use std::io;

use anyhow::{Result, bail, ensure};

/// Files of a thread that are no connections: standard streams, epoll, pipes, and room to spare.
pub const OTHER_FILES: u64 = 64;

/// Files of a thread that shares its table with others: epoll, a timer, and room to spare.
pub const FILES_OF_A_THREAD: u64 = 4;

/// The file tables that the threads of this process can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileTables {
    /// Files in one of them (RLIMIT_NOFILE).
    pub files: u64,
    /// Why all threads have to share one: the error of unshare(CLONE_FILES). The seccomp profile of
    /// a container may refuse it.
    pub refused: Option<String>,
}

impl FileTables {
    /// Raises the limit of open files, and tries whether a thread may have a table of its own.
    pub fn look() -> io::Result<Self> {
        let files = ringmark::process::raise_open_files_limit()?;
        let tried = std::thread::Builder::new().spawn(ringmark::process::unshare_files)?.join();
        let tried =
            tried.unwrap_or_else(|_| Err(io::Error::other("the thread that tries it panicked")));
        Ok(Self { files, refused: tried.err().map(|error| error.to_string()) })
    }

    /// Whether each thread has its own.
    pub fn are_own(&self) -> bool {
        self.refused.is_none()
    }

    /// Returns how many connections so many threads can hold together.
    pub fn room(&self, threads: usize) -> usize {
        let (threads, connections) = (threads as u64, self.files.saturating_sub(OTHER_FILES));
        let room = if self.are_own() {
            connections.saturating_mul(threads)
        } else {
            let of_others = FILES_OF_A_THREAD.saturating_mul(threads.saturating_sub(1));
            connections.saturating_sub(of_others)
        };
        usize::try_from(room).unwrap_or(usize::MAX)
    }

    /// Returns the fewest threads that hold so many connections. More threads hold no more if all
    /// share one table.
    pub fn threads_for(&self, connections: usize) -> usize {
        if self.are_own() { connections.div_ceil(self.room(1).max(1)).max(1) } else { 1 }
    }

    /// Returns the words of a run's result: `own`, or `shared` with the reason.
    pub fn words(&self) -> String {
        match &self.refused {
            None => "own".to_owned(),
            Some(why) => format!("shared: {why}"),
        }
    }

    /// Returns how many threads to start for so many connections.
    pub(super) fn threads(&self, asked: Option<usize>, connections: usize) -> Result<usize> {
        let (files, needed) = (self.files, self.threads_for(connections));
        ensure!(
            self.room(1) > 0,
            "RLIMIT_NOFILE {files}: too few files; raise it with `ulimit -n`"
        );
        let threads = asked.unwrap_or(needed);
        ensure!(threads > 0, "--threads 0: at least one thread is needed");
        ensure!(
            threads <= connections,
            "--threads {threads}: more than the {connections} of --connections, some would have \
             nothing to do"
        );
        let room = self.room(threads);
        if connections <= room {
            return Ok(threads);
        }
        match &self.refused {
            Some(why) => bail!(
                "--connections {connections}: {room} fit. All threads of the load share one file \
                 table of {files} files (RLIMIT_NOFILE), because of {why}; a container's seccomp \
                 profile allows it with CAP_SYS_ADMIN only. Raise `ulimit -n`, ask for fewer \
                 connections, or allow it: --cap-add SYS_ADMIN, or --security-opt \
                 seccomp=unconfined"
            ),
            None => bail!(
                "--threads {threads} with --connections {connections}: a thread holds {} at most \
                 (RLIMIT_NOFILE is {files}); pass --threads {needed}, or none",
                self.room(1)
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn tables(files: u64, refused: Option<&str>) -> FileTables {
        FileTables { files, refused: refused.map(str::to_owned) }
    }

    #[test]
    fn threads_with_tables_of_their_own_hold_more_than_one() {
        let own = tables(1024, None);
        assert_eq!((own.room(1), own.room(3)), (960, 2880));
        assert_eq!((own.threads_for(960), own.threads_for(961), own.threads_for(2880)), (1, 2, 3));
        assert_eq!(own.threads(None, 2880).unwrap(), 3);
        let line = own.threads(Some(1), 961).unwrap_err().to_string();
        assert!(
            line.starts_with("--threads 1 with --connections 961: a thread holds 960"),
            "{line}"
        );
        assert!(tables(64, None).threads(None, 1).is_err());
        assert_eq!(own.words(), "own");
    }

    #[test]
    fn threads_that_share_a_table_hold_what_fits_it() {
        let shared =
            tables(1024, Some("unshare(CLONE_FILES): Operation not permitted (os error 1)"));
        assert_eq!((shared.room(1), shared.room(3)), (960, 952));
        assert_eq!(
            (shared.threads(None, 960).unwrap(), shared.threads(Some(3), 952).unwrap()),
            (1, 3)
        );
        for (asked, connections, fit) in [(None, 961, "960 fit"), (Some(3), 953, "952 fit")] {
            let line = shared.threads(asked, connections).unwrap_err().to_string();
            for part in [
                fit,
                "CLONE_FILES",
                "Operation not permitted",
                "seccomp",
                "CAP_SYS_ADMIN",
                "ulimit -n",
            ] {
                assert!(line.contains(part), "`{part}` is not in: {line}");
            }
        }
        assert_eq!(
            shared.words(),
            "shared: unshare(CLONE_FILES): Operation not permitted (os error 1)"
        );
    }
}
