//! Writing a segment: blocks go to the file as they come and are acknowledged by a sync.
//!
//! What was not synced yet stays in memory. After a failed write or sync the same bytes are written again at the same
//! place, so that a full disk that was emptied, or a sync that failed once, leaves no hole and no double.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use schemas::fault;

use super::record::RecordBuffer;
use super::{BLOCK_HEADER_BYTES, BLOCK_MAGIC, JournalError, SEGMENT_HEADER_BYTES, SEGMENT_MAGIC, Seed, io};

/// The segment being written.
#[derive(Debug)]
pub struct SegmentWriter {
    path: PathBuf,
    file: Option<File>,
    seed: Seed,
    number: u64,
    created_at_ms: i64,
    /// Length of what is synced.
    durable_bytes: u64,
    /// What follows it: written as far as `written`, but not synced.
    unsynced: Vec<u8>,
    written: usize,
    ended: bool,
}

impl SegmentWriter {
    /// A new segment; nothing touches the disk before [`SegmentWriter::write`].
    pub fn new(path: PathBuf, journal_id: &str, number: u64, created_at_ms: i64) -> SegmentWriter {
        let mut header = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        header.extend_from_slice(&SEGMENT_MAGIC);
        header.extend_from_slice(&number.to_le_bytes());
        header.extend_from_slice(&created_at_ms.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(&header);
        header.extend_from_slice(&crc.to_le_bytes());
        SegmentWriter {
            path,
            file: None,
            seed: Seed::new(journal_id, number),
            number,
            created_at_ms,
            durable_bytes: 0,
            unsynced: header,
            written: 0,
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
        self.durable_bytes + self.unsynced.len() as u64
    }

    /// Bytes appended and not yet handed to the operating system.
    pub fn unwritten_bytes(&self) -> usize {
        self.unsynced.len() - self.written
    }

    /// Appends one block of records. Not acknowledged before [`SegmentWriter::sync`].
    pub fn append(&mut self, records: &RecordBuffer) {
        if !records.is_empty() {
            self.append_block(records.bytes(), records.records());
        }
    }

    fn append_block(&mut self, bytes: &[u8], records: u32) {
        let mut lengths = [0; 8];
        lengths[..4].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        lengths[4..].copy_from_slice(&records.to_le_bytes());
        self.unsynced.reserve(BLOCK_HEADER_BYTES + bytes.len());
        self.unsynced.extend_from_slice(&BLOCK_MAGIC);
        self.unsynced.extend_from_slice(&lengths);
        self.unsynced
            .extend_from_slice(&self.seed.checksum(lengths, bytes).to_le_bytes());
        self.unsynced.extend_from_slice(bytes);
    }

    /// Hands what was appended to the operating system, so that it survives the process.
    ///
    /// # Errors
    /// Nothing is lost: the next call writes the same bytes again.
    pub fn write(&mut self) -> Result<(), JournalError> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(create(&self.path)?),
        };
        let at = self.durable_bytes + self.written as u64;
        let result = file.write_all_at(&self.unsynced[self.written..], at);
        self.written = if result.is_ok() { self.unsynced.len() } else { 0 };
        result.map_err(io(&self.path))
    }

    /// Acknowledges everything appended.
    ///
    /// # Errors
    /// As [`SegmentWriter::write`]; nothing new is acknowledged.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        self.write()?;
        let Some(file) = &self.file else { return Ok(()) };
        fault::at("journal.written");
        if let Err(source) = file.sync_data() {
            // After a failed sync the kernel may have forgotten that the pages were dirty: write them again.
            self.written = 0;
            return Err(JournalError::Io {
                path: self.path.clone(),
                source,
            });
        }
        fault::at("journal.synced");
        self.durable_bytes += self.unsynced.len() as u64;
        self.unsynced.clear();
        self.written = 0;
        Ok(())
    }

    /// Writes the end mark and syncs; nothing may be appended afterwards.
    ///
    /// # Errors
    /// As [`SegmentWriter::sync`]; call again.
    pub fn close(&mut self) -> Result<(), JournalError> {
        if !self.ended {
            self.append_block(&[], 0);
            self.ended = true;
        }
        self.sync()
    }
}

fn create(path: &Path) -> Result<File, JournalError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(io(path))?;
    fault::at("segment.created");
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(io(folder))?;
    Ok(file)
}
