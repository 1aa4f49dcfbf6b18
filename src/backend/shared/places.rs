//! The connections of all workers, by descriptor, in a table that grows while others use it.

use crate::process;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Places of a part. A part is made when its first place is needed, and does not move.
const PART: usize = 1024;

/// Descriptors beyond this have no place, even where files are not limited.
const MOST: usize = 1 << 24;

/// Places by descriptor, each with a lock of its own.
pub struct Places<T> {
    parts: Box<[OnceLock<Seats<T>>]>,
}

/// A place, and the lock of whatever is there.
pub type Seat<T> = Mutex<Option<T>>;

type Seats<T> = Box<[Seat<T>]>;

/// Locks a place.
pub fn lock<T>(place: &Seat<T>) -> MutexGuard<'_, Option<T>> {
    // No worker panics while it holds the lock.
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Places<T> {
    /// Has places for as many descriptors as the process may open.
    pub fn new() -> io::Result<Self> {
        let files = usize::try_from(process::open_files_limit()?).unwrap_or(MOST).min(MOST);
        Ok(Self { parts: (0..files.div_ceil(PART)).map(|_| OnceLock::new()).collect() })
    }

    /// Returns the place of a descriptor; none if there is no room for such a number.
    pub fn place(&self, fd: RawFd) -> Option<&Seat<T>> {
        let fd = usize::try_from(fd).ok()?;
        let part = self.parts.get(fd / PART)?;
        let part = part.get_or_init(|| (0..PART).map(|_| Mutex::new(None)).collect());
        part.get(fd % PART)
    }

    /// Takes out all that is there.
    pub fn take_all(&self) -> impl Iterator<Item = T> {
        let parts = self.parts.iter().filter_map(OnceLock::get);
        parts.flatten().filter_map(|place| lock(place).take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_again_and_taken_once() {
        let table = Places::new().expect("the limit is known");
        for fd in [0, 1023, 1024, 2050] {
            *lock(table.place(fd).expect("there is room")) = Some(fd);
        }
        assert_eq!(*lock(table.place(1024).expect("there is room")), Some(1024));
        assert_eq!(table.take_all().collect::<Vec<_>>(), [0, 1023, 1024, 2050]);
        assert_eq!(table.take_all().count(), 0);
    }

    #[test]
    fn numbers_beyond_the_table_have_no_place() {
        let table = Places::<()>::new().expect("the limit is known");
        assert!(table.place(-1).is_none() && table.place(RawFd::MAX).is_none());
    }
}
