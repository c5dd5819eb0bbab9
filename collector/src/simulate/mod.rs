//! Exporters that encode real datagrams: for `simulate`, the demonstration, tests and measurements.
//!
//! * [`encode`]: rows to NetFlow v5, v9, IPFIX and sFlow v5 datagrams, as an exporter would send them.
//! * [`rng`]: the reproducible randomness behind all of it.
//! * [`traffic`]: random flows of plausible shape, by seed.
//! * [`send`]: datagrams to a UDP address at a paced rate, with the exact sums of what was sent.
//! * [`fleet`]: the demonstration's routers, switches, customers and services, and the flows their exporters report.
//!
//! Everything here is a function of its seed and the time it is given; only [`send`] reads a clock.

pub mod encode;
pub mod fleet;
mod names;
mod parts;
mod profile;
pub mod rng;
pub mod send;
pub mod traffic;
