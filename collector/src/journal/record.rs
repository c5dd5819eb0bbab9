//! Records as bytes. The receive threads encode them, so that the journal thread only copies.

use schemas::address::Address;

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
    Datagram {
        socket: u8,
        source_port: u16,
        datagram: Datagram<'a>,
    },
    Drops {
        socket: u8,
        drops: Drops,
    },
}

/// Encoded records that become one block.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecordBuffer {
    bytes: Vec<u8>,
    records: u32,
}

impl RecordBuffer {
    pub fn with_capacity(bytes: usize) -> RecordBuffer {
        RecordBuffer {
            bytes: Vec::with_capacity(bytes),
            records: 0,
        }
    }

    pub fn push_datagram(&mut self, socket: u8, source_port: u16, datagram: &Datagram<'_>) {
        let length = datagram.payload.len() as u32;
        self.bytes.push(KIND_DATAGRAM);
        self.bytes.push(socket);
        self.bytes.extend_from_slice(&source_port.to_le_bytes());
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(&datagram.received_at_ms.to_le_bytes());
        self.bytes.extend_from_slice(&datagram.source.0);
        self.bytes.extend_from_slice(datagram.payload);
        self.records += 1;
    }

    pub fn push_drops(&mut self, socket: u8, drops: &Drops) {
        self.bytes.extend_from_slice(&[KIND_DROPS, socket, 0, 0, 0, 0, 0, 0]);
        self.bytes.extend_from_slice(&drops.at_ms.to_le_bytes());
        self.bytes.extend_from_slice(&drops.kernel_dropped.to_le_bytes());
        self.bytes.extend_from_slice(&drops.queue_dropped.to_le_bytes());
        self.records += 1;
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn records(&self) -> u32 {
        self.records
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
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
                    source_port: u16::from_le_bytes([port_0, port_1]),
                    datagram: Datagram {
                        received_at_ms: at_ms,
                        source: Address(*header[16..].first_chunk()?),
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
