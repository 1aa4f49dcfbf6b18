//! The measured side of ringmark: servers that wait for their sockets in different ways.
//!
//! A [`contract::Backend`] owns its loop, its buffers and its way of accepting; a [`worker`] is a
//! thread that runs one. Everything that must be the same for all of them, so that a difference
//! between two backends is a difference between their techniques, is shared: the [`listener`]'s
//! socket options, the [`counters`], the [`stop`] signal, and the [`drain`] at the end.

pub mod address;
pub mod backend;
pub mod call;
pub mod connection;
pub mod contract;
pub mod counters;
pub mod cpus;
pub mod drain;
pub mod echo;
pub mod error;
pub mod kernel;
pub mod list;
pub mod listener;
pub mod orders;
pub mod ports;
pub mod process;
pub mod protocol;
pub mod rights;
pub mod service;
pub mod socket;
pub mod stop;
pub mod sys;
pub mod team;
pub mod whereabouts;
pub mod work;
pub mod worker;
pub mod zero_copy;
