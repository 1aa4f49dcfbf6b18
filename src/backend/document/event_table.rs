//! The document's table of events: a linked list of blocks, found by walking it.
//!
//! The point of the blocks is that an event never moves once it exists, however far the table
//! grows, so that its address can stand in `epoll_event.data.ptr`. An array that is made anew when
//! it grows would leave the kernel with dangling pointers. The price is the walk: the event of
//! descriptor *n* is reached over *n* / 1024 links. An index of the same blocks, which the document
//! does not have, reaches it with one load, and moves no event either: what grows and moves is only
//! the array of their addresses.
//!
//! This is a data structure of its own; it knows nothing of epoll.

use std::alloc::{self, Layout};
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr::{self, NonNull};

/// Bytes that one event can hold (`BUFFER_LENGTH`).
pub const BUFFER_LENGTH: usize = 1024;

/// Events of one block, and events taken by one wait (`MAX_EPOLL_EVENTS`).
pub const MAX_EPOLL_EVENTS: usize = 1024;

/// The callback of a ready descriptor. It gets the descriptor, its ready events, and
/// [`Event::arg`].
pub type NCallback = unsafe fn(fd: c_int, events: c_int, arg: *mut c_void) -> c_int;

/// The state of one descriptor (`struct event`): fields, order and layout are the document's.
#[repr(C)]
pub struct Event {
    /// The descriptor.
    pub fd: c_int,
    /// The events that it is registered for.
    pub events: c_int,
    /// Handed to the callback: the reactor.
    pub arg: *mut c_void,
    /// Called when the descriptor is ready.
    pub callback: Option<NCallback>,
    /// 1 while it is registered, else 0.
    pub status: c_int,
    /// Bytes that were received and are to be sent.
    pub buffer: [u8; BUFFER_LENGTH],
    /// How much of the buffer is in use, in bytes.
    pub length: c_int,
}

const _: () = assert!(size_of::<Event>() == 1056, "an event costs what the document's costs");

/// A link of the list (`struct eventblock`).
#[repr(C)]
struct EventBlock {
    events: NonNull<Event>,
    next: *mut EventBlock,
}

/// How the block of a descriptor is found.
///
/// Decided when a table is made, and tested at each lookup: a branch that always goes the same way.
/// It does not slow the walk (`benches/event_table.rs` cannot tell it from a walk without), and a
/// type parameter instead would run through the reactor and all its callbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Along the links from the first block, as in the document.
    Walk,
    /// In an array of the same blocks.
    Index,
}

/// All events, in blocks of [`MAX_EPOLL_EVENTS`] by descriptor. Never shrinks.
#[repr(C)]
pub struct EventTable {
    blkcnt: c_int,
    evblk: NonNull<EventBlock>,
    /// Not the document's: where the events of each block are, for [`Lookup::Index`].
    index: Option<Vec<NonNull<Event>>>,
}

const BLOCK_LAYOUT: Layout = match Layout::array::<Event>(MAX_EPOLL_EVENTS) {
    Ok(layout) => layout,
    Err(_) => panic!("a block fits into memory"),
};

/// A zeroed block that nothing follows. Memory that is not touched is not resident: compilers make
/// the same zeroed allocation of the document's malloc and memset.
fn new_block() -> io::Result<NonNull<EventBlock>> {
    let out_of_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
    // SAFETY: the layout is not empty.
    let events =
        NonNull::new(unsafe { alloc::alloc_zeroed(BLOCK_LAYOUT) }).ok_or_else(out_of_memory)?;
    let events = events.cast::<Event>();
    // The kernel keeps the addresses of events as numbers. A number that comes back may be made a
    // pointer again because the whole block is exposed, whatever references were made into it
    // since.
    let _ = events.as_ptr().expose_provenance();
    // SAFETY: the layout is not empty.
    let block = NonNull::new(unsafe { alloc::alloc(Layout::new::<EventBlock>()) });
    let Some(block) = block.map(NonNull::cast::<EventBlock>) else {
        // SAFETY: allocated above with this layout, and not handed out.
        unsafe { alloc::dealloc(events.as_ptr().cast(), BLOCK_LAYOUT) };
        return Err(out_of_memory());
    };
    // SAFETY: just allocated with the layout of an EventBlock.
    unsafe { block.write(EventBlock { events, next: ptr::null_mut() }) };
    Ok(block)
}

impl EventTable {
    /// A table of one block, in which blocks are found so.
    pub fn new(lookup: Lookup) -> io::Result<Self> {
        let mut table = Self { blkcnt: 1, evblk: new_block()?, index: None };
        if lookup == Lookup::Index {
            // SAFETY: just made.
            table.index = Some(vec![unsafe { table.evblk.as_ref() }.events]);
        }
        Ok(table)
    }

    /// How it finds a block.
    pub fn lookup(&self) -> Lookup {
        if self.index.is_some() { Lookup::Index } else { Lookup::Walk }
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blkcnt as usize
    }

    /// Appends a block (`event_alloc`), after walking to the last one.
    fn event_alloc(&mut self) -> io::Result<()> {
        let mut block = self.evblk;
        // SAFETY: every link of the list is a block that this table owns, until the null of the
        // last.
        while let Some(next) = NonNull::new(unsafe { block.as_ref() }.next) {
            block = next;
        }
        if let Some(index) = &mut self.index {
            index.try_reserve(1).map_err(|_| io::Error::from_raw_os_error(libc::ENOMEM))?;
        }
        let new = new_block()?;
        // SAFETY: as above; `&mut self` says that nobody else reads the link.
        unsafe { block.as_mut() }.next = new.as_ptr();
        if let Some(index) = &mut self.index {
            // SAFETY: just made.
            index.push(unsafe { new.as_ref() }.events);
        }
        self.blkcnt += 1;
        Ok(())
    }

    /// The event of `fd` (`find_event_byfd`). The table grows until it has one, and it is always
    /// the same one.
    ///
    /// # Errors
    /// EBADF for a negative descriptor, ENOMEM when the table cannot grow.
    pub fn find_event(&mut self, fd: c_int) -> io::Result<&mut Event> {
        let fd = usize::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        let blkid = fd / MAX_EPOLL_EVENTS;
        while blkid >= self.blocks() {
            self.event_alloc()?;
        }
        let events = match &self.index {
            None => self.walk(blkid),
            Some(index) => index[blkid],
        };
        // SAFETY: the block holds MAX_EPOLL_EVENTS events, made valid by zeroing: integers, a null
        // pointer and a None. `&mut self` makes the reference exclusive.
        Ok(unsafe { events.add(fd % MAX_EPOLL_EVENTS).as_mut() })
    }

    /// The events of a block that the table has.
    #[inline]
    fn walk(&self, blkid: usize) -> NonNull<Event> {
        debug_assert!(blkid < self.blocks());
        let mut block = self.evblk;
        for _ in 0..blkid {
            // SAFETY: fewer links than there are blocks are followed, so each leads to a block.
            block = unsafe { NonNull::new_unchecked(block.as_ref().next) };
        }
        // SAFETY: as above.
        unsafe { block.as_ref() }.events
    }

    /// Every event of every block, in the order of descriptors, whether it was ever used or not.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Event> {
        let mut next = Some(self.evblk);
        std::iter::from_fn(move || {
            // SAFETY: every link is a block that this table owns.
            let block = unsafe { next?.as_ref() };
            next = NonNull::new(block.next);
            // SAFETY: the block's events are valid, and each block is visited once under `&mut
            // self`.
            Some(unsafe { std::slice::from_raw_parts_mut(block.events.as_ptr(), MAX_EPOLL_EVENTS) })
        })
        .flatten()
    }
}

impl Drop for EventTable {
    fn drop(&mut self) {
        let mut next = Some(self.evblk);
        while let Some(block) = next {
            // SAFETY: the block is ours and was not freed yet; its link is read before it is.
            let EventBlock { events, next: link } = unsafe { block.read() };
            // SAFETY: both were allocated with these layouts, and nothing uses the table any more.
            unsafe {
                alloc::dealloc(events.as_ptr().cast(), BLOCK_LAYOUT);
                alloc::dealloc(block.as_ptr().cast(), Layout::new::<EventBlock>());
            }
            next = NonNull::new(link);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;
    use std::mem::offset_of;

    const LOOKUPS: [Lookup; 2] = [Lookup::Walk, Lookup::Index];

    fn table(lookup: Lookup) -> EventTable {
        let table = EventTable::new(lookup).expect("memory");
        assert_eq!(table.lookup(), lookup);
        table
    }

    #[test]
    fn layout_is_the_documents() {
        let offsets = [
            offset_of!(Event, fd),
            offset_of!(Event, events),
            offset_of!(Event, arg),
            offset_of!(Event, callback),
            offset_of!(Event, status),
            offset_of!(Event, buffer),
            offset_of!(Event, length),
        ];
        assert_eq!(offsets, [0, 4, 8, 16, 24, 28, 1052]);
        assert_eq!(BLOCK_LAYOUT.size(), 1024 * 1056);
    }

    /// Fault 1: the document indexes a block with the block's number, so all its descriptors share
    /// one event.
    #[test]
    fn every_descriptor_has_an_event_of_its_own() {
        for lookup in LOOKUPS {
            let mut table = table(lookup);
            for fd in 0..5000 {
                let event = table.find_event(fd).expect("memory");
                assert_eq!(event.fd, 0, "fresh");
                event.fd = fd;
            }
            for fd in 0..5000 {
                assert_eq!(table.find_event(fd).expect("memory").fd, fd);
            }
            assert_eq!(
                table.iter_mut().take(5000).map(|event| event.fd).collect::<Vec<_>>(),
                Vec::from_iter(0..5000)
            );
        }
    }

    /// Fault 4: the document indexes the first block with the listening descriptor, beyond its end
    /// from 1024 on.
    #[test]
    fn grows_at_the_block_boundary_and_only_there() {
        for lookup in LOOKUPS {
            let mut table = table(lookup);
            for (fd, blocks) in [
                (0, 1),
                (1023, 1),
                (1024, 2),
                (2047, 2),
                (2048, 3),
                (10, 3),
                (10_239, 10),
                (10_240, 11),
            ] {
                table.find_event(fd).expect("memory");
                assert_eq!(table.blocks(), blocks, "after fd {fd}");
            }
        }
    }

    #[test]
    fn events_never_move_while_the_table_grows_to_a_million() {
        for lookup in LOOKUPS {
            let mut table = table(lookup);
            let mut addresses = HashMap::new();
            for fd in [0, 1, 1023, 1024, 1025, 65_535, 65_536, 524_287, 999_999, 1_000_000] {
                let event = table.find_event(fd).expect("memory");
                event.length = fd;
                addresses.insert(fd, ptr::from_mut(event));
            }
            assert_eq!(table.blocks(), 1_000_000 / 1024 + 1);
            for (fd, address) in addresses {
                let event = table.find_event(fd).expect("memory");
                assert_eq!((event.length, ptr::from_mut(event)), (fd, address));
            }
        }
    }

    /// There are five blocks, four of which were appended by one lookup.
    #[test]
    fn both_lookups_find_the_same_event_of_every_descriptor() {
        let mut table = table(Lookup::Index);
        let addresses = |table: &mut EventTable| {
            let address = |fd| ptr::from_mut(table.find_event(fd).expect("memory"));
            Vec::from_iter((0..5 * 1024).rev().map(address))
        };
        let indexed = addresses(&mut table);
        table.index = None;
        assert_eq!(table.lookup(), Lookup::Walk);
        assert_eq!(table.blocks(), 5);
        assert_eq!(indexed, addresses(&mut table));
    }

    /// A bad descriptor must not grow the table. (Fault 10, a table that cannot grow, ends by the
    /// same `?`.)
    #[test]
    fn what_is_no_descriptor_is_refused() {
        for lookup in LOOKUPS {
            let mut table = table(lookup);
            assert_eq!(
                table.find_event(-1).err().and_then(|error| error.raw_os_error()),
                Some(libc::EBADF)
            );
            assert_eq!(table.blocks(), 1);
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map(fds in proptest::collection::vec(0..20_000_i32, 1..200)) {
            for lookup in LOOKUPS {
                let mut table = table(lookup);
                let mut model = HashMap::new();
                for (step, &fd) in fds.iter().enumerate() {
                    let event = table.find_event(fd).expect("memory");
                    let before = model.insert(fd, step as i32 + 1).unwrap_or(0);
                    prop_assert_eq!(event.status, before);
                    event.status = step as i32 + 1;
                }
            }
        }
    }
}
