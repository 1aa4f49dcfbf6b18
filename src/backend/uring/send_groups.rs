//! Rings of buffer descriptions without memory of their own, through which several buffers are sent
//! at once.

use super::entries::Entries;
use super::request::GROUP;
use crate::call::Call;
use crate::counters::Counters;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;

/// Groups of buffers without memory of their own: a bundled send takes all of one group's buffers,
/// which are pieces of the [`BufferRing`], in their order.
///
/// A group is made when there are more sends at once than ever before, and lent to one at a time.
/// After a send that succeeded it is empty. After one that failed or took only a part, the kernel's
/// place in it is not ours to set, so it is registered anew.
pub struct SendGroups {
    groups: Vec<Entries>,
    most: u16,
    idle: Vec<u16>,
}

/// Pieces in one bundle: a page of entries has room for more, but the kernel takes no more at once
/// (PEEK_MAX_IMPORT in its kbuf.c).
pub const BUNDLE_MOST: usize = 256;

impl SendGroups {
    /// No group yet; at most `most` of them will stand behind [`GROUP`].
    pub fn new(most: u16) -> Self {
        Self { groups: Vec::new(), most, idle: Vec::new() }
    }

    /// Lends a group, if one is idle or can be made.
    pub fn lend(
        &mut self,
        submitter: &Submitter<'_>,
        counters: &Counters,
    ) -> io::Result<Option<u16>> {
        let made = self.groups.len() as u16;
        if self.idle.is_empty() && made < self.most {
            counters.count(Call::Mmap);
            counters.count(Call::IoUringRegister);
            self.groups.push(Entries::register(
                submitter,
                Self::group(made),
                BUNDLE_MOST as u16,
                0,
            )?);
            return Ok(Some(made));
        }
        Ok(self.idle.pop())
    }

    /// Its number for requests.
    pub fn group(lent: u16) -> u16 {
        GROUP + 1 + lent
    }

    /// Puts bytes behind those that are there; at most [`BUNDLE_MOST`] times.
    ///
    /// # Safety
    /// The bytes must stay as they are until no send that takes from this group is under way.
    pub unsafe fn put(&mut self, lent: u16, bytes: &[u8]) {
        let start = NonNull::from(bytes).cast::<u8>();
        self.groups[usize::from(lent)].put(start, bytes.len() as u32, 0);
    }

    /// Lets the kernel see what was put.
    pub fn publish(&mut self, lent: u16) {
        self.groups[usize::from(lent)].publish();
    }

    /// Takes a group back from a send that took all of it.
    pub fn take_back(&mut self, lent: u16) {
        self.idle.push(lent);
    }

    /// Takes a group back from a send that did not.
    pub fn renew(
        &mut self,
        submitter: &Submitter<'_>,
        counters: &Counters,
        lent: u16,
    ) -> io::Result<()> {
        let group = Self::group(lent);
        counters.count(Call::IoUringRegister);
        submitter.unregister_buf_ring(group)?;
        let entries = &mut self.groups[usize::from(lent)];
        entries.tail = 0;
        entries.publish();
        counters.count(Call::IoUringRegister);
        entries.register_again(submitter, group, 0)?;
        self.idle.push(lent);
        Ok(())
    }

    /// The memory of all groups that may be made, in bytes.
    pub fn bytes(&self) -> usize {
        usize::from(self.most) * BUNDLE_MOST * size_of::<BufRingEntry>()
    }
}
