//! Writing a segment: blocks go to the file as they come and are acknowledged by a sync.
//!
//! A batch of records becomes a block where it lies: it gets its header and is written from its own buffer, many of them
//! with one call. What was not synced yet stays in memory. After a failed write or sync the same blocks are written again
//! at the same place, so that a full disk that was emptied, or a sync that failed once, leaves no hole and no double.
//! After the sync the buffers are handed back, emptied, to be filled again ([`SegmentWriter::emptied`]).

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, IoSlice, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use schemas::fault;

use super::record::RecordBuffer;
use super::{JournalError, SEGMENT_FORMAT, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, Seed, io};

/// Blocks written with one call; the kernel takes at most 1,024 (`IOV_MAX`).
const BLOCKS_PER_WRITE: usize = 256;

/// The segment being written.
#[derive(Debug)]
pub struct SegmentWriter {
    path: PathBuf,
    file: Option<File>,
    seed: Seed,
    number: u64,
    created_at_ms: i64,
    header: [u8; SEGMENT_HEADER_BYTES],
    /// Length of what is synced; the header is synced with the first blocks.
    durable_bytes: u64,
    /// What follows it, sealed: written as far as `written_bytes`, but not synced.
    unsynced: Vec<RecordBuffer>,
    unsynced_bytes: usize,
    written_bytes: usize,
    emptied: Vec<RecordBuffer>,
    ended: bool,
}

impl SegmentWriter {
    /// A new segment; nothing touches the disk before [`SegmentWriter::write`].
    pub fn new(path: PathBuf, journal_id: &str, number: u64, created_at_ms: i64) -> SegmentWriter {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        header[..7].copy_from_slice(&SEGMENT_MAGIC);
        header[7] = b'0' + SEGMENT_FORMAT;
        header[8..16].copy_from_slice(&number.to_le_bytes());
        header[16..24].copy_from_slice(&created_at_ms.to_le_bytes());
        let crc = crc32fast::hash(&header[..28]);
        header[28..].copy_from_slice(&crc.to_le_bytes());
        SegmentWriter {
            path,
            file: None,
            seed: Seed::new(journal_id, number),
            number,
            created_at_ms,
            header,
            durable_bytes: 0,
            unsynced: Vec::new(),
            unsynced_bytes: SEGMENT_HEADER_BYTES,
            written_bytes: 0,
            emptied: Vec::new(),
            ended: false,
        }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn created_at_ms(&self) -> i64 {
        self.created_at_ms
    }

    /// Length of the segment with everything appended.
    pub fn size_bytes(&self) -> u64 {
        self.durable_bytes + self.unsynced_bytes as u64
    }

    /// Bytes appended and not yet synced: they are kept in memory.
    pub fn unsynced_bytes(&self) -> usize {
        self.unsynced_bytes
    }

    /// Bytes appended and not yet handed to the operating system.
    pub fn unwritten_bytes(&self) -> usize {
        self.unsynced_bytes - self.written_bytes
    }

    /// Appends one block of records. Not acknowledged before [`SegmentWriter::sync`].
    pub fn append(&mut self, records: RecordBuffer) {
        if !records.is_empty() {
            self.append_block(records);
        }
    }

    fn append_block(&mut self, mut block: RecordBuffer) {
        block.seal(self.seed);
        self.unsynced_bytes += block.block_bytes();
        self.unsynced.push(block);
    }

    /// Buffers whose records are synced, empty again.
    pub fn emptied(&mut self) -> impl Iterator<Item = RecordBuffer> {
        self.emptied.drain(..)
    }

    /// Hands what was appended to the operating system, so that it survives the process.
    ///
    /// # Errors
    /// Nothing is lost: the next call writes the same bytes again.
    pub fn write(&mut self) -> Result<(), JournalError> {
        let result = self.write_unwritten();
        if result.is_err() {
            self.written_bytes = 0;
        }
        result.map_err(io(&self.path))
    }

    fn write_unwritten(&mut self) -> Result<(), Error> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path)?),
        };
        // Also after a failure: the same bytes go to the same place.
        file.seek(SeekFrom::Start(self.durable_bytes + self.written_bytes as u64))?;
        let header = if self.durable_bytes == 0 { &self.header[..] } else { &[] };
        while self.written_bytes < self.unsynced_bytes {
            // What is written already is passed over, to the byte: the kernel may have taken a part of a block.
            let mut skip = self.written_bytes;
            let blocks = self.unsynced.iter().map(RecordBuffer::block);
            let slices: Vec<IoSlice<'_>> = std::iter::once(header)
                .chain(blocks)
                .filter_map(|bytes| {
                    let skipped = skip.min(bytes.len());
                    skip -= skipped;
                    (skipped < bytes.len()).then(|| IoSlice::new(&bytes[skipped..]))
                })
                .take(BLOCKS_PER_WRITE)
                .collect();
            match file.write_vectored(&slices) {
                Ok(0) => return Err(Error::from(ErrorKind::WriteZero)),
                Ok(bytes) => self.written_bytes += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Acknowledges everything appended.
    ///
    /// # Errors
    /// As [`SegmentWriter::write`]; nothing new is acknowledged.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.unsynced_bytes == 0 {
            return Ok(());
        }
        self.write()?;
        let Some(file) = &self.file else { return Ok(()) };
        fault::at("journal.written");
        if let Err(source) = file.sync_data() {
            // After a failed sync the kernel may have forgotten that the pages were dirty: write them again.
            self.written_bytes = 0;
            return Err(JournalError::Io {
                path: self.path.clone(),
                source,
            });
        }
        fault::at("journal.synced");
        self.durable_bytes += self.unsynced_bytes as u64;
        self.unsynced_bytes = 0;
        self.written_bytes = 0;
        for mut block in self.unsynced.drain(..) {
            block.clear();
            self.emptied.push(block);
        }
        Ok(())
    }

    /// Writes the end mark and syncs; nothing may be appended afterwards.
    ///
    /// # Errors
    /// As [`SegmentWriter::sync`]; call again.
    pub fn close(&mut self) -> Result<(), JournalError> {
        if !self.ended {
            self.append_block(RecordBuffer::default());
            self.ended = true;
        }
        self.sync()
    }
}

/// Creates the file; its name is durable when this returns.
fn create(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    fault::at("segment.created");
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all())?;
    Ok(file)
}
