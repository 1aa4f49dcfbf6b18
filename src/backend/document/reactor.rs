//! The document's reactor: it registers events, waits, and calls back.

use super::event_table::{Event, EventTable, MAX_EPOLL_EVENTS, NCallback};
use crate::counters::Counters;
use crate::error::named;
use crate::listener::AcceptPause;
use crate::service::Conversation;
use crate::sys;
use crate::work::Work;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// How long one wait lasts at most, in milliseconds.
const WAIT_MS: c_int = 1000;

/// `struct reactor`: the epoll instance and the table of events. The fields after them are not
/// the document's.
pub struct Reactor<'a, C: Conversation> {
    /// The epoll instance.
    pub epfd: OwnedFd,
    /// The blocks of events: the document's `blkcnt` and `evblk`.
    pub table: EventTable,
    /// The conversations by descriptor, for which the document's event has no room; an echo has
    /// none.
    pub conversations: Vec<C>,
    /// The sizes of all conversations.
    pub terms: C::Terms,
    /// The worker's counters.
    pub counters: &'a Counters,
    /// The listening sockets, so that accepting can pause while descriptors are out.
    pub listeners: Vec<RawFd>,
    /// While it lasts, no listener is in the epoll set.
    pub rest: AcceptPause,
    /// The application's work for each message.
    pub work: Work,
    /// Set by the stop signal's callback.
    pub stopping: bool,
    /// Set by the callback of a listener that can be used no longer.
    pub failure: Option<io::Error>,
}

/// `event_set`: what is to be called for `fd`.
pub fn event_set(ev: &mut Event, fd: RawFd, callback: NCallback, arg: *mut c_void) {
    ev.fd = fd;
    ev.callback = Some(callback);
    ev.events = 0;
    ev.arg = arg;
}

/// `event_add`: registers the event, or changes its registration. The kernel keeps its address,
/// which is valid for as long as the table is.
pub fn event_add(
    counters: &Counters,
    epfd: RawFd,
    events: c_int,
    ev: &mut Event,
) -> io::Result<()> {
    let operation = if ev.status == 1 { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD };
    let address = std::ptr::from_mut(ev).addr() as u64;
    sys::epoll_ctl(counters, epfd, operation, ev.fd, events as u32, address)?;
    ev.events = events;
    ev.status = 1;
    Ok(())
}

/// `event_del`: takes the event's registration back.
pub fn event_del(counters: &Counters, epfd: RawFd, ev: &mut Event) -> io::Result<()> {
    if ev.status != 1 {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    ev.status = 0;
    sys::epoll_ctl(counters, epfd, libc::EPOLL_CTL_DEL, ev.fd, 0, 0)
}

impl<C: Conversation> Reactor<'_, C> {
    /// `reactor_addlistener`: has `acceptor` called when `fd` is readable. `r` becomes the event's
    /// `arg`.
    ///
    /// # Safety
    /// `r` must point to a reactor that lives, and stays in its place, for as long as it runs, and
    /// no reference to it or into it may be in use.
    pub unsafe fn add_listener(r: *mut Self, fd: RawFd, acceptor: NCallback) -> io::Result<()> {
        // SAFETY: the caller's promise; the reference ends before `r` is used again.
        let reactor = unsafe { &mut *r };
        let ev = reactor.table.find_event(fd)?;
        event_set(ev, fd, acceptor, r.cast());
        event_add(reactor.counters, reactor.epfd.as_raw_fd(), libc::EPOLLIN, ev)
            .map_err(named("epoll_ctl"))
    }

    /// `reactor_run`: waits and calls back until `stopping`.
    ///
    /// # Safety
    /// As for [`Reactor::add_listener`].
    pub unsafe fn run(r: *mut Self) -> io::Result<()> {
        // SAFETY: the caller's promise; both are copied out, and the reference ends here.
        let (epfd, counters) = unsafe { ((*r).epfd.as_raw_fd(), (*r).counters) };
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MAX_EPOLL_EVENTS + 1];
        // SAFETY: as above; a callback is the only other user of the reactor, and it has returned.
        while !unsafe { (*r).stopping } {
            let ready = sys::epoll_wait(counters, epfd, &mut events[..MAX_EPOLL_EVENTS], WAIT_MS)?;
            for event in &events[..ready] {
                // SAFETY: the address was registered by event_add, so it is that of an event in the
                // table, whose blocks are exposed; events never move and the table lives as long as
                // the reactor. No reference into the table is in use.
                unsafe {
                    dispatch(
                        event.events as c_int,
                        std::ptr::with_exposed_provenance(event.u64 as usize),
                    )
                };
            }
            // SAFETY: as above.
            if let Some(error) = unsafe { (*r).failure.take() } {
                return Err(error);
            }
            // SAFETY: as above.
            unsafe { (*r).resume_accepting()? };
        }
        Ok(())
    }

    /// Takes the listeners out of the epoll set: level-triggered, they would report at once and for
    /// ever that there is a connection which cannot be accepted.
    pub fn pause_accepting(&mut self) -> io::Result<()> {
        self.rest.begin(self.counters.closed.get());
        for &fd in &self.listeners {
            event_del(self.counters, self.epfd.as_raw_fd(), self.table.find_event(fd)?)?;
        }
        Ok(())
    }

    fn resume_accepting(&mut self) -> io::Result<()> {
        if self.rest.is_over(self.counters.closed.get()) {
            for &fd in &self.listeners {
                let ev = self.table.find_event(fd)?;
                event_add(self.counters, self.epfd.as_raw_fd(), libc::EPOLLIN, ev)?;
            }
        }
        Ok(())
    }

    /// The conversation of a descriptor.
    pub fn conversation(&mut self, fd: RawFd) -> &mut C {
        let index = fd as usize;
        if index >= self.conversations.len() {
            self.conversations.resize_with(index + 1, C::default);
        }
        &mut self.conversations[index]
    }

    /// Every registered descriptor, with what is owed to it.
    pub fn registered(&mut self) -> impl Iterator<Item = (RawFd, &[u8])> {
        self.table.iter_mut().filter(|ev| ev.status == 1).map(|ev| {
            let sending = C::ECHOES && ev.events & libc::EPOLLOUT != 0;
            (ev.fd, if sending { &ev.buffer[..ev.length as usize] } else { &[] })
        })
    }
}

/// Calls back for one ready event.
///
/// # Safety
/// `ev` must point to an event of the running reactor's table, and no reference to the reactor or
/// into its table may be in use.
unsafe fn dispatch(ready: c_int, ev: *const Event) {
    // The event's wish is copied before the callback runs, because the callback changes it: the
    // document's test for EPOLLOUT looks at what its callback for EPOLLIN has just set.
    // SAFETY: the caller's promise; the fields are copied and the reference ends here.
    let &Event { fd, events: wanted, arg, callback, status, .. } = unsafe { &*ev };
    // An error or a hang-up alone goes to the callback too: its recv or send finds out what it is.
    let ends = libc::EPOLLERR | libc::EPOLLHUP;
    if let Some(callback) = callback
        && status == 1
        && ready & (wanted | ends) != 0
    {
        // SAFETY: the callback was set together with its `arg`, a pointer to the reactor that
        // add_listener's caller vouched for, and no reference to it is in use.
        unsafe { callback(fd, ready, arg) };
    }
}
