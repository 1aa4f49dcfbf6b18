//! The document's callbacks: accept, receive, send.
//!
//! Each returns what the document's returns: 0 or a length, or -1 for an error. Nobody looks at it.

use super::reactor::{Reactor, event_add, event_del, event_set};
use crate::error::{interrupted, would_block};
use crate::listener::{self, Accepted};
use crate::sys;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

/// The reactor behind a callback's `arg`.
///
/// # Safety
/// `arg` must be what [`Reactor::add_listener`] was given, and no other reference to the reactor
/// may be in use.
unsafe fn reactor<'a>(arg: *mut c_void) -> &'a mut Reactor<'a> {
    // SAFETY: the caller's promise.
    unsafe { &mut *arg.cast() }
}

/// `accept_cb`: accepts one connection and waits for its input.
///
/// # Safety
/// An [`NCallback`](super::event_table::NCallback): called by the reactor that `arg` points to.
pub unsafe fn accept_cb(fd: RawFd, _events: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let r = unsafe { reactor(arg) };
    let client = match listener::accept(r.counters, fd, sys::accept) {
        Ok(Accepted::Connection(client)) => client,
        Ok(Accepted::Drained) => return -1,
        // A listener that fails here would report at once and for ever: the reactor ends.
        Ok(Accepted::Paused) => {
            r.failure = r.pause_accepting().err();
            return -1;
        }
        Err(error) => {
            r.failure = Some(error);
            return -1;
        }
    };
    let registered = sys::set_nonblocking(r.counters, client.as_raw_fd()).and_then(|()| {
        let ev = r.table.find_event(client.as_raw_fd())?;
        event_set(ev, client.as_raw_fd(), recv_cb, arg);
        event_add(r.counters, r.epfd.as_raw_fd(), libc::EPOLLIN, ev)
    });
    if registered.is_err() {
        sys::close(r.counters, client);
        r.counters.closed.add(1);
        return -1;
    }
    // The table holds it from here on, by its number; `close` takes it back.
    let _ = client.into_raw_fd();
    0
}

/// `recv_cb`: receives into the event's buffer, then waits until it can be sent.
///
/// # Safety
/// As for [`accept_cb`].
pub unsafe fn recv_cb(fd: RawFd, _events: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let r = unsafe { reactor(arg) };
    let (counters, epfd) = (r.counters, r.epfd.as_raw_fd());
    let Ok(ev) = r.table.find_event(fd) else { return -1 };

    let received = match sys::recv(counters, fd, &mut ev.buffer, 0) {
        Err(error) if would_block(&error) || interrupted(&error) => {
            counters.would_block.add(1);
            return -1;
        }
        received => received.unwrap_or(0),
    };
    counters.bytes_received.add(received as u64);
    let deleted = event_del(counters, epfd, ev);
    if received == 0 || deleted.is_err() {
        close(r, fd, received);
        return -1;
    }
    r.work.perform(counters);
    ev.length = received as c_int;
    event_set(ev, fd, send_cb, arg);
    if event_add(counters, epfd, libc::EPOLLOUT, ev).is_err() {
        close(r, fd, received);
        return -1;
    }
    received as c_int
}

/// `send_cb`: sends what the buffer holds, then waits for input.
///
/// # Safety
/// As for [`accept_cb`].
pub unsafe fn send_cb(fd: RawFd, _events: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let r = unsafe { reactor(arg) };
    let (counters, epfd) = (r.counters, r.epfd.as_raw_fd());
    let Ok(ev) = r.table.find_event(fd) else { return -1 };

    let owed = ev.length as usize;
    let sent = match sys::send(counters, fd, &ev.buffer[..owed], 0) {
        Ok(sent) => sent,
        Err(error) if would_block(&error) || interrupted(&error) => {
            counters.would_block.add(1);
            return -1;
        }
        Err(_) => {
            let _ = event_del(counters, epfd, ev);
            close(r, fd, owed);
            return -1;
        }
    };
    counters.bytes_sent.add(sent as u64);
    if sent < owed {
        // The rest moves to the front and waits for the next EPOLLOUT, for which it is registered
        // already.
        counters.short_sends.add(1);
        ev.buffer.copy_within(sent..owed, 0);
        ev.length = (owed - sent) as c_int;
        return sent as c_int;
    }
    let waits_again = event_del(counters, epfd, ev).and_then(|()| {
        event_set(ev, fd, recv_cb, arg);
        event_add(counters, epfd, libc::EPOLLIN, ev)
    });
    if waits_again.is_err() {
        close(r, fd, 0);
        return -1;
    }
    sent as c_int
}

/// Notes that the stop signal was given.
///
/// # Safety
/// As for [`accept_cb`].
pub unsafe fn stop_cb(_fd: RawFd, _events: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { reactor(arg) }.stopping = true;
    0
}

/// Closes a connection whose event is no longer registered.
fn close(r: &mut Reactor<'_>, fd: RawFd, abandoned: usize) {
    r.counters.bytes_abandoned.add(abandoned as u64);
    // SAFETY: accept_cb gave this descriptor to the table, and only a callback of its own event,
    // which is not called again, closes it.
    sys::close(r.counters, unsafe { sys::own(fd) });
    r.counters.closed.add(1);
}
