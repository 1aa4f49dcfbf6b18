//! Lists the tracepoints of io_uring.

use super::tracefs::Tracepoint;

/// Something that happens within io_uring.
///
/// Each of these fires in the task that does it: a thread that submits or waits, its SQPOLL thread,
/// or an io-wq worker. An inherited counter follows all three, so the counts are exact. Two
/// tracepoints are left out. `io_uring_task_add` fires in whatever task made a request ready: for
/// an echo server that is its client, which the server's counters do not see. `io_uring_register`
/// says no more than the count of the call of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingEvent {
    /// A request is taken from the submission queue. Older kernels have another name for it
    /// (`io_uring_submit_sqe`).
    SubmitReq,
    /// A completion is put into the completion queue, each of a multishot request's too. A request
    /// that skips its completion (CQE_SKIP_SUCCESS) is not counted. Older kernels also count a
    /// completion for which the queue has no room.
    Complete,
    /// A completion finds the completion queue full, and waits in the kernel.
    CqeOverflow,
    /// A request that cannot go on at once waits for its file to become ready. A request to poll is
    /// not counted, because it only waits.
    PollArm,
    /// A wait for completions finds fewer than it waits for, and goes to sleep.
    CqringWait,
    /// A thread works off what has become ready, on a ring with DEFER_TASKRUN.
    LocalWorkRun,
    /// The same on a ring without DEFER_TASKRUN. An SQPOLL thread does so in each turn in which it
    /// looks for requests, ready or not: there the count is of turns.
    TaskWorkRun,
    /// A request looks up the file of a descriptor; one on a direct descriptor does not.
    FileGet,
    /// A request is handed to an io-wq worker.
    QueueAsyncWork,
    /// A request is linked to the one before it.
    Link,
}

impl RingEvent {
    /// Every event, in the order in which they are read.
    pub const ALL: [Self; 10] = [
        Self::SubmitReq,
        Self::Complete,
        Self::CqeOverflow,
        Self::PollArm,
        Self::CqringWait,
        Self::LocalWorkRun,
        Self::TaskWorkRun,
        Self::FileGet,
        Self::QueueAsyncWork,
        Self::Link,
    ];

    /// Returns the kernel's name of the tracepoint.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SubmitReq => "io_uring_submit_req",
            Self::Complete => "io_uring_complete",
            Self::CqeOverflow => "io_uring_cqe_overflow",
            Self::PollArm => "io_uring_poll_arm",
            Self::CqringWait => "io_uring_cqring_wait",
            Self::LocalWorkRun => "io_uring_local_work_run",
            Self::TaskWorkRun => "io_uring_task_work_run",
            Self::FileGet => "io_uring_file_get",
            Self::QueueAsyncWork => "io_uring_queue_async_work",
            Self::Link => "io_uring_link",
        }
    }
}

impl Tracepoint for RingEvent {
    const GROUP: &'static str = "io_uring tracepoints (CONFIG_IO_URING, CONFIG_FTRACE)";
    const NEEDED: Self = Self::Complete;

    fn all() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter()
    }

    fn path(self) -> String {
        format!("io_uring/{}", self.name())
    }
}
