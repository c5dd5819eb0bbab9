//! From datagram to durable, attributed flow.

pub mod counts;
pub mod decode;
pub mod sampling;
pub mod sequence;
pub mod simulate;
pub mod times;
