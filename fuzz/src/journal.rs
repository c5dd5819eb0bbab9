//! Segments of the journal under test: written by this file's own reading of the format, damaged, and read by the collector.
//!
//! Promises: every sound block is read once, in order, past any damage; nothing else is; each damaged place between sound
//! blocks is counted; what follows the last sound block of a segment without an end mark is torn.
//!
//! An input is a list of pieces to write and of damages to do, see [`Operation`].

use collector::decode::Datagram;
use collector::journal::{
    BLOCK_BYTES_MAX, Drops, Record, RecordBuffer, SegmentContent, SegmentWriter, read_segment_bytes,
};
use schemas::address::Address;

const ID: &str = "0123456789abcdef";
const NUMBER: u64 = 7;
const CREATED_AT_MS: i64 = 1_700_000_000_000;
const SEGMENT_HEADER_BYTES: usize = 32;
const BLOCK_HEADER_BYTES: usize = 16;
const BLOCK_MAGIC: &[u8; 4] = b"EZBK";
/// Bytes of a record before its payload.
const RECORD_HEADER_BYTES: usize = 32;
/// A segment grown beyond it is damaged no further: long ones only cost time.
const SEGMENT_BYTES_MAX: usize = 64 << 10;

/// What one byte of an input starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Operation {
    /// A block of well-formed records.
    Block,
    /// A sound block around any bytes.
    Sealed,
    /// Bytes between blocks.
    Junk,
    EndMark,
    /// Exclusive or of a byte.
    Flip,
    /// A range is overwritten by one byte.
    Fill,
    /// A word of a block's header is replaced: 0 magic, 1 length, 2 number, 3 checksum.
    Header,
    /// The length in a block's header leads to another block, or just beside one.
    Lead,
    Truncate,
    Remove,
}

impl Operation {
    const ALL: [Operation; 10] = [
        Operation::Block,
        Operation::Sealed,
        Operation::Junk,
        Operation::EndMark,
        Operation::Flip,
        Operation::Fill,
        Operation::Header,
        Operation::Lead,
        Operation::Truncate,
        Operation::Remove,
    ];
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn u8(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *byte
    }

    fn u16(&mut self) -> usize {
        usize::from(u16::from_be_bytes([self.u8(), self.u8()]))
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

fn seed(number: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(ID.as_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.finalize()
}

/// Of a block in the segment of that number.
fn checksum(segment: u64, lengths: &[u8], records: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed(segment));
    hasher.update(lengths);
    hasher.update(records);
    hasher.finalize()
}

fn segment_header(segment: u64) -> Vec<u8> {
    let mut header = b"EZJOURN1".to_vec();
    header.extend_from_slice(&segment.to_le_bytes());
    header.extend_from_slice(&CREATED_AT_MS.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    header
}

fn block(records: &[u8], number: u32) -> Vec<u8> {
    let lengths = [(records.len() as u32).to_le_bytes(), number.to_le_bytes()].concat();
    let checksum = checksum(NUMBER, &lengths, records).to_le_bytes();
    [&BLOCK_MAGIC[..], &lengths, &checksum, records].concat()
}

/// The bytes of a segment, and where its blocks were put.
struct Written {
    bytes: Vec<u8>,
    blocks: Vec<usize>,
}

fn write(input: &[u8]) -> Written {
    let mut input = Bytes(input);
    let mut bytes = segment_header(NUMBER);
    let mut blocks = Vec::new();
    while !input.0.is_empty() && bytes.len() < SEGMENT_BYTES_MAX {
        let operation = Operation::ALL[usize::from(input.u8()) % Operation::ALL.len()];
        let a_block = |input: &mut Bytes<'_>| {
            let index = usize::from(input.u8());
            blocks.get(index % blocks.len().max(1)).copied()
        };
        match operation {
            Operation::Block => {
                let (records, number) = records(&mut input, None);
                blocks.push(bytes.len());
                bytes.extend(block(&records, number));
            }
            Operation::Sealed => {
                let length = input.u16();
                let content = input.take(length);
                blocks.push(bytes.len());
                bytes.extend(block(content, u32::from(input.u8())));
            }
            Operation::Junk => {
                let length = usize::from(input.u8());
                bytes.extend_from_slice(input.take(length));
            }
            Operation::EndMark => {
                blocks.push(bytes.len());
                bytes.extend(block(&[], 0));
            }
            Operation::Flip => {
                let (at, mask) = (input.u16() % bytes.len().max(1), input.u8());
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Operation::Fill => {
                let (start, length, value) = (input.u16(), input.u16(), input.u8());
                let start = start.min(bytes.len());
                let end = (start + length).min(bytes.len());
                bytes[start..end].fill(value);
            }
            Operation::Header => {
                let start = a_block(&mut input);
                let word = usize::from(input.u8() % 4);
                let value = [input.u8(), input.u8(), input.u8(), input.u8()];
                set_word(&mut bytes, start, word, value);
            }
            Operation::Lead => {
                let (start, to) = (a_block(&mut input), a_block(&mut input));
                let off_by = i64::from(input.u8() as i8 / 32);
                if let (Some(start), Some(to)) = (start, to) {
                    let length = to as i64 + off_by - (start + BLOCK_HEADER_BYTES) as i64;
                    set_word(&mut bytes, Some(start), 1, (length as u32).to_le_bytes());
                }
            }
            Operation::Truncate => {
                let length = input.u16();
                bytes.truncate(length);
                blocks.retain(|start| *start < length);
            }
            Operation::Remove => {
                let (start, length) = (input.u16(), input.u16());
                let start = start.min(bytes.len());
                let end = (start + length).min(bytes.len());
                bytes.drain(start..end);
                blocks.retain(|at| *at < start);
            }
        }
    }
    Written { bytes, blocks }
}

fn set_word(bytes: &mut [u8], block: Option<usize>, word: usize, value: [u8; 4]) {
    let place = block.and_then(|start| bytes.get_mut(start + 4 * word..start + 4 * word + 4));
    if let Some(place) = place {
        place.copy_from_slice(&value);
    }
}

/// The records of a block, as bytes, and their number; `also` takes the same records for the collector's own writer.
fn records(input: &mut Bytes<'_>, mut also: Option<&mut RecordBuffer>) -> (Vec<u8>, u32) {
    let mut bytes = Vec::new();
    let number = 1 + u32::from(input.u8() % 4);
    for _ in 0..number {
        let (kind, length) = (input.u8(), usize::from(input.u8()));
        let payload = input.take(length);
        if kind == 0 {
            let drops = Drops {
                at_ms: CREATED_AT_MS,
                kernel_dropped: length as u64,
                queue_dropped: 1,
            };
            bytes.extend_from_slice(&[2, kind, 0, 0, 0, 0, 0, 0]);
            for word in [drops.at_ms as u64, drops.kernel_dropped, drops.queue_dropped] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
            if let Some(records) = also.as_mut() {
                records.push_drops(kind, &drops);
            }
        } else {
            let datagram = Datagram {
                received_at_ms: CREATED_AT_MS + i64::from(kind),
                source: Address::from_v4([192, 0, 2, kind]),
                source_port: u16::from(kind),
                payload,
            };
            bytes.extend_from_slice(&[1, kind, kind, 0]);
            bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&datagram.received_at_ms.to_le_bytes());
            bytes.extend_from_slice(&datagram.source.0);
            bytes.extend_from_slice(payload);
            if let Some(records) = also.as_mut() {
                records.push_datagram(kind, &datagram);
            }
        }
    }
    (bytes, number)
}

/// What the format says a segment holds: the plainest reading there is.
#[derive(PartialEq, Eq, Debug, Default)]
struct Expected {
    blocks: Vec<std::ops::Range<usize>>,
    damaged: u64,
    torn_bytes: u64,
    closed: bool,
}

fn sound_block_bytes(segment: u64, rest: &[u8]) -> Option<usize> {
    let header = rest.first_chunk::<BLOCK_HEADER_BYTES>()?;
    let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let length = word(4) as usize;
    let records = rest[BLOCK_HEADER_BYTES..].get(..length)?;
    let sound = header.starts_with(BLOCK_MAGIC)
        && length <= BLOCK_BYTES_MAX
        && checksum(segment, &header[4..12], records) == word(12);
    sound.then_some(length)
}

fn expected(segment: u64, bytes: &[u8]) -> Expected {
    let mut expected = Expected::default();
    let header = segment_header(segment);
    if bytes.len() >= SEGMENT_HEADER_BYTES {
        // The instant of its creation says nothing of the blocks; the checksum covers it.
        let sound = bytes[..16] == header[..16] && crc32fast::hash(&bytes[..28]).to_le_bytes() == bytes[28..32];
        expected.damaged += u64::from(!sound);
    }
    let mut at = SEGMENT_HEADER_BYTES.min(bytes.len());
    while at < bytes.len() {
        let Some((skipped, length)) = (0..bytes.len() - at)
            .find_map(|skipped| Some((skipped, sound_block_bytes(segment, &bytes[at + skipped..])?)))
        else {
            expected.torn_bytes = (bytes.len() - at) as u64;
            break;
        };
        expected.damaged += u64::from(skipped > 0);
        if length == 0 {
            expected.closed = true;
            break;
        }
        let start = at + skipped + BLOCK_HEADER_BYTES;
        expected.blocks.push(start..start + length);
        at = start + length;
    }
    expected
}

/// A record, as far as two readers must agree on it.
#[derive(PartialEq, Eq, Debug)]
enum Read<'a> {
    Datagram(u8, u16, i64, Address, &'a [u8]),
    Drops(u8, Drops),
}

fn read_records(content: &SegmentContent) -> Vec<Read<'_>> {
    let records = content.records().map(|record| match record {
        Record::Datagram { socket, datagram } => Read::Datagram(
            socket,
            datagram.source_port,
            datagram.received_at_ms,
            datagram.source,
            datagram.payload,
        ),
        Record::Drops { socket, drops } => Read::Drops(socket, drops),
    });
    records.collect()
}

fn expected_records<'a>(bytes: &'a [u8], expected: &Expected) -> Vec<Read<'a>> {
    let mut records = Vec::new();
    for block in &expected.blocks {
        let mut rest = &bytes[block.clone()];
        while rest.len() >= RECORD_HEADER_BYTES {
            let (header, behind) = rest.split_at(RECORD_HEADER_BYTES);
            let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("eight bytes"));
            let length = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) as usize;
            match header[0] {
                1 if length <= behind.len() => {
                    let source = Address(header[16..32].try_into().expect("sixteen bytes"));
                    let port = u16::from_le_bytes([header[2], header[3]]);
                    records.push(Read::Datagram(
                        header[1],
                        port,
                        u64_at(8) as i64,
                        source,
                        &behind[..length],
                    ));
                    rest = &behind[length..];
                }
                2 => {
                    let drops = Drops {
                        at_ms: u64_at(8) as i64,
                        kernel_dropped: u64_at(16),
                        queue_dropped: u64_at(24),
                    };
                    records.push(Read::Drops(header[1], drops));
                    rest = behind;
                }
                _ => break,
            }
        }
    }
    records
}

/// Writes, damages and reads one segment.
pub fn run(input: &[u8]) {
    let written = write(input);
    let expected = expected(NUMBER, &written.bytes);
    let content = read_segment_bytes(written.bytes.clone(), ID, NUMBER);
    let blocks = &written.blocks;
    assert_eq!(content.size_bytes(), written.bytes.len() as u64);
    assert_eq!(
        read_records(&content),
        expected_records(&written.bytes, &expected),
        "sound blocks are read once, in order; blocks were put at {blocks:?}"
    );
    assert_eq!(
        content.blocks_damaged, expected.damaged,
        "damaged places; blocks at {blocks:?}"
    );
    assert_eq!(
        content.torn_bytes, expected.torn_bytes,
        "torn bytes; blocks at {blocks:?}"
    );
    assert_eq!(content.closed, expected.closed, "closed; blocks at {blocks:?}");
    // A fuzzer learns to write any checksum, also that of another segment: what is sound here must not be so there.
    let elsewhere = self::expected(NUMBER + 1, &written.bytes);
    assert_eq!(
        read_records(&read_segment_bytes(written.bytes.clone(), ID, NUMBER + 1)),
        expected_records(&written.bytes, &elsewhere),
        "blocks of another segment; blocks at {blocks:?}"
    );
    let passes = expected.blocks.iter().find(|block| elsewhere.blocks.contains(block));
    assert_eq!(passes, None, "a block of one segment passes for one of another");
}

/// This file and the collector's writer mean the same format; checked once, before the first input.
pub fn check_format() {
    let folder = std::env::temp_dir().join(format!("ezscale-fuzz-journal-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for temporary files");
    let path = folder.join("segment");
    let mut buffer = RecordBuffer::default();
    let (records, number) = records(&mut Bytes(&[1, 5, 3, b'a', b'b', b'c', 0, 9]), Some(&mut buffer));
    let mut writer = SegmentWriter::new(path.clone(), ID, NUMBER, CREATED_AT_MS);
    writer.append(buffer);
    writer.close().expect("a segment is written");
    let theirs = std::fs::read(&path).expect("a segment is read");
    std::fs::remove_dir_all(&folder).expect("the folder is removed");
    let ours = [segment_header(NUMBER), block(&records, number), block(&[], 0)].concat();
    assert_eq!(theirs, ours, "the writer means another format than the fuzz target");
}
