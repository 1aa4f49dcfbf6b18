//! The loop of the backends that wait until a socket is ready and then receive and send: one loop,
//! over a `Selector` that says how to wait, compiled for each of them.
//!
//! # Order
//! A wait hands over a batch of ready descriptors. Each is served before the next wait: a listener
//! accepts, a connection sends what it owes or receives and sends at once, into and from one buffer
//! per worker. A descriptor is closed only while it is served itself, so that no entry of a batch
//! is ever about a connection other than the one that it was reported for. After the batch come the
//! connections whose turn was over before their input was, then the listeners whose rest has ended.
//!
//! # Answers after the batch
//! With `send=after-batch`, an answer is held back in a buffer until the whole batch has
//! been received and worked through, or the buffer is full. Held is only what drained its socket
//! and so ends its connection's turn: whoever goes on to receive sends at once, so that a
//! connection has one held answer at most. All are sent before anybody is served again, those of
//! the batch before the turn of the unfinished, theirs before the next wait. So bytes stay in
//! order, and a connection that is closed has no held answer, unless sending it is what failed:
//! none goes to a later owner of the descriptor.
//!
//! # Bounds
//! A connection that owes something is not read, so it owes at most one receive buffer, and holds
//! memory only then. All held answers of a worker together are less than two receive buffers. A
//! listener accepts at most `accepts_per_turn` connections and a connection receives at most
//! `RECEIVES_PER_TURN` times before the others get their turn. Listeners always report for as
//! long as their queue is not empty; while accepting rests they are not waited for.
//!
//! # Level-triggered: what is waited for is what can be done
//! A state is reported for as long as it lasts, so one receive for each report is enough, and
//! nothing can be missed. It also means that input which must not be read would be reported for
//! ever: a connection that owes something is registered for output alone, and for input again once
//! it owes nothing.
//!
//! # Edge-triggered: why no edge is lost
//! A connection is registered once, for input, output and the peer's end, and reported when
//! something arrives. A turn that stops before the socket is drained must be resumed without an
//! event. There are these ways to stop:
//! - The receive found nothing (EAGAIN), or filled less than the buffer: the socket is drained, and
//!   what arrives is a new edge (epoll(7), "Do I need to continuously read/write a file descriptor
//!   until EAGAIN …?"). Two things cut a receive short although more is there, and each is reported
//!   with the edge that it makes: the peer's end, which does not make a receive longer, and TCP's
//!   urgent mark, at which a receive stops (EPOLLPRI). From then on the loop receives until it
//!   finds nothing, or gets the end, as 0.
//! - The peer takes no more: the send was short, which asks TCP to report space (SOCK_NOSPACE). Its
//!   edge makes the loop send the rest and go on receiving. If a send is never short there is no
//!   wake-up for output but the one at registration, so that asking for it costs nothing.
//! - The turn is over: the connection stands in the queue of the unfinished, and while that is not
//!   empty the loop does not sleep.

mod batch;
pub mod epoll;
mod event_loop;
pub mod poll;
pub mod select;
mod selector;

pub use batch::RECEIVE_BYTES;
pub use event_loop::{ACCEPTS, SENDS_PER_TURN};
