//! Sends that are not decided yet.

/// A send that has a completion only if it fails.
#[derive(Clone, Copy)]
pub struct Sending {
    pub number: u64,
    pub index: u32,
    pub group: Option<u16>,
}

/// Sends that are not decided yet, in their order. A plain queue, of which most turns take all that
/// it has and look at each once more.
#[derive(Default)]
pub struct Sends {
    sends: Vec<Sending>,
    /// How many of them are decided.
    decided: usize,
}

/// Sends that are taken and not forgotten before it is worth while to move the others.
const TIDY_FROM: usize = 64;

impl Sends {
    pub fn push(&mut self, sending: Sending) {
        self.sends.push(sending);
    }

    /// Whether their numbers are below this one.
    #[inline]
    pub fn are_all_below(&self, number: u64) -> bool {
        self.sends.last().is_none_or(|sending| sending.number < number)
    }

    pub fn undecided(&self) -> &[Sending] {
        &self.sends[self.decided..]
    }

    /// Whether there is one, and the first has a number below this.
    #[inline]
    pub fn first_is_below(&self, number: u64) -> bool {
        self.sends.get(self.decided).is_some_and(|sending| sending.number < number)
    }

    /// Takes the first, of one at least.
    #[inline]
    pub fn pop(&mut self) -> Sending {
        let first = self.sends[self.decided];
        self.decided += 1;
        if self.decided == self.sends.len() {
            self.sends.clear();
            self.decided = 0;
        }
        first
    }

    /// Forgets those that were taken, once they are many and the better part.
    pub fn tidy(&mut self) {
        if self.decided > TIDY_FROM && 2 * self.decided >= self.sends.len() {
            self.sends.drain(..self.decided);
            self.decided = 0;
        }
    }

    /// Takes out the one of this connection.
    pub fn remove(&mut self, index: u32) -> Option<Sending> {
        let place = self.undecided().iter().position(|sending| sending.index == index)?;
        Some(self.sends.remove(self.decided + place))
    }
}
