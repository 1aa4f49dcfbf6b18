//! The queues of buffers that connections are owed, linked through one array.

use crate::backend::uring::buffer_ring::Piece;

/// The links of all queues. Each is a circle: the first segment comes behind the last.
#[derive(Default)]
pub struct Segments {
    segments: Vec<Segment>,
    /// The first of those that are in no queue, each of which names the next; behind the last
    /// stands the one that is made next.
    free: u32,
}

#[derive(Clone, Copy)]
struct Segment {
    piece: Piece,
    next: u32,
}

impl Segments {
    /// Begins a queue with a piece, and returns its last, which is its only one.
    #[inline]
    pub fn add(&mut self, piece: Piece) -> u32 {
        let next = self.free;
        self.put(Segment { piece, next })
    }

    /// Puts a piece behind the last of a queue, and returns the new last.
    #[inline]
    pub fn add_behind(&mut self, last: u32, piece: Piece) -> u32 {
        let next = std::mem::replace(&mut self.segments[last as usize].next, self.free);
        self.put(Segment { piece, next })
    }

    /// Writes the free segment, and returns which that was.
    #[inline]
    fn put(&mut self, segment: Segment) -> u32 {
        let id = self.free;
        match self.segments.get_mut(id as usize) {
            Some(free) => self.free = std::mem::replace(free, segment).next,
            None => self.make(segment),
        }
        id
    }

    #[cold]
    fn make(&mut self, segment: Segment) {
        self.segments.push(segment);
        self.free = self.segments.len() as u32;
    }

    /// Takes the first piece off a queue that is not empty.
    pub fn remove_first(&mut self, last: u32) -> Piece {
        let id = self.segments[last as usize].next;
        let first = &mut self.segments[id as usize];
        let Segment { piece, next } = *first;
        first.next = self.free;
        self.free = id;
        if id != last {
            self.segments[last as usize].next = next;
        }
        piece
    }

    /// The first piece of a queue that is not empty.
    pub fn first(&self, last: u32) -> Piece {
        self.segments[self.segments[last as usize].next as usize].piece
    }

    /// The first `count` pieces of a queue that has as many.
    pub fn queue(&self, last: u32, count: u32) -> impl Iterator<Item = Piece> {
        let mut at = last;
        (0..count).map(move |_| {
            at = self.segments[at as usize].next;
            self.segments[at as usize].piece
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_keep_their_order() {
        let piece = |buffer| Piece { buffer, start: 0, end: 1 };
        let mut segments = Segments::default();
        let mut lasts = [None, None];
        // Two queues in each other's way, in segments that are used again.
        for round in 0..3 {
            for buffer in 0..10 {
                let last = &mut lasts[usize::from(buffer % 2)];
                *last = Some(match *last {
                    None => segments.add(piece(buffer)),
                    Some(last) => segments.add_behind(last, piece(buffer)),
                });
            }
            for (queue, last) in lasts.iter_mut().enumerate() {
                let last = last.take().expect("it has pieces");
                let all: Vec<u16> = segments.queue(last, 5).map(|piece| piece.buffer).collect();
                for (left, buffer) in all.iter().enumerate() {
                    assert_eq!(*buffer as usize, queue + 2 * left, "round {round}");
                    assert_eq!(segments.first(last), piece(*buffer));
                    assert_eq!(segments.remove_first(last), piece(*buffer));
                }
            }
            assert_eq!(segments.segments.len(), 10);
        }
    }
}
