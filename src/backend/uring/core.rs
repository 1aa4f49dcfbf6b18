//! The requests of a loop: queued, counted while they are under way, and finished.

use super::request::Request;
use super::ring::{Completion, Ring};
use super::setup::Want;
use super::token::{RequestKind, Token};
use crate::counters::Counters;
use crate::work::Work;
use crate::zero_copy;
use io_uring::squeue;
use std::io;

/// The ring and the counters of a loop, for its handler.
pub struct Core<'a> {
    /// The ring.
    pub ring: Ring,
    /// The worker's counters.
    pub counters: &'a Counters,
    /// The application's work.
    pub work: Work,
    /// Connections come over a Unix socket.
    pub is_unix: bool,
    /// Every request has been, or is being, taken back.
    pub stopping: bool,
    /// Requests that have not had their last completion, or the first of a send without a copy.
    pub in_flight: usize,
    /// A fence is among them.
    pub fenced: bool,
}

impl Core<'_> {
    /// Queues a request; its number is [`Ring::push`]'s.
    ///
    /// # Safety
    /// As for [`Ring::push`].
    #[inline]
    pub unsafe fn push(&mut self, token: Token, entry: squeue::Entry) -> io::Result<u64> {
        // SAFETY: the caller's promise.
        let number = unsafe { self.ring.push(self.counters, &entry.user_data(token.encode()))? };
        if token.kind.completes_always() {
            self.in_flight += 1;
        }
        Ok(number)
    }

    /// Notes the end of a request: its last completion, or that of the one that it was linked to,
    /// which tells of both.
    #[inline]
    pub fn ended(&mut self) -> io::Result<()> {
        self.in_flight = self.in_flight.checked_sub(1).ok_or_else(|| {
            // Then what is in flight is not known, and memory that the kernel uses could be freed.
            io::Error::other("a completion too many: every request had ended")
        })?;
        Ok(())
    }

    /// Queues a request that points to no memory that could go.
    pub fn request(&mut self, token: Token, request: Request) -> io::Result<()> {
        // SAFETY: its address, if it has one, is of memory that lives as long as the process.
        unsafe { self.push(token, request.entry()) }.map(drop)
    }

    /// Submits what is queued unless `count` more requests fit into the queue.
    pub fn make_room(&mut self, count: u32) -> io::Result<()> {
        self.ring.make_room(self.counters, count)
    }

    /// Notes a completion that came after its connection was closed, which the count of requests
    /// rules out.
    #[cold]
    pub fn came_late(&self, token: Token) {
        debug_assert!(false, "{token:?} completed after its connection was closed");
        self.counters.late.add(1);
    }

    /// Requests with a lower number are [decided](Ring::decided).
    pub fn decided(&self) -> u64 {
        self.ring.decided()
    }

    /// Has a completion come after what is queued was submitted, which ends the next wait. It may
    /// come before all of that is known to be decided: then there must be another.
    pub fn fence(&mut self) -> io::Result<()> {
        if !std::mem::replace(&mut self.fenced, true) {
            self.request(Token::of(RequestKind::Fence, 0), Request::nothing())?;
        }
        Ok(())
    }

    /// Submits what is queued, waits until all requests have ended and hands what they completed
    /// with to `each`, but for notices that the kernel has let go of a send's bytes.
    pub fn finish_requests(&mut self, mut each: impl FnMut(Token, &Completion)) -> io::Result<()> {
        while self.in_flight > 0 || !self.ring.is_decided() {
            let ready = self.ring.turn(self.counters, Want::Just(self.in_flight), None)?;
            let mut completions: Vec<Completion> =
                (0..ready).map_while(|_| self.ring.take()).collect();
            completions.extend(self.ring.take_collected());
            for completion in completions {
                let token = self.token_of(&completion)?;
                match completion.let_go() {
                    Some(copied) => zero_copy::note(self.counters, 1, copied),
                    None => each(token, &completion),
                }
            }
        }
        Ok(())
    }

    /// The token of a completion; notes the end of its request.
    #[inline]
    pub fn token_of(&mut self, completion: &Completion) -> io::Result<Token> {
        let token =
            Token::decode(completion.user_data).ok_or_else(|| completion.of_no_request())?;
        // Nobody waits until the kernel lets go of a send's bytes: the peer may read them late or
        // never, and they live as long as the process.
        let ends = match token.kind {
            RequestKind::ZeroCopySend => completion.let_go().is_none(),
            kind => !completion.more() && kind.completes_always(),
        };
        if ends {
            self.ended()?;
        }
        Ok(token)
    }
}
