//! Working memory of the decoder.

use super::columnar::RawTimes;
use super::semantics::LongRow;

/// Room that is used again for each datagram.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) sets: Vec<SetRef>,
    pub(super) spans: Vec<(u32, u32)>,
    pub(super) times: RawTimes,
    pub(super) long_rows: Vec<LongRow>,
}

/// A set, by where it lies in its datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SetRef {
    pub(super) id: u16,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) done: bool,
}
