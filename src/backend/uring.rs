//! The completion loop, shared by all io_uring backends: it accepts, submits, waits, hands
//! completions on, and stops. The `Handler` serves the connections, and each step of the ladder
//! changes one thing:
//!
//! | backend | input | output | on |
//! |---|---|---|---|
//! | `uring-oneshot` | a receive for each message, into the connection's own buffer | a send from it | |
//! | `uring-multishot` | one multishot receive, into [provided buffers](buffer_ring) | a send for each buffer | |
//! | `uring-multishot-direct` | the same | the same | direct descriptors |
//! | `uring-poll-multishot` | one multishot poll, then a receive into a provided buffer | the same | |
//! | `uring-bundle` | one multishot receive of bundles of buffers | one send for a bundle of buffers | |
//! | `uring-sqpoll` | as `uring-multishot` | as `uring-multishot` | a ring with a submission thread |
//!
//! # Why a late completion cannot touch the wrong connection
//! A descriptor is closed only after every request on it has had its last completion, so there is
//! none left to come when the number is used again. Should the kernel ever prove that wrong, the
//! generation in the [token](token) differs, and the completion only returns its buffer and is
//! counted (`late`).
//!
//! # Why the kernel cannot use memory that is not ours any more
//! All that requests point to is the handler's: receives write to it, sends read it. A request that
//! is under way is counted in `in_flight`, because it has a last completion, or it is a send that
//! is not decided yet (`Ring::decided`). The loop ends in order only when there is neither, and
//! only then is the handler freed. A loop that fails, or panics, leaves it where it is, because
//! closing a ring does not wait for its requests. Its process is about to end anyway.
//!
//! # Urgent data
//! A receive stops in front of TCP's urgent mark, and one that begins there while a signal or work
//! of io_uring is pending for its thread is told that nothing has come (`tcp_recvmsg_locked` in the
//! kernel's tcp.c). A multishot request then waits for more input, so that what follows the mark
//! waits too. With DEFER_TASKRUN, the default, only a signal that stops the process is ever
//! pending. With a submission thread, or another task_run, the input itself is such work. Nothing
//! here can see it, so that `uring-sqpoll` alone may leave what follows urgent data unanswered.

pub mod buffer_ring;
mod core;
mod direct;
mod entries;
mod event_loop;
mod handler;
mod locked;
mod memory;
mod oneshot;
mod provided;
mod request;
mod ring;
mod send_groups;
mod setup;
pub mod token;

// Nobody else may make requests: which are under way is known here only.
use event_loop::Uring;
use provided::{Provided, techniques};

/// `uring-oneshot`.
pub type UringOneshot<C> = Uring<oneshot::Oneshot<C>>;
/// `uring-multishot`.
pub type UringMultishot<C> = Uring<Provided<techniques::Multishot, C>>;
/// `uring-multishot-direct`.
pub type UringMultishotDirect<C> = Uring<Provided<techniques::Direct, C>>;
/// `uring-poll-multishot`.
pub type UringPollMultishot<C> = Uring<Provided<techniques::PollMultishot, C>>;
/// `uring-bundle`.
pub type UringBundle<C> = Uring<Provided<techniques::Bundle, C>>;
/// `uring-sqpoll`.
pub type UringSqpoll<C> = Uring<Provided<techniques::SubmissionThread, C>>;
