//! Reading a segment: every sound block once, in order, past any damage.
//!
//! The file is read before anything is made of it, so that an error of the disk leaves nothing half done. Its blocks are checked
//! one by one as they are asked for ([`Blocks`]): what was just checked is in the core's cache when it is decoded.

use std::fs::File;
use std::io::Read as _;
use std::ops::Range;
use std::path::Path;

use schemas::file_format::refuse_newer;

use super::record::{Record, Records};
use super::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BLOCK_MAGIC, JournalError, SEGMENT_FORMAT, SEGMENT_HEADER_BYTES,
    SEGMENT_MAGIC, Seed, io,
};

/// A segment in memory, checked.
#[derive(Debug)]
pub struct SegmentContent {
    bytes: Vec<u8>,
    /// Where the records of each sound block lie.
    blocks: Vec<Range<usize>>,
    /// Damaged places between sound blocks (or in a closed segment): acknowledged data was lost there.
    pub blocks_damaged: u64,
    /// Bytes after the last sound block of a segment that was not closed: never acknowledged.
    pub torn_bytes: u64,
    /// The segment ends with its end mark.
    pub closed: bool,
}

impl SegmentContent {
    /// Every record, in the order it was written.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.blocks
            .iter()
            .flat_map(|block| Records::new(&self.bytes[block.clone()]))
    }

    /// Length of the file.
    pub fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

enum Found {
    /// A block with records, and where the next one starts.
    Block(Range<usize>),
    EndMark,
    Damaged,
}

fn block_at(bytes: &[u8], offset: usize, seed: Seed) -> Found {
    let Some((header, rest)) = bytes
        .get(offset..)
        .and_then(|b| b.split_first_chunk::<BLOCK_HEADER_BYTES>())
    else {
        return Found::Damaged;
    };
    let [m0, m1, m2, m3, l0, l1, l2, l3, n0, n1, n2, n3, c0, c1, c2, c3] = *header;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if [m0, m1, m2, m3] != BLOCK_MAGIC || length > BLOCK_BYTES_MAX || length > rest.len() {
        return Found::Damaged;
    }
    let lengths = [l0, l1, l2, l3, n0, n1, n2, n3];
    if seed.checksum(lengths, &rest[..length]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Found::Damaged;
    }
    if length == 0 {
        return Found::EndMark;
    }
    let start = offset + BLOCK_HEADER_BYTES;
    Found::Block(start..start + length)
}

fn is_sound(bytes: &[u8], offset: usize, seed: Seed) -> bool {
    !matches!(block_at(bytes, offset, seed), Found::Damaged)
}

/// First sound block after the damaged one at `offset`. Where its own header leads it is searched no farther than there: the
/// length may be what is damaged, and lead past sound blocks.
fn resync(bytes: &[u8], offset: usize, seed: Seed) -> Option<usize> {
    let length = bytes.get(offset + 4..offset + 8).and_then(|b| b.first_chunk());
    let lead = length
        .map(|length| offset + BLOCK_HEADER_BYTES + u32::from_le_bytes(*length) as usize)
        .filter(|next| is_sound(bytes, *next, seed));
    let end = lead.unwrap_or(bytes.len().saturating_sub(BLOCK_HEADER_BYTES - 1));
    (offset + 1..end)
        .find(|at| bytes[*at..].starts_with(&BLOCK_MAGIC) && is_sound(bytes, *at, seed))
        .or(lead)
}

/// The format that a sound header of this segment says, known or not; `None` where the header is damaged or cut off.
pub(super) fn format_of(bytes: &[u8], segment: u64) -> Option<u32> {
    let header = bytes.first_chunk::<SEGMENT_HEADER_BYTES>()?;
    let is_sound = header.starts_with(&SEGMENT_MAGIC)
        && header[8..16] == segment.to_le_bytes()
        && header[28..] == crc32fast::hash(&header[..28]).to_le_bytes();
    is_sound.then(|| u32::from(header[7].wrapping_sub(b'0')))
}

/// Refuses a segment that a newer program wrote.
pub(super) fn refuse_newer_segment(path: &Path, bytes: &[u8], segment: u64) -> Result<(), JournalError> {
    // One that cannot be asked is read as far as its blocks are sound.
    let Some(found) = format_of(bytes, segment) else {
        return Ok(());
    };
    Ok(refuse_newer("journal segment", path, found, u32::from(SEGMENT_FORMAT))?)
}

/// Walks the blocks of a segment that is in memory.
#[derive(Debug)]
pub(crate) struct Blocks<'a> {
    bytes: &'a [u8],
    seed: Seed,
    offset: usize,
    /// Until the last block was asked for these say what was found so far; as in [`SegmentContent`].
    pub(crate) blocks_damaged: u64,
    pub(crate) torn_bytes: u64,
    closed: bool,
}

impl<'a> Blocks<'a> {
    pub(crate) fn new(bytes: &'a [u8], journal_id: &str, segment: u64) -> Blocks<'a> {
        // A damaged header loses nothing by itself: number and id seed the checksums of the blocks.
        let known_formats = 1..=u32::from(SEGMENT_FORMAT);
        let is_sound = format_of(bytes, segment).is_some_and(|format| known_formats.contains(&format));
        let damaged_header = bytes.len() >= SEGMENT_HEADER_BYTES && !is_sound;
        Blocks {
            bytes,
            seed: Seed::new(journal_id, segment),
            offset: SEGMENT_HEADER_BYTES.min(bytes.len()),
            blocks_damaged: u64::from(damaged_header),
            torn_bytes: 0,
            closed: false,
        }
    }

    /// Where the records of the next sound block lie.
    fn next_range(&mut self) -> Option<Range<usize>> {
        while self.offset < self.bytes.len() {
            match block_at(self.bytes, self.offset, self.seed) {
                Found::Block(records) => {
                    self.offset = records.end;
                    return Some(records);
                }
                Found::EndMark => {
                    self.closed = true;
                    self.offset = self.bytes.len();
                }
                Found::Damaged => match resync(self.bytes, self.offset, self.seed) {
                    Some(next) => {
                        self.blocks_damaged += 1;
                        self.offset = next;
                    }
                    None => {
                        self.torn_bytes = (self.bytes.len() - self.offset) as u64;
                        self.offset = self.bytes.len();
                    }
                },
            }
        }
        None
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Records<'a>;

    /// The records of the next sound block.
    fn next(&mut self) -> Option<Records<'a>> {
        let range = self.next_range()?;
        Some(Records::new(&self.bytes[range]))
    }
}

/// Reads a whole segment (at most `segment_max_bytes` and one block, so it fits in memory).
///
/// # Errors
/// When the file cannot be read, or is of a newer format. Damage is no error: it is counted in the answer.
pub fn read_segment(path: &Path, journal_id: &str, segment: u64) -> Result<SegmentContent, JournalError> {
    let mut bytes = Vec::new();
    read_file_into(&mut bytes, path, segment)?;
    Ok(read_segment_bytes(bytes, journal_id, segment))
}

/// Reads a segment's file into the room of an earlier one: fresh memory for each costs as much as reading it.
///
/// # Errors
/// When the file cannot be read, or is of a newer format.
pub(crate) fn read_file_into(room: &mut Vec<u8>, path: &Path, segment: u64) -> Result<(), JournalError> {
    room.clear();
    File::open(path)
        .and_then(|mut file| file.read_to_end(room))
        .map_err(io(path))?;
    refuse_newer_segment(path, room, segment)
}

/// [`read_segment`] of a file that is in memory already.
pub fn read_segment_bytes(bytes: Vec<u8>, journal_id: &str, segment: u64) -> SegmentContent {
    let mut blocks = Blocks::new(&bytes, journal_id, segment);
    let mut ranges = Vec::new();
    while let Some(records) = blocks.next_range() {
        ranges.push(records);
    }
    SegmentContent {
        blocks: ranges,
        blocks_damaged: blocks.blocks_damaged,
        torn_bytes: blocks.torn_bytes,
        closed: blocks.closed,
        bytes,
    }
}
