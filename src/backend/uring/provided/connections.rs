//! The state of a worker on provided buffers.

use super::connection::Connection;
use super::segments::Segments;
use super::sends::Sends;
use super::techniques::Technique;
use crate::backend::uring::{
    buffer_ring::BufferRing,
    request::Socket,
    send_groups::SendGroups,
    token::{RequestKind, Token},
};
use crate::service::Conversation;
use std::collections::VecDeque;
use std::marker::PhantomData;

/// Connections that receive into provided buffers.
pub struct Provided<T: Technique, C: Conversation> {
    pub buffers: BufferRing,
    pub groups: Option<SendGroups>,
    /// By index: the descriptor or the direct descriptor. The kernel gives low numbers, so this
    /// stays dense.
    pub connections: Vec<Connection<C>>,
    /// Pieces of buffers that are owed, linked to a queue for each connection.
    pub segments: Segments,
    /// Connections whose receive found no buffer, longest wait first.
    pub starved: VecDeque<(u32, u32)>,
    pub sends: Sends,
    /// Buffers that one receive may take in one go, before another's turn.
    pub buffers_at_once: usize,
    /// A receive waits for a buffer, or something may be to follow a send that is not decided.
    pub may_be_followed: bool,
    pub buffers_per_connection: u32,
    pub buffer_bytes: u32,
    /// The same in bytes, where the kernel is told it.
    pub bytes_at_once: Option<u32>,
    pub direct_files: u32,
    pub terms: C::Terms,
    /// Whether a conversation's bytes are sent without a copy.
    pub zero_copy: bool,
    pub technique: PhantomData<T>,
}

impl<T: Technique, C: Conversation> Provided<T, C> {
    #[inline(always)]
    pub fn at(&mut self, index: u32) -> &mut Connection<C> {
        &mut self.connections[index as usize]
    }

    pub fn token(&self, kind: RequestKind, index: u32) -> Token {
        Token { kind, generation: self.connections[index as usize].generation, index }
    }

    pub fn socket(index: u32) -> Socket {
        if T::DIRECT { Socket::Direct(index) } else { Socket::File(index) }
    }
}
