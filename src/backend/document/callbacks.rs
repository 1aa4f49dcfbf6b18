//! The document's callbacks: accept, receive, send.
//!
//! Each returns what the document's returns: 0 or a length, or -1 for an error. Nobody looks at it.

use super::reactor::{Reactor, event_add, event_del, event_set};
use crate::connection;
use crate::error::{interrupted, would_block};
use crate::listener::{self, Accepted};
use crate::service::Conversation;
use crate::sys;
use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, IntoRawFd, RawFd};

/// The reactor behind a callback's `arg`.
///
/// # Safety
/// `arg` must be what [`Reactor::add_listener`] was given, and no other reference to the reactor
/// may be in use.
unsafe fn reactor<'a, C: Conversation>(arg: *mut c_void) -> &'a mut Reactor<'a, C> {
    // SAFETY: the caller's promise.
    unsafe { &mut *arg.cast() }
}

/// `accept_cb`: accepts one connection and waits for its input.
///
/// # Safety
/// An [`NCallback`](super::event_table::NCallback): called by the reactor that `arg` points to.
pub unsafe fn accept_cb<C: Conversation>(fd: RawFd, _events: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let r: &mut Reactor<'_, C> = unsafe { reactor(arg) };
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
        event_set(ev, client.as_raw_fd(), recv_cb::<C>, arg);
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
pub unsafe fn recv_cb<C: Conversation>(fd: RawFd, _events: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let r: &mut Reactor<'_, C> = unsafe { reactor(arg) };
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
    if !C::ECHOES {
        return take_in(r, fd, received, arg);
    }
    r.work.perform(counters);
    ev.length = received as c_int;
    event_set(ev, fd, send_cb::<C>, arg);
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
pub unsafe fn send_cb<C: Conversation>(fd: RawFd, events: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    let r: &mut Reactor<'_, C> = unsafe { reactor(arg) };
    let (counters, epfd) = (r.counters, r.epfd.as_raw_fd());
    if !C::ECHOES {
        return reply(r, fd, events, arg);
    }
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
        event_set(ev, fd, recv_cb::<C>, arg);
        event_add(counters, epfd, libc::EPOLLIN, ev)
    });
    if waits_again.is_err() {
        close(r, fd, 0);
        return -1;
    }
    sent as c_int
}

/// The rest of `recv_cb` where the service is a conversation: hands the buffer to it, and waits for
/// what it needs next.
fn take_in<C: Conversation>(
    r: &mut Reactor<'_, C>,
    fd: RawFd,
    received: usize,
    arg: *mut c_void,
) -> c_int {
    let (terms, counters) = (r.terms, r.counters);
    r.conversation(fd);
    let Ok(ev) = r.table.find_event(fd) else { return -1 };
    let bytes = &ev.buffer[..received];
    if r.conversations[fd as usize].receive(terms, counters, bytes).is_err() {
        counters.mismatches.add(1);
        close(r, fd, 0);
        return -1;
    }
    r.work.perform(counters);
    wait_for_more(r, fd, arg, received as c_int)
}

/// The same for `send_cb`: sends once.
fn reply<C: Conversation>(
    r: &mut Reactor<'_, C>,
    fd: RawFd,
    events: c_int,
    arg: *mut c_void,
) -> c_int {
    let (terms, counters, epfd) = (r.terms, r.counters, r.epfd.as_raw_fd());
    let Ok(ev) = r.table.find_event(fd) else { return -1 };
    let conversation = &mut r.conversations[fd as usize];
    if C::never_rests(terms) && events & libc::EPOLLIN != 0 {
        // The peer's end, which is not waited for again; or bytes, which nobody asked for.
        let received = sys::recv(counters, fd, &mut ev.buffer, 0);
        let is_end = matches!(received, Ok(0));
        counters.mismatches.add(u64::from(received.is_ok_and(|received| received > 0)));
        conversation.end();
        if !is_end || event_add(counters, epfd, libc::EPOLLOUT, ev).is_err() {
            let _ = event_del(counters, epfd, ev);
            close(r, fd, 0);
            return -1;
        }
    }
    let owed = conversation.owed(terms);
    let Ok(sent) = connection::send(counters, fd, owed) else {
        let _ = event_del(counters, epfd, ev);
        close(r, fd, 0);
        return -1;
    };
    conversation.sent(terms, sent);
    if sent < owed.len() {
        // It is registered for the rest already.
        return sent as c_int;
    }
    if event_del(counters, epfd, ev).is_err() {
        close(r, fd, 0);
        return -1;
    }
    wait_for_more(r, fd, arg, sent as c_int)
}

/// Waits until a conversation that waits for nothing can go on; returns `moved`, or -1.
fn wait_for_more<C: Conversation>(
    r: &mut Reactor<'_, C>,
    fd: RawFd,
    arg: *mut c_void,
    moved: c_int,
) -> c_int {
    let (terms, counters, epfd) = (r.terms, r.counters, r.epfd.as_raw_fd());
    let Ok(ev) = r.table.find_event(fd) else { return -1 };
    let events = if r.conversations[fd as usize].owed(terms).is_empty() {
        event_set(ev, fd, recv_cb::<C>, arg);
        libc::EPOLLIN
    } else {
        event_set(ev, fd, send_cb::<C>, arg);
        // Its peer's end is input.
        libc::EPOLLOUT | if C::never_rests(terms) { libc::EPOLLIN } else { 0 }
    };
    if event_add(counters, epfd, events, ev).is_err() {
        close(r, fd, 0);
        return -1;
    }
    moved
}

/// Notes that the stop signal was given.
///
/// # Safety
/// As for [`accept_cb`].
pub unsafe fn stop_cb<C: Conversation>(_fd: RawFd, _events: c_int, arg: *mut c_void) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { reactor::<C>(arg) }.stopping = true;
    0
}

/// Closes a connection whose event is no longer registered.
fn close<C: Conversation>(r: &mut Reactor<'_, C>, fd: RawFd, abandoned: usize) {
    let conversation = std::mem::take(r.conversation(fd));
    r.counters.bytes_abandoned.add(abandoned as u64 + conversation.owed_bytes());
    // SAFETY: accept_cb gave this descriptor to the table, and only a callback of its own event,
    // which is not called again, closes it.
    sys::close(r.counters, unsafe { sys::own(fd) });
    r.counters.closed.add(1);
}
