//! Reading a segment: every sound block once, in order, past any damage.

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

    /// The memory it took, to read another one into.
    pub(crate) fn into_room(self) -> Vec<u8> {
        self.bytes
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

/// Reads a whole segment (at most `segment_max_bytes` and one block, so it fits in memory).
///
/// # Errors
/// When the file cannot be read, or is of a newer format. Damage is no error: it is counted in the answer.
pub fn read_segment(path: &Path, journal_id: &str, segment: u64) -> Result<SegmentContent, JournalError> {
    read_segment_into(Vec::new(), path, journal_id, segment)
}

/// [`read_segment`] into the room of an earlier one ([`SegmentContent::into_room`]): fresh memory for each segment costs as
/// much as reading it.
pub(crate) fn read_segment_into(
    mut room: Vec<u8>,
    path: &Path,
    journal_id: &str,
    segment: u64,
) -> Result<SegmentContent, JournalError> {
    room.clear();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut room))
        .map_err(io(path))?;
    refuse_newer_segment(path, &room, segment)?;
    Ok(read_segment_bytes(room, journal_id, segment))
}

/// [`read_segment`] of a file that is in memory already.
pub fn read_segment_bytes(bytes: Vec<u8>, journal_id: &str, segment: u64) -> SegmentContent {
    let seed = Seed::new(journal_id, segment);
    let mut content = SegmentContent {
        bytes: Vec::new(),
        blocks: Vec::new(),
        blocks_damaged: 0,
        torn_bytes: 0,
        closed: false,
    };
    // A damaged header loses nothing by itself: number and id seed the checksums of the blocks.
    let known_formats = 1..=u32::from(SEGMENT_FORMAT);
    let is_sound = format_of(&bytes, segment).is_some_and(|format| known_formats.contains(&format));
    let damaged_header = bytes.len() >= SEGMENT_HEADER_BYTES && !is_sound;
    content.blocks_damaged += u64::from(damaged_header);
    let mut offset = SEGMENT_HEADER_BYTES.min(bytes.len());
    while offset < bytes.len() {
        match block_at(&bytes, offset, seed) {
            Found::Block(records) => {
                offset = records.end;
                content.blocks.push(records);
            }
            Found::EndMark => {
                content.closed = true;
                break;
            }
            Found::Damaged => match resync(&bytes, offset, seed) {
                Some(next) => {
                    content.blocks_damaged += 1;
                    offset = next;
                }
                None => {
                    content.torn_bytes = (bytes.len() - offset) as u64;
                    break;
                }
            },
        }
    }
    content.bytes = bytes;
    content
}
