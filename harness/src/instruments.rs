//! What is read from outside of the measured server.
