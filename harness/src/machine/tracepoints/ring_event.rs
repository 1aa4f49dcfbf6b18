//! The tracepoints of io_uring.

use super::Tracepoint;

/// Something happens within io_uring.
///
/// Each of these fires in the task that does it: a thread that submits or waits, its SQPOLL thread,
/// or an io-wq worker. A counter that is inherited follows all three, so that the counts are exact.
/// Two tracepoints that one may look for are not here. `io_uring_task_add` tells that a request has
/// become ready, and fires in whatever task made it so: of an echo server that is its client, which
/// the server's counters do not see. `io_uring_register` says no more than the count of the call of
/// that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingEvent {
    /// A request is taken from the submission queue. Older kernels have another name for it
    /// (`io_uring_submit_sqe`).
    SubmitReq,
    /// A completion is put into the completion queue, each of a multishot request's too; not of a
    /// request that skips it (CQE_SKIP_SUCCESS). Older kernels count one for which the queue has no
    /// room here too.
    Complete,
    /// A completion finds the completion queue full, and waits in the kernel.
    CqeOverflow,
    /// A request that cannot go on at once waits for its file to become ready. A request to poll is
    /// not counted: waiting is all that it does.
    PollArm,
    /// A wait for completions finds fewer than it waits for, and goes to sleep.
    CqringWait,
    /// A thread works off what has become ready, on a ring with DEFER_TASKRUN.
    LocalWorkRun,
    /// The same on a ring without it. An SQPOLL thread does so in each turn in which it looks for
    /// requests, whether anything has become ready or not: there it counts the turns.
    TaskWorkRun,
    /// A request looks up the file of a descriptor; one on a direct descriptor does not.
    FileGet,
    /// A request is handed to an io-wq worker.
    QueueAsyncWork,
    /// A request is linked to the one before it.
    Link,
}

impl RingEvent {
    /// All of them.
    pub const ALL: [RingEvent; 10] = [
        RingEvent::SubmitReq,
        RingEvent::Complete,
        RingEvent::CqeOverflow,
        RingEvent::PollArm,
        RingEvent::CqringWait,
        RingEvent::LocalWorkRun,
        RingEvent::TaskWorkRun,
        RingEvent::FileGet,
        RingEvent::QueueAsyncWork,
        RingEvent::Link,
    ];

    /// The kernel's name of the tracepoint.
    pub const fn name(self) -> &'static str {
        match self {
            RingEvent::SubmitReq => "io_uring_submit_req",
            RingEvent::Complete => "io_uring_complete",
            RingEvent::CqeOverflow => "io_uring_cqe_overflow",
            RingEvent::PollArm => "io_uring_poll_arm",
            RingEvent::CqringWait => "io_uring_cqring_wait",
            RingEvent::LocalWorkRun => "io_uring_local_work_run",
            RingEvent::TaskWorkRun => "io_uring_task_work_run",
            RingEvent::FileGet => "io_uring_file_get",
            RingEvent::QueueAsyncWork => "io_uring_queue_async_work",
            RingEvent::Link => "io_uring_link",
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
