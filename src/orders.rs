//! Orders to a running server: signals, and lines on stdin if it was held. Lines reach it even if
//! signals do not: behind ssh, or in a container.
//!
//! The main thread waits for both. The workers know nothing of it.

use crate::process::{self, SignalFd};
use std::io::{self, Write};

/// An order.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// To say what it has counted so far: SIGUSR1, or `counters`.
    Counters,
    /// To end in order, and at the second time at once, with the status of this signal: SIGTERM,
    /// SIGINT, or `stop`.
    Stop(libc::c_int),
    /// To end in order, because nobody is left who could tell it to: stdin has ended.
    Abandoned,
    /// To look whether a worker has ended: SIGUSR2.
    Look,
}

/// The lines of stdin. Its reader in std takes more than the line that it is asked for, and poll(2)
/// does not tell of what is there already.
#[derive(Default)]
pub struct Lines {
    taken: Vec<u8>,
}

impl Lines {
    /// Waits for a line; none if stdin has ended.
    pub fn wait(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// A line that is there.
    fn take(&mut self) -> Option<String> {
        let end = self.taken.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.taken.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim().to_owned())
    }

    /// Takes what has come, or waits for it; false at the end.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 256];
        let length = process::read_stdin(&mut buffer)?;
        self.taken.extend_from_slice(&buffer[..length]);
        Ok(length > 0)
    }
}

/// The sources of orders.
pub struct Orders {
    signals: SignalFd,
    /// None if it was not held, or when stdin has ended.
    stdin: Option<Lines>,
}

impl Orders {
    /// From signals, and from stdin if its lines are given.
    pub fn from(signals: SignalFd, stdin: Option<Lines>) -> Self {
        Self { signals, stdin }
    }

    /// Waits for the next one.
    pub fn wait(&mut self) -> io::Result<Order> {
        loop {
            while let Some(line) = self.stdin.as_mut().and_then(Lines::take) {
                match line.as_str() {
                    "counters" => return Ok(Order::Counters),
                    "stop" => return Ok(Order::Stop(libc::SIGTERM)),
                    _ => complain(&line),
                }
            }
            match self.signals.wait(self.stdin.is_some())? {
                Some(libc::SIGUSR1) => return Ok(Order::Counters),
                Some(signal @ (libc::SIGTERM | libc::SIGINT)) => return Ok(Order::Stop(signal)),
                Some(_) => return Ok(Order::Look),
                // Then stdin has something, or its end.
                None => {
                    if let Some(stdin) = &mut self.stdin
                        && !stdin.read()?
                    {
                        self.stdin = None;
                        return Ok(Order::Abandoned);
                    }
                }
            }
        }
    }
}

fn complain(line: &str) {
    // Nobody listening is no reason to end.
    let _ = writeln!(
        io::stderr(),
        "ringmark-server: stdin: '{line}' is unknown; there are `counters` and `stop`"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_and_come_one_by_one() {
        let mut lines = Lines::default();
        for (come, found) in [
            ("", vec![]),
            ("coun", vec![]),
            ("ters\r\nst", vec!["counters"]),
            ("op\n\nx\n", vec!["stop", "", "x"]),
            ("y", vec![]),
        ] {
            lines.taken.extend_from_slice(come.as_bytes());
            let all: Vec<String> = std::iter::from_fn(|| lines.take()).collect();
            assert_eq!(all, found, "{come:?}");
        }
    }
}
