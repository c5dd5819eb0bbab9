//! The journal's folder: its lock, its id and its segments.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use schemas::fault;
use tables::table::create_dir_synced;

use super::{JournalError, io};

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
    /// [`JournalError::Locked`] while another process holds it.
    pub fn open(data_dir: &Path) -> Result<Journal, JournalError> {
        let dir = data_dir.join("journal");
        create_dir_synced(&dir).map_err(io(&dir))?;
        let lock = lock(&dir.join("LOCK"))?;
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
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(io(&self.dir))? {
            let entry = entry.map_err(io(&self.dir))?;
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

    /// Removes a segment that every table has.
    ///
    /// # Errors
    /// When it cannot be removed; that it is gone already is no error.
    pub fn delete(&self, number: u64) -> Result<(), JournalError> {
        let path = self.segment_path(number);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io(&path)(error)),
            _ => {
                fault::at("segment.deleted");
                Ok(())
            }
        }
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
            let mut pid = String::new();
            // Only for the message: who holds it is not worth failing over.
            let _ = file.read_to_string(&mut pid);
            let holder = match pid.trim() {
                "" => String::new(),
                pid => format!(" (pid {pid})"),
            };
            return Err(JournalError::Locked {
                path: path.to_owned(),
                holder,
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
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
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
