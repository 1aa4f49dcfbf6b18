//! The differences between these backends.

use crate::backend::uring::{buffer_ring, setup};
use crate::contract::{BackendFacts, Knob, Needs};
use crate::kernel::Version;
use crate::ports::LISTENERS_OF_URING;
use crate::work::WORK_NS;
use crate::zero_copy::ZERO_COPY;
use io_uring::opcode;

/// The differences of one of these backends from another.
pub trait Technique {
    /// `Backend::FACTS`, but for what a ring and the technique say.
    const FACTS: BackendFacts;
    /// Connections are direct descriptors.
    const DIRECT: bool = false;
    /// Input is polled for, then received.
    const POLL: bool = false;
    /// Receives and sends take several buffers.
    const BUNDLE: bool = false;
    /// The ring has a submission thread.
    const SUBMISSION_THREAD: bool = false;
    /// From which kernel on there is a bound to what a receive takes in one go. A multishot one
    /// that takes a buffer at a time has one since MULTISHOT_MAX_RETRY came into the kernel's
    /// net.c; one of bundles is told it.
    const BOUNDED: Version = if Self::BUNDLE {
        (6, 17)
    } else if Self::POLL {
        (0, 0)
    } else {
        (6, 8)
    };
    /// `Handler::OPERATIONS`. IORING_OP_SEND_ZC came with multishot receives (kernel 6.0), which
    /// have no probe.
    const OPERATIONS: &'static [(&'static str, u8)] = &[("SEND_ZC", opcode::SendZc::CODE)];
}

const BUFFERS_PER_CONNECTION: Knob = Knob::number(
    "buffers_per_connection",
    64,
    1..=32_768,
    "buffers, or pieces of them, that may queue on a connection before its receive is paused",
);

const KNOBS: &[Knob] = &[
    setup::TASK_RUN,
    setup::SQ_ENTRIES,
    setup::CQ_ENTRIES,
    setup::REGISTERED_RING,
    setup::NO_IOWAIT,
    setup::BUSY_POLL_US,
    setup::MIN_WAIT_US,
    setup::MIN_WAIT_EVENTS,
    buffer_ring::BUFFERS,
    buffer_ring::BUFFER_BYTES,
    buffer_ring::INCREMENTAL,
    BUFFERS_PER_CONNECTION,
    LISTENERS_OF_URING,
    ZERO_COPY,
    WORK_NS,
];

/// `uring-multishot`.
pub struct Multishot;

impl Technique for Multishot {
    const FACTS: BackendFacts = BackendFacts {
        name: "uring-multishot",
        summary: "multishot accept and receive, provided buffers sent back in place, DEFER_TASKRUN",
        needs: setup::needs("6.1"),
        knobs: KNOBS,
        ..BackendFacts::DEFAULT
    };
}

/// `uring-multishot-direct`.
pub struct Direct;

impl Technique for Direct {
    const FACTS: BackendFacts = BackendFacts {
        name: "uring-multishot-direct",
        summary: "as uring-multishot, with direct descriptors instead of files",
        needs: Needs {
            linux: "6.13",
            default_container: false,
            limits: "io_uring not disabled, RLIMIT_MEMLOCK for each ring; as many direct \
                     descriptors as RLIMIT_NOFILE",
        },
        knobs: KNOBS,
        ..BackendFacts::DEFAULT
    };
    const DIRECT: bool = true;
    const OPERATIONS: &'static [(&'static str, u8)] =
        &[("SEND_ZC", opcode::SendZc::CODE), ("FIXED_FD_INSTALL", opcode::FixedFdInstall::CODE)];
}

/// `uring-poll-multishot`.
pub struct PollMultishot;

impl Technique for PollMultishot {
    const FACTS: BackendFacts = BackendFacts {
        name: "uring-poll-multishot",
        summary: "multishot poll, then a receive into a provided buffer: an idle connection holds \
                  the least memory",
        needs: setup::needs("6.1"),
        knobs: KNOBS,
        ..BackendFacts::DEFAULT
    };
    const POLL: bool = true;
}

/// `uring-bundle`.
pub struct Bundle;

impl Technique for Bundle {
    const FACTS: BackendFacts = BackendFacts {
        name: "uring-bundle",
        summary: "as uring-multishot, but one completion and one send for several buffers: large \
                  and pipelined messages",
        needs: setup::needs("6.10"),
        knobs: &[
            setup::TASK_RUN,
            setup::SQ_ENTRIES,
            setup::CQ_ENTRIES,
            setup::REGISTERED_RING,
            setup::NO_IOWAIT,
            setup::BUSY_POLL_US,
            setup::MIN_WAIT_US,
            setup::MIN_WAIT_EVENTS,
            buffer_ring::BUFFERS,
            buffer_ring::BUFFER_BYTES,
            BUFFERS_PER_CONNECTION,
            LISTENERS_OF_URING,
            ZERO_COPY,
            WORK_NS,
        ],
        ..BackendFacts::DEFAULT
    };
    const BUNDLE: bool = true;
}

/// `uring-sqpoll`.
pub struct SubmissionThread;

impl Technique for SubmissionThread {
    const FACTS: BackendFacts = BackendFacts {
        name: "uring-sqpoll",
        summary: "as uring-multishot, but a thread of the kernel's submits; its CPU time is the \
                  server's",
        needs: Needs {
            linux: "6.0",
            default_container: false,
            limits: "io_uring not disabled, RLIMIT_MEMLOCK for each ring; a CPU for the submission \
                     thread beside the worker's",
        },
        knobs: &[
            setup::SQ_IDLE_MS,
            setup::SQ_CPU,
            setup::SQ_ENTRIES,
            setup::CQ_ENTRIES,
            setup::REGISTERED_RING,
            setup::NO_IOWAIT,
            setup::BUSY_POLL_US,
            setup::MIN_WAIT_US,
            setup::MIN_WAIT_EVENTS,
            buffer_ring::BUFFERS,
            buffer_ring::BUFFER_BYTES,
            buffer_ring::INCREMENTAL,
            BUFFERS_PER_CONNECTION,
            LISTENERS_OF_URING,
            ZERO_COPY,
            WORK_NS,
        ],
        ..BackendFacts::DEFAULT
    };
    const SUBMISSION_THREAD: bool = true;
}
