//! Records as bytes. The receive threads encode them, so that the journal thread only adds the block's header.

use schemas::address::Address;

use super::{BLOCK_HEADER_BYTES, BLOCK_MAGIC, Seed};
use crate::decode::Datagram;

const KIND_DATAGRAM: u8 = 1;
const KIND_DROPS: u8 = 2;
/// Bytes before a datagram's payload; also the whole length of a drops record.
pub(super) const RECORD_HEADER_BYTES: usize = 32;

/// Datagrams that never reached the journal since the last such record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drops {
    /// UTC milliseconds.
    pub at_ms: i64,
    pub kernel_dropped: u64,
    pub queue_dropped: u64,
}

/// One record of the journal.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    Datagram { socket: u8, datagram: Datagram<'a> },
    Drops { socket: u8, drops: Drops },
}

/// Encoded records that become one block: room for the block's header, then the records, so that a batch goes from the
/// thread that fills it to the file without being copied.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecordBuffer {
    /// Empty, or a header that is zero until sealed, and the records.
    block: Vec<u8>,
    records: u32,
}

impl RecordBuffer {
    /// `bytes` is the length of the whole block.
    pub fn with_capacity(bytes: usize) -> RecordBuffer {
        RecordBuffer {
            block: Vec::with_capacity(bytes),
            records: 0,
        }
    }

    /// Bytes it takes without growing.
    pub fn capacity(&self) -> usize {
        self.block.capacity()
    }

    /// Length of the block once a datagram of `payload_bytes` is in it.
    pub fn block_bytes_with(&self, payload_bytes: usize) -> usize {
        self.block.len().max(BLOCK_HEADER_BYTES) + RECORD_HEADER_BYTES + payload_bytes
    }

    pub fn push_datagram(&mut self, socket: u8, datagram: &Datagram<'_>) {
        let mut header = [0; RECORD_HEADER_BYTES];
        header[0] = KIND_DATAGRAM;
        header[1] = socket;
        header[2..4].copy_from_slice(&datagram.source_port.to_le_bytes());
        header[4..8].copy_from_slice(&(datagram.payload.len() as u32).to_le_bytes());
        header[8..16].copy_from_slice(&datagram.received_at_ms.to_le_bytes());
        header[16..].copy_from_slice(&datagram.source.0);
        self.push_record(&header, datagram.payload);
    }

    pub fn push_drops(&mut self, socket: u8, drops: &Drops) {
        let mut header = [0; RECORD_HEADER_BYTES];
        header[0] = KIND_DROPS;
        header[1] = socket;
        header[8..16].copy_from_slice(&drops.at_ms.to_le_bytes());
        header[16..24].copy_from_slice(&drops.kernel_dropped.to_le_bytes());
        header[24..].copy_from_slice(&drops.queue_dropped.to_le_bytes());
        self.push_record(&header, &[]);
    }

    fn push_record(&mut self, header: &[u8; RECORD_HEADER_BYTES], payload: &[u8]) {
        if self.block.is_empty() {
            self.block.extend_from_slice(&[0; BLOCK_HEADER_BYTES]);
        }
        self.block.reserve(RECORD_HEADER_BYTES + payload.len());
        self.block.extend_from_slice(header);
        self.block.extend_from_slice(payload);
        self.records += 1;
    }

    /// Fills in the block's header; without records the block is an end mark.
    pub(super) fn seal(&mut self, seed: Seed) {
        if self.block.is_empty() {
            self.block.extend_from_slice(&[0; BLOCK_HEADER_BYTES]);
        }
        let (header, records) = self.block.split_at_mut(BLOCK_HEADER_BYTES);
        let mut lengths = [0; 8];
        lengths[..4].copy_from_slice(&(records.len() as u32).to_le_bytes());
        lengths[4..].copy_from_slice(&self.records.to_le_bytes());
        header[..4].copy_from_slice(&BLOCK_MAGIC);
        header[4..12].copy_from_slice(&lengths);
        header[12..].copy_from_slice(&seed.checksum(lengths, records).to_le_bytes());
    }

    /// The block, as far as it is filled.
    pub(super) fn block(&self) -> &[u8] {
        &self.block
    }

    /// Length of the block.
    pub fn block_bytes(&self) -> usize {
        self.block.len()
    }

    pub fn records(&self) -> u32 {
        self.records
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub fn clear(&mut self) {
        self.block.clear();
        self.records = 0;
    }
}

/// Walks the records of one sound block.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Records<'a> {
        Records { rest: bytes }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    /// Ends at the first bytes that are no record, which a block whose checksum holds does not have.
    fn next(&mut self) -> Option<Record<'a>> {
        let (header, rest) = self.rest.split_first_chunk::<RECORD_HEADER_BYTES>()?;
        let [kind, socket, port_0, port_1, l0, l1, l2, l3, ..] = *header;
        let at_ms = i64::from_le_bytes(*header[8..].first_chunk()?);
        match kind {
            KIND_DATAGRAM => {
                let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
                let (payload, rest) = rest.split_at_checked(length)?;
                self.rest = rest;
                Some(Record::Datagram {
                    socket,
                    datagram: Datagram {
                        received_at_ms: at_ms,
                        source: Address(*header[16..].first_chunk()?),
                        source_port: u16::from_le_bytes([port_0, port_1]),
                        payload,
                    },
                })
            }
            KIND_DROPS => {
                self.rest = rest;
                Some(Record::Drops {
                    socket,
                    drops: Drops {
                        at_ms,
                        kernel_dropped: u64::from_le_bytes(*header[16..].first_chunk()?),
                        queue_dropped: u64::from_le_bytes(*header[24..].first_chunk()?),
                    },
                })
            }
            _ => None,
        }
    }
}
