//! The wire protocol, for both of its ends: pure framing ([`frame`]) and typed messages
//! ([`message`]) over flatbuffers code that is generated once and checked in.
//!
//! Nothing here knows a socket. The client in this crate and the store are its users; it is public
//! for those who write another peer, and follows the wire, not semantic versioning.

pub mod frame;
mod r#gen;
pub mod message;
