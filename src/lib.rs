//! The measured side of ringmark: echo servers that wait for their sockets in different ways.
pub mod echo;
pub mod sys;
