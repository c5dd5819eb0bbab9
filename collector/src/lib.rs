//! From datagram to durable, attributed flow.

pub mod counts;
pub mod decode;
pub mod simulate;
