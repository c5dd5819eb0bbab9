//! The journal: what the routers said, before anybody parsed it.
//!
//! * A record is *acknowledged* once the block that holds it was synced. An acknowledged record is read again exactly once
//!   per reading of its segment, whatever happens to the process (F1). A block that a crash cut off was never
//!   acknowledged and is ignored, with a count.
//! * One process writes a data directory: it holds an exclusive lock on `LOCK` as long as it lives.
//! * Segments are numbered from 1 in the order they were written; a number is never used twice, because it is also the
//!   token under which the segment's rows are committed to the tables.
//! * The writer appends and syncs; the worker reads closed segments only, and deletes each when the tables and the
//!   checkpoint have it. Nobody else touches the folder.
//!
//! ```text
//! <data_dir>/journal/LOCK                          held exclusively; holds the process id, for people
//!                   /ID                            16 hex digits, made once; names this journal in commits
//!                   /CHECKPOINT                    decoder state before the oldest segment not yet stored
//!                   /segment-0000000001.journal
//!
//! segment  ┌────────────┬───────┬───────┬─ ─ ─┬──────────┐
//!          │ header, 32 │ block │ block │     │ end mark │     end mark = a block without records: closed on purpose
//!          └────────────┴───────┴───────┴─ ─ ─┴──────────┘
//! header    7 magic "EZJOURN" · 1 format, a digit: "1" · 8 segment number · 8 created at, UTC ms · 4 zero · 4 crc32 of the 28 before
//! block     4 magic "EZBK" · 4 length of the records · 4 number of records · 4 crc32 · records
//! datagram  1 kind = 1 · 1 socket · 2 source port · 4 payload length · 8 received at, UTC ms · 16 source · payload
//! drops     1 kind = 2 · 1 socket · 2 zero · 4 zero · 8 at, UTC ms · 8 dropped by the kernel · 8 dropped by the queue
//! ```
//!
//! Segments of a newer format are refused, before anything is read or removed. The header has its form in every format: a
//! digit that a bad disk changed does not fit its checksum, and is damage.
//!
//! Numbers are little-endian. The crc32 of a block covers length, number and records, and is seeded with the journal's
//! id and the segment's number: bytes that a stranger sends in a datagram cannot pass for a block, nor can a block of
//! another segment.
//!
//! Reading goes from block to block. Behind a damaged block the next sound one is searched byte by byte: its own length may
//! be what is damaged. Each damaged place is counted.
//! Damage with nothing sound behind it is the torn end of a crash.

mod folder;
mod reader;
mod record;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use schemas::file_format::NewerFormat;

pub use folder::{Journal, SegmentFile, found_formats, holder};
pub(crate) use reader::{Blocks, read_file_into};
pub use reader::{SegmentContent, read_segment, read_segment_bytes};
pub use record::{Drops, Record, RecordBuffer, Records};
pub use writer::SegmentWriter;

/// Records of one block together are at most this long; a longer length in a header is damage.
pub const BLOCK_BYTES_MAX: usize = 4 << 20;

const SEGMENT_MAGIC: [u8; 7] = *b"EZJOURN";
/// The format of segments that this program writes, and the newest that it reads: a digit.
const SEGMENT_FORMAT: u8 = 1;
const BLOCK_MAGIC: [u8; 4] = *b"EZBK";
const SEGMENT_HEADER_BYTES: usize = 32;
const BLOCK_HEADER_BYTES: usize = 16;

/// Why the journal could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("journal: {path}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "another process{holder} collects into this data directory ({path} is locked): stop it, or use another --data-dir"
    )]
    Locked { path: PathBuf, holder: String },
    #[error("{path} does not hold a journal id: restore it, or move the journal folder away to start a new one")]
    BadId { path: PathBuf },
    #[error(
        "{path} is missing, and without it the segments beside it cannot be read: restore it (the MANIFEST of table flows names it as writer), or move the journal folder away to start a new one"
    )]
    MissingId { path: PathBuf },
    #[error(transparent)]
    Newer(#[from] NewerFormat),
}

fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> JournalError + '_ {
    move |source| JournalError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Seeds the checksums of one segment.
#[derive(Clone, Copy, Debug)]
struct Seed(u32);

impl Seed {
    fn new(journal_id: &str, segment: u64) -> Seed {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(journal_id.as_bytes());
        hasher.update(&segment.to_le_bytes());
        Seed(hasher.finalize())
    }

    /// Checksum of a block's length, number of records and records.
    fn checksum(self, lengths: [u8; 8], records: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(&lengths);
        hasher.update(records);
        hasher.finalize()
    }
}
