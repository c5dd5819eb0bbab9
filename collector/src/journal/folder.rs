//! The journal's folder: its lock, its id and its segments.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};

use schemas::fault;
use schemas::file_format::FoundFormat;
use tables::table::create_dir_synced;

use super::reader::{format_of, refuse_newer_segment};
use super::{JournalError, SEGMENT_FORMAT, SEGMENT_HEADER_BYTES, io};

/// A segment on disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentFile {
    pub number: u64,
    pub path: PathBuf,
    pub size_bytes: u64,
}

/// The journal of a data directory, held by this process alone until dropped.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    id: String,
    /// Released when closed.
    _lock: File,
}

impl Journal {
    /// Opens (and creates where missing) the journal under `data_dir`.
    ///
    /// # Errors
    /// [`JournalError::Locked`] while another process holds it; [`JournalError::Newer`] when a newer program left segments in
    /// it.
    pub fn open(data_dir: &Path) -> Result<Journal, JournalError> {
        let dir = data_dir.join("journal");
        create_dir_synced(&dir).map_err(io(&dir))?;
        let lock = lock(&dir.join("LOCK"))?;
        for segment in segments(&dir)? {
            let header = read_header(&segment.path)?;
            refuse_newer_segment(&segment.path, &header, segment.number)?;
        }
        let id = read_or_make_id(&dir)?;
        Ok(Journal { dir, id, _lock: lock })
    }

    /// 16 hex digits that name this journal.
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn segment_path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("segment-{number:010}.journal"))
    }

    /// The segments on disk, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn segments(&self) -> Result<Vec<SegmentFile>, JournalError> {
        segments(&self.dir)
    }

    /// Removes a segment that every table has.
    ///
    /// # Errors
    /// When it cannot be removed; that it is gone already is no error.
    pub fn delete(&self, number: u64) -> Result<(), JournalError> {
        let path = self.segment_path(number);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io(&path)(error)),
            _ => {
                fault::at("segment.deleted");
                Ok(())
            }
        }
    }
}

/// The segments in a journal's folder, oldest first.
fn segments(dir: &Path) -> Result<Vec<SegmentFile>, JournalError> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io(dir))? {
        let entry = entry.map_err(io(dir))?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("segment-")?.strip_suffix(".journal")?.parse().ok());
        let Some(number) = number else { continue };
        let path = entry.path();
        let size_bytes = entry.metadata().map_err(io(&path))?.len();
        segments.push(SegmentFile {
            number,
            path,
            size_bytes,
        });
    }
    segments.sort_unstable_by_key(|segment| segment.number);
    Ok(segments)
}

/// The first bytes of a segment: its header, or what there is of it.
fn read_header(path: &Path) -> Result<Vec<u8>, JournalError> {
    let mut header = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    let file = File::open(path).map_err(io(path))?;
    file.take(SEGMENT_HEADER_BYTES as u64)
        .read_to_end(&mut header)
        .map_err(io(path))?;
    Ok(header)
}

/// The formats of the segments that wait in a data directory's journal; nothing is made or changed. A segment whose header
/// is damaged, or that was stored and removed meanwhile, is left out.
///
/// # Errors
/// When the folder cannot be read; that there is none is no error.
pub fn found_formats(data_dir: &Path) -> Result<Vec<FoundFormat>, JournalError> {
    let dir = data_dir.join("journal");
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for segment in segments(&dir)? {
        let header = match read_header(&segment.path) {
            Ok(header) => header,
            Err(JournalError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if let Some(format) = format_of(&header, segment.number) {
            found.push(FoundFormat {
                kind: "journal segment",
                path: segment.path,
                found: format,
                known: u32::from(SEGMENT_FORMAT),
            });
        }
    }
    Ok(found)
}

/// Who collects into a data directory, as ` (pid 7)` or empty where that is not known; `None` where nobody does.
///
/// # Errors
/// When the lock cannot be asked.
pub fn holder(data_dir: &Path) -> Result<Option<String>, JournalError> {
    let path = data_dir.join("journal").join("LOCK");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io(&path)(source)),
    };
    // Shared: several may ask at once without taking each other for a collector.
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(holder_of(&file))),
        Err(TryLockError::Error(source)) => Err(io(&path)(source)),
    }
}

/// Who holds a lock file, for messages.
fn holder_of(mut file: &File) -> String {
    let mut pid = String::new();
    // Who holds it is not worth failing over.
    let _ = file.read_to_string(&mut pid);
    match pid.trim() {
        "" => String::new(),
        pid => format!(" (pid {pid})"),
    }
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(io(path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(JournalError::Locked {
                path: path.to_owned(),
                holder: holder_of(&file),
            });
        }
        Err(TryLockError::Error(source)) => return Err(io(path)(source)),
    }
    // For people only: a disk that is full must not keep the collector from starting, which counts what it drops.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

fn read_or_make_id(dir: &Path) -> Result<String, JournalError> {
    let path = dir.join("ID");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let id = text.trim();
            if id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Ok(id.to_owned());
            }
            return Err(JournalError::BadId { path });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(io(&path)(source)),
    }
    let segments_or_checkpoint = std::fs::read_dir(dir)
        .map_err(io(dir))?
        .filter_map(Result::ok)
        .any(|entry| {
            let name = entry.file_name();
            name == "CHECKPOINT" || name.to_string_lossy().starts_with("segment-")
        });
    if segments_or_checkpoint {
        return Err(JournalError::MissingId { path });
    }
    let random_path = Path::new("/dev/urandom");
    let mut random = [0u8; 8];
    File::open(random_path)
        .and_then(|mut file| file.read_exact(&mut random))
        .map_err(io(random_path))?;
    let id = format!("{:016x}", u64::from_le_bytes(random));
    crate::durable::write(&path, format!("{id}\n").as_bytes()).map_err(io(&path))?;
    Ok(id)
}
