//! Lists the tracepoints of system calls.

use std::iter;

use ringmark::call::Call;

use super::counters::Reading;
use super::tracefs::Tracepoint;

/// A system call that is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syscall {
    /// A call that a server can make. Not all 360 calls have a counter: with all of them open a
    /// ping-pong took twice as long.
    Named(Call),
    /// Any call, named or not. It is read last: the named calls never exceed it.
    Any,
}

impl From<Call> for Syscall {
    fn from(call: Call) -> Self {
        Self::Named(call)
    }
}

impl Syscall {
    /// Returns the kernel's name of the call.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Named(call) => call.name(),
            Self::Any => "any",
        }
    }
}

impl Tracepoint for Syscall {
    const GROUP: &'static str = "system call tracepoints (CONFIG_FTRACE_SYSCALLS)";
    const NEEDED: Self = Self::Any;

    fn all() -> impl Iterator<Item = Self> {
        Call::ALL.into_iter().map(Self::Named).chain(iter::once(Self::Any))
    }

    fn path(self) -> String {
        match self {
            Self::Named(call) => format!("syscalls/sys_enter_{}", call.name()),
            Self::Any => "raw_syscalls/sys_enter".to_owned(),
        }
    }
}

impl Reading<Syscall> {
    /// Counts all calls, named or not.
    pub fn total(&self) -> u64 {
        self.of(Syscall::Any).unwrap_or_default()
    }

    /// Counts the calls that have no counter of their own.
    pub fn other(&self) -> u64 {
        let named: u64 = Call::ALL.into_iter().filter_map(|call| self.of(call)).sum();
        self.total().saturating_sub(named)
    }
}
