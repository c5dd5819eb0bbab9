//! What the fuzz targets share.
//!
//! * [`input`]: how a fuzzer's bytes become datagrams, with times and sources, so that templates, options and data meet.
//! * [`check`]: the collector's promises, checked after every input; a broken one is a panic, which is a finding.
//! * [`model`]: the plainest reading of NetFlow and IPFIX, to compare the decoder with.
//! * [`mutate`]: changes that keep a datagram's framing whole, so that the fuzzer gets past it.

pub mod check;
pub mod input;
pub mod journal;
pub mod model;
pub mod mutate;
pub mod netflow;
pub mod pcap;
pub mod sflow;
pub mod table;
