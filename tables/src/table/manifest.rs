//! The manifest: an append-only log of commits, one JSON object a line, each with a checksum.
//!
//! ```text
//! <crc32 as 8 hex digits> <json>\n     first line: {"generation":G,"format":F}; every other line a commit
//! ```
//!
//! * Format 1 has no number in its first line. A log of an older format is written anew, as the newest, by the next commit;
//!   one of a newer format is refused. The first line keeps its form in all of them.
//! * One writer at a time: a commit is appended under an exclusive lock on `LOCK` and synced before it is visible.
//! * A torn last line (crash during the append) was never acknowledged: readers ignore it, the next writer cuts it off.
//! * A commit whose sync failed, or whose writer was killed before its sync, may be read and yet be lost with the machine.
//!   Whoever is asked for it again syncs before answering that it is there.
//! * A log that was read and is then empty or gone is an error, never an empty table: a disk that is not mounted must not
//!   begin a second history.
//! * When the log holds many more commits than live files it is rewritten as one commit into a new file that replaces the
//!   old by rename, under the same lock; readers notice the new generation and read from the start.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemas::fault;
use schemas::file_format::{NewerFormat, refuse_newer};
use serde::{Deserialize, Serialize};

use super::storage::RelativePath;

/// The format of logs and copies that this program writes, and the newest that it reads.
pub(super) const MANIFEST_FORMAT: u32 = 2;
/// Of logs that do not say.
const FIRST_FORMAT: u32 = 1;
/// The first line is no longer.
const HEADER_BYTES_MAX: usize = 512;

/// Commits after which the log is rewritten, when it has also grown to four times the live files.
const REWRITE_AFTER_COMMITS: u64 = if cfg!(test) { 20 } else { 2_000 };

/// Names one unit of work of one writer, in rising order: a commit is applied once (F1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// Who writes, for example the id of a journal.
    pub writer: String,
    /// Rises with every commit of that writer; starts at 1.
    pub number: u64,
}

/// What a file's pages are encoded with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileEncoding {
    /// Also with BYTE_STREAM_SPLIT, which few programs read: what manifests that do not say name.
    #[default]
    Split,
    /// Only with what other programs read too.
    Open,
}

impl FileEncoding {
    fn is_split(&self) -> bool {
        *self == FileEncoding::Split
    }
}

/// One live file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileEntry {
    /// Relative to the table's folder, with `/`.
    pub path: String,
    pub rows: u64,
    pub size_bytes: u64,
    /// Smallest and largest time in the file, UTC milliseconds: for flows from the earliest `start_at` to the latest
    /// `end_at` or `received_at`; for other tables of their time column.
    pub min_time_ms: i64,
    pub max_time_ms: i64,
    /// Sequence of the commit whose data this is. 0 in a new commit means that commit's own; a compaction carries over
    /// the largest of its inputs, because nothing changed for those who follow the sequence.
    #[serde(default)]
    pub sequence: u64,
    #[serde(default, skip_serializing_if = "FileEncoding::is_split")]
    pub encoding: FileEncoding,
}

/// A change of the table, all or nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Commit {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<FileEntry>,
    /// Paths that are replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// Table properties to set, for example how far another table was read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
}

/// The table at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Number of the newest commit; 0 for an empty table.
    pub sequence: u64,
    /// Live files by path.
    pub files: BTreeMap<String, FileEntry>,
    pub properties: BTreeMap<String, String>,
    /// Highest token number applied per writer.
    pub applied: BTreeMap<String, u64>,
}

impl Snapshot {
    /// Files that may hold times in the half-open range `[from_ms, to_ms)`.
    pub fn files_between(&self, from_ms: i64, to_ms: i64) -> impl Iterator<Item = &FileEntry> {
        self.files
            .values()
            .filter(move |file| file.max_time_ms >= from_ms && file.min_time_ms < to_ms)
    }

    /// Rows of all live files.
    pub fn rows(&self) -> u64 {
        self.files.values().map(|file| file.rows).sum()
    }

    fn check(&self, commit: &Commit) -> Result<(), ManifestError> {
        for path in &commit.remove {
            if !self.files.contains_key(path) {
                return Err(ManifestError::Conflict { path: path.clone() });
            }
        }
        for file in &commit.add {
            if self.files.contains_key(&file.path) && !commit.remove.contains(&file.path) {
                return Err(ManifestError::Exists {
                    path: file.path.clone(),
                });
            }
        }
        Ok(())
    }

    fn apply(&mut self, line: Line) {
        self.sequence = line.sequence;
        for path in &line.commit.remove {
            self.files.remove(path);
        }
        for file in line.commit.add {
            self.files.insert(file.path.clone(), file);
        }
        self.properties.extend(line.commit.set);
        if let Some(token) = line.commit.token {
            self.applied.insert(token.writer, token.number);
        }
        for (writer, number) in line.applied {
            self.applied.insert(writer, number);
        }
    }

    fn has_applied(&self, token: &Token) -> bool {
        self.applied
            .get(&token.writer)
            .is_some_and(|number| token.number <= *number)
    }
}

/// Why a manifest could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("manifest: {path}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("manifest {path} is damaged at byte {offset}: restore it from a backup")]
    Damaged { path: PathBuf, offset: u64 },
    #[error(
        "manifest {path} was there and is gone: mount or restore the table's folder (to begin an empty table, restart)"
    )]
    Gone { path: PathBuf },
    #[error("manifest {path} names the file {name:?}, which leads out of the table: restore it from a backup")]
    Outside { path: PathBuf, name: String },
    #[error("file {path} is not in the manifest any more")]
    Conflict { path: String },
    #[error("file {path} is in the manifest already")]
    Exists { path: String },
    #[error(
        "the tables of this data folder have their files under {recorded}, not under {wanted}: set storage.url back, or \
         move the files and remove {marker}"
    )]
    Moved {
        recorded: String,
        wanted: String,
        marker: PathBuf,
    },
    #[error(
        "{path} belongs to another data folder ({owner}): two must not share one storage.url; stop one of them and give \
         it another"
    )]
    Foreign { path: PathBuf, owner: String },
    #[error(
        "{path} is newer (commit {theirs}) than the manifest of this data folder (commit {ours}): it was restored from \
         an old backup; remove its folder tables/ to take the newer one"
    )]
    Outdated { path: PathBuf, theirs: u64, ours: u64 },
    #[error("the copy {path} is damaged: restore it from a backup")]
    CopyDamaged { path: PathBuf },
    #[error(transparent)]
    Newer(#[from] NewerFormat),
}

#[derive(Serialize, Deserialize)]
struct Header {
    generation: u64,
    #[serde(default = "first_format")]
    format: u32,
    /// Only in a copy: who made it, and as of which commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    copy: Option<CopyMark>,
}

fn first_format() -> u32 {
    FIRST_FORMAT
}

/// Whose copy of a manifest it is ([`super::copy`]).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct CopyMark {
    pub(super) owner: String,
    pub(super) sequence: u64,
}

#[derive(Serialize, Deserialize)]
struct Line {
    sequence: u64,
    #[serde(flatten)]
    commit: Commit,
    /// Only in a rewritten log: the tokens of the commits it replaces.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    applied: BTreeMap<String, u64>,
}

impl Line {
    /// A path in it that does not stay in the table's folder.
    fn outside(&self) -> Option<&str> {
        let added = self.commit.add.iter().map(|file| file.path.as_str());
        let removed = self.commit.remove.iter().map(String::as_str);
        added.chain(removed).find(|path| !RelativePath::is_one(path))
    }
}

/// What this process has read so far.
#[derive(Debug, Default)]
pub(super) struct Cache {
    snapshot: Arc<Snapshot>,
    generation: u64,
    format: u32,
    /// Bytes read, up to the end of the last whole line.
    offset: u64,
    commits: u64,
    /// A sync failed: the kernel may have forgotten bytes that it still shows, so the log is written anew.
    unsynced: bool,
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> ManifestError + '_ {
    move |source| ManifestError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Waits for a lock that ends with the answered file: between threads and between processes.
pub(super) fn lock(path: &Path) -> Result<File, ManifestError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(io(path))?;
    file.lock().map_err(io(path))?;
    Ok(file)
}

fn encode(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("manifest values have text keys and no floats");
    format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()))
}

fn decode<T: for<'de> Deserialize<'de>>(line: &[u8]) -> Option<T> {
    let (crc, json) = line.split_at_checked(9)?;
    let crc = u32::from_str_radix(std::str::from_utf8(crc).ok()?.strip_suffix(' ')?, 16).ok()?;
    (crc == crc32fast::hash(json))
        .then(|| serde_json::from_slice(json).ok())
        .flatten()
}

impl Cache {
    /// Reads what was appended since; the snapshot is shared, not copied, when nothing was.
    pub(super) fn refresh(&mut self, dir: &Path) -> Result<Arc<Snapshot>, ManifestError> {
        let path = dir.join("MANIFEST");
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.offset > 0 {
                    return Err(ManifestError::Gone { path });
                }
                return Ok(self.snapshot.clone());
            }
            Err(source) => return Err(ManifestError::Io { path, source }),
        };
        self.read_from(&mut file, &path)?;
        Ok(self.snapshot.clone())
    }

    fn read_from(&mut self, file: &mut File, path: &Path) -> Result<(), ManifestError> {
        let (header, header_end) = read_header(file, path)?;
        refuse_newer("manifest", path, header.format, MANIFEST_FORMAT)?;
        if header.generation != self.generation || self.offset == 0 {
            *self = Cache {
                generation: header.generation,
                format: header.format,
                offset: header_end,
                ..Cache::default()
            };
        }
        file.seek(SeekFrom::Start(self.offset)).map_err(io(path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(io(path))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut snapshot = Snapshot::clone(&self.snapshot);
        let mut rest = bytes.as_slice();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            let Some(line) = decode::<Line>(line) else {
                // Only the last line may be torn: a damaged one with more behind it is not a crash but a broken disk.
                if after.is_empty() {
                    break;
                }
                return Err(ManifestError::Damaged {
                    path: path.to_owned(),
                    offset: self.offset,
                });
            };
            if let Some(name) = line.outside() {
                return Err(ManifestError::Outside {
                    path: path.to_owned(),
                    name: name.to_owned(),
                });
            }
            snapshot.apply(line);
            self.commits += 1;
            self.offset += (end + 1) as u64;
            rest = after;
        }
        self.snapshot = Arc::new(snapshot);
        Ok(())
    }

    pub(super) fn commit(&mut self, dir: &Path, mut commit: Commit) -> Result<bool, ManifestError> {
        let _lock = lock(&dir.join("LOCK"))?;
        self.refresh(dir)?;
        let path = dir.join("MANIFEST");
        let is_older = self.offset > 0 && self.format < MANIFEST_FORMAT;
        if self.unsynced || is_older {
            self.start_log(dir, &path, self.generation + 1, Some(self.snapshot.clone()))?;
        }
        if commit
            .token
            .as_ref()
            .is_some_and(|token| self.snapshot.has_applied(token))
        {
            // Whoever applied it may have been killed before its sync.
            File::open(&path).and_then(|file| file.sync_data()).map_err(io(&path))?;
            return Ok(false);
        }
        self.snapshot.check(&commit)?;
        if let Some(file) = commit.add.iter().find(|file| !RelativePath::is_one(&file.path)) {
            return Err(ManifestError::Outside {
                path,
                name: file.path.clone(),
            });
        }
        let sequence = self.snapshot.sequence + 1;
        for file in &mut commit.add {
            if file.sequence == 0 {
                file.sequence = sequence;
            }
        }
        if self.offset == 0 {
            self.start_log(dir, &path, 1, None)?;
        }
        let line = encode(&Line {
            sequence,
            commit,
            applied: BTreeMap::new(),
        });
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io(&path))?;
        file.set_len(self.offset).map_err(io(&path))?;
        file.seek(SeekFrom::Start(self.offset)).map_err(io(&path))?;
        let (half, other_half) = line.as_bytes().split_at(line.len() / 2);
        file.write_all(half).map_err(io(&path))?;
        fault::at("manifest.torn");
        file.write_all(other_half).map_err(io(&path))?;
        fault::at("manifest.written");
        if let Err(source) = file.sync_data() {
            self.unsynced = true;
            return Err(ManifestError::Io { path, source });
        }
        fault::at("manifest.synced");
        self.read_from(&mut file, &path)?;
        let bloated = self.commits > REWRITE_AFTER_COMMITS && self.commits > 4 * self.snapshot.files.len() as u64;
        if bloated {
            self.start_log(dir, &path, self.generation + 1, Some(self.snapshot.clone()))?;
        }
        Ok(true)
    }

    /// Starts the log where there is none, with `snapshot` as its only commit.
    pub(super) fn start(&mut self, dir: &Path, snapshot: Option<Snapshot>) -> Result<(), ManifestError> {
        let path = dir.join("MANIFEST");
        self.start_log(dir, &path, 1, snapshot.map(Arc::new))
    }

    /// Replaces the log by a new one that holds `snapshot` as its only commit.
    fn start_log(
        &mut self,
        dir: &Path,
        path: &Path,
        generation: u64,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Result<(), ManifestError> {
        let mut text = encode(&Header {
            generation,
            format: MANIFEST_FORMAT,
            copy: None,
        });
        if let Some(snapshot) = snapshot {
            text.push_str(&snapshot_line(&snapshot));
        }
        let new_path = dir.join("MANIFEST.new");
        let mut file = File::create(&new_path).map_err(io(&new_path))?;
        file.write_all(text.as_bytes()).map_err(io(&new_path))?;
        file.sync_all().map_err(io(&new_path))?;
        fault::at("manifest.created");
        std::fs::rename(&new_path, path).map_err(io(path))?;
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(io(dir))?;
        *self = Cache::default();
        self.refresh(dir)?;
        Ok(())
    }
}

/// The line of a log that says what all commits up to here came to.
fn snapshot_line(snapshot: &Snapshot) -> String {
    let commit = Commit {
        token: None,
        add: snapshot.files.values().cloned().collect(),
        remove: Vec::new(),
        set: snapshot.properties.clone(),
    };
    encode(&Line {
        sequence: snapshot.sequence,
        commit,
        applied: snapshot.applied.clone(),
    })
}

/// A manifest's content for [`super::copy`].
pub(super) fn encode_copy(snapshot: &Snapshot, owner: &str) -> String {
    let mark = CopyMark {
        owner: owner.to_owned(),
        sequence: snapshot.sequence,
    };
    let header = Header {
        generation: 1,
        format: MANIFEST_FORMAT,
        copy: Some(mark),
    };
    encode(&header) + &snapshot_line(snapshot)
}

fn header_of(content: &[u8]) -> Option<Header> {
    decode(content.split(|byte| *byte == b'\n').next()?)
}

/// Refuses a copy that a newer program wrote.
pub(super) fn refuse_newer_copy(path: &Path, content: &[u8]) -> Result<(), NewerFormat> {
    // One that cannot be read is damaged, which is told elsewhere.
    let format = header_of(content).map_or(FIRST_FORMAT, |header| header.format);
    refuse_newer("manifest", path, format, MANIFEST_FORMAT)
}

/// The first line of what [`encode_copy`] wrote; `None` when it is damaged.
pub(super) fn decode_copy_mark(content: &[u8]) -> Option<CopyMark> {
    header_of(content)?.copy
}

/// What [`encode_copy`] wrote; `None` when it is damaged, or names files outside the table.
pub(super) fn decode_copy(content: &[u8]) -> Option<Snapshot> {
    decode_copy_mark(content)?;
    let header_end = content.iter().position(|byte| *byte == b'\n')?;
    let line = content[header_end + 1..].strip_suffix(b"\n")?;
    let line = decode::<Line>(line).filter(|line| line.outside().is_none())?;
    let mut snapshot = Snapshot::default();
    snapshot.apply(line);
    Some(snapshot)
}

/// The format of a log, whether this program knows it or not.
///
/// # Errors
/// When it cannot be read, or its first line is damaged.
pub(super) fn format_of(path: &Path) -> Result<u32, ManifestError> {
    let mut file = File::open(path).map_err(io(path))?;
    Ok(read_header(&mut file, path)?.0.format)
}

/// The header and its length. A log is renamed into place whole, so that an empty file is damage too.
fn read_header(file: &mut File, path: &Path) -> Result<(Header, u64), ManifestError> {
    let mut start = [0u8; HEADER_BYTES_MAX];
    let mut filled = 0;
    // Whoever has just appended stands at the end.
    file.rewind().map_err(io(path))?;
    while filled < start.len() {
        match file.read(&mut start[filled..]).map_err(io(path))? {
            0 => break,
            n => filled += n,
        }
    }
    let damaged = || ManifestError::Damaged {
        path: path.to_owned(),
        offset: 0,
    };
    let end = start[..filled]
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(damaged)?;
    let header = decode(&start[..end]).ok_or_else(damaged)?;
    Ok((header, (end + 1) as u64))
}

#[cfg(test)]
mod tests;
