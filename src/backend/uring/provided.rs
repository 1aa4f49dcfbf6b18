//! The backends that receive into provided buffers and send the echo straight from the buffer that
//! it came in.
//!
//! # One system call an echo
//! The loop submits the sends of a batch and waits for the next batch in the same `io_uring_enter`.
//! With MSG_DONTWAIT a send completes while it is submitted, whatever comes of it; with MSG_WAITALL
//! one that takes only a part counts as failed; with CQE_SKIP_SUCCESS only a failed one has a
//! completion. So once a send is decided (`Ring::decided`) and all completions are
//! taken, it has succeeded if it has none. A send's own completion does not end the wait, and a
//! failed send does not wait for input that may never come.
//!
//! If something is to follow a send (another buffer, the close, a receive that waits for a buffer),
//! the loop only submits, does that, and waits after it. A submission thread cannot be told to
//! submit at once: there a fence, a request that does nothing, is queued behind the send, and its
//! completion ends the wait.
//!
//! # Order and bounds
//! A connection has one send in flight at most, or its bytes could be reordered. Input that arrives
//! meanwhile queues in its buffers; past a limit its receive is cancelled until the queue is down
//! to half. A peer that does not read makes a send fail with EAGAIN: then what it is owed moves to
//! the heap, its buffers go back to the ring, so that slow readers cannot starve the others of
//! buffers, and it is not read until it has taken everything. Buffers that a cancelled receive
//! still fills go back only when it has ended: else it would go on filling them.
//!
//! A receive that finds no buffer ends (ENOBUFS). Its connection goes to the end of a queue and is
//! armed again when a buffer is back; arming it at once would only fail again. Only as many are
//! armed at a time as there are buffers for all that each may take at once: else the first takes
//! those of the others, ends before they do, and so stands before them in the queue again, for
//! ever.
//!
//! # Poll, then receive
//! A multishot poll reports each arrival of data once. The receive that follows does not wait: it
//! may find that an earlier one has taken all (EAGAIN). After one that says that the socket has
//! more, or fills its buffer, the next follows at once; otherwise the next report is waited for.
//! When the report tells of the peer's end, receives follow until one finds it: a Unix socket does
//! not count the end as more, as TCP does (`tcp_inq_hint` in the kernel).
//!
//! # Bundles
//! A receive fills as many buffers as there are bytes for, and one completion names the first. A
//! send of several buffers takes them from a group of its own, lent for that send. One buffer is
//! sent as elsewhere, so small messages cost what they cost without bundles.
//!
//! A multishot receive of bundles goes on for as long as there are bytes and buffers, before its
//! first completion is seen: 256 buffers at a time, 32 times. From kernel 6.17 on it is told to
//! take as many bytes in one go as `buffers_per_connection` allows. A conversation is not told: it
//! gives its buffers back at once.
//!
//! # Ends
//! A multishot receive may never tell of a reset: it takes the last bytes, and waits for a wake-up
//! that came before. So it is after 32 buffers in one go, or as many bytes as it was told, when it
//! goes to the end of the kernel's queue (seen on Linux 6.18.44), and if bytes and reset both come
//! while it is armed (seen on 6.18.15). An echo notices when it sends. A conversation that waits
//! for the rest of a request, or is a sink, would keep its connection for ever. So a poll for
//! nothing but errors watches it. Once that has told of one, the conversation receives without
//! waiting until it finds the error.
//!
//! A Unix socket's end is missed in the same way, because the kernel does not count it as more, as
//! it does with TCP. There the poll is for the end too, and an echo is watched as well.
//!
//! # Kernels that do not bound what a receive takes
//! Before 6.17 a receive of bundles takes all that is in the ring of buffers, before 6.8 any
//! multishot receive does. There the ring holds only as many buffers as there are
//! connections (`Growth::Connected`), 96 at least: that bounds what one connection can take beyond
//! `buffers_per_connection`.

mod connection;
mod connections;
mod handler;
mod input;
mod output;
mod segments;
mod sends;
pub mod techniques;

pub use connections::Provided;
