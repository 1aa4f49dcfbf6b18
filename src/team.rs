//! The thing that all workers of a server share, where their backend has such a thing.

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// The workers of one server. Most backends share nothing, and leave it alone.
#[derive(Default)]
pub struct Team(Mutex<Option<Arc<dyn Any + Send + Sync>>>);

impl Team {
    /// Returns what the workers share. The first who asks makes it.
    ///
    /// # Errors
    /// It could not be made; the next who asks tries again.
    ///
    /// # Panics
    /// When they ask for different things: the workers of a server have one backend.
    pub fn shared<T: Send + Sync + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<Arc<T>> {
        // A worker that panics while it makes the thing leaves none.
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = match &*place {
            Some(shared) => Arc::clone(shared),
            None => Arc::clone(place.insert(Arc::new(make()?))),
        };
        Ok(shared.downcast().expect("the workers of a server have one backend"))
    }
}
