//! Where the files of tables lie: a folder or an S3 bucket, behind one interface for threads.
//!
//! ```text
//! data directory (always local)            files, under [storage] url (default: the same folder)
//!   tables/STORAGE   which url, whose        <url>/<table>/YYYY-MM-DD/*.parquet
//!   tables/<table>/MANIFEST, LOCK            <url>/<table>/MANIFEST     copy, where the files lie elsewhere
//! ```
//!
//! * A file is whole or absent, on disk (temporary file, sync, rename, sync of the folder) and in a bucket.
//! * Names are relative to the URL, with `/`: `flows/2026-11-21/x.parquet`. They may be written again while no commit
//!   names them.
//! * No name leads out of the folder: `..`, absolute names and links to elsewhere are refused ([`RelativePath`]).
//! * The manifest stays local, because a commit needs an append that is atomic and a lock (docs/decisions/005-storage.md).

mod bucket;
mod config;
mod name;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf as _, Bytes};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use parquet::file::reader::{ChunkReader, Length};

use bucket::{Bucket, Upload};
pub use config::{StorageConfig, StorageError};
pub use name::{PathError, RelativePath};

use config::Place;
use name::inside;
use schemas::fault;

use super::create_dir_synced;

/// A data directory and where the files of its tables lie. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    data_dir: PathBuf,
    files: Files,
}

#[derive(Debug)]
enum Files {
    Folder(PathBuf),
    Bucket(Bucket),
}

impl From<&Path> for Storage {
    /// The data directory with its own files, which is the default.
    fn from(data_dir: &Path) -> Storage {
        let files = Files::Folder(data_dir.join("tables"));
        Storage(Arc::new(Inner {
            data_dir: data_dir.to_owned(),
            files,
        }))
    }
}

impl From<&PathBuf> for Storage {
    fn from(data_dir: &PathBuf) -> Storage {
        Storage::from(data_dir.as_path())
    }
}

impl From<&Storage> for Storage {
    fn from(storage: &Storage) -> Storage {
        storage.clone()
    }
}

impl Storage {
    /// The data directory with its files where the configuration says. Nothing is asked of the network yet.
    ///
    /// # Errors
    /// When the configuration is wrong.
    pub fn open(data_dir: &Path, config: &StorageConfig) -> Result<Storage, StorageError> {
        let files = match config.place(&data_dir.join("tables"))? {
            Place::Folder(folder) => Files::Folder(folder),
            Place::S3 { bucket, prefix } => Files::Bucket(Bucket::open(config, &bucket, &prefix)?),
        };
        Ok(Storage(Arc::new(Inner {
            data_dir: data_dir.to_owned(),
            files,
        })))
    }

    pub fn data_dir(&self) -> &Path {
        &self.0.data_dir
    }

    /// Where the manifests are.
    pub(super) fn tables_dir(&self) -> PathBuf {
        self.0.data_dir.join("tables")
    }

    /// The files lie elsewhere than the manifests: then a copy of each manifest is kept beside them.
    pub fn is_apart(&self) -> bool {
        match &self.0.files {
            Files::Folder(folder) => *folder != self.tables_dir(),
            Files::Bucket(_) => true,
        }
    }

    /// For people and for `STORAGE`: `s3://bucket/prefix` or the folder.
    pub fn url(&self) -> String {
        match &self.0.files {
            Files::Folder(folder) => folder.display().to_string(),
            Files::Bucket(bucket) => bucket.url().to_owned(),
        }
    }

    /// The files as the query engine reads them; names are as everywhere here.
    ///
    /// # Errors
    /// When the folder is not there.
    pub fn object_store(&self) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        Ok(match &self.0.files {
            Files::Folder(folder) => Arc::new(LocalFileSystem::new_with_prefix(folder)?),
            Files::Bucket(bucket) => bucket.store(),
        })
    }

    /// Where a file is, for messages.
    pub fn location(&self, name: &str) -> PathBuf {
        match &self.0.files {
            Files::Folder(folder) => folder.join(name),
            Files::Bucket(bucket) => bucket.location(name),
        }
    }

    /// Makes a folder where there are folders.
    pub(super) fn create_folder(&self, name: &str) -> io::Result<()> {
        match &self.0.files {
            Files::Folder(folder) => create_dir_synced(&inside(folder, name)?),
            Files::Bucket(_) => Ok(()),
        }
    }

    /// Starts a file; it exists under its name once [`FileWriter::finish`] has returned.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(&self, name: &str) -> io::Result<FileWriter> {
        let target = match &self.0.files {
            Files::Folder(folder) => Target::File(LocalFile::create(&inside(folder, name)?)?),
            Files::Bucket(bucket) => {
                name::check(name)?;
                Target::Object(bucket.upload(name))
            }
        };
        Ok(FileWriter { target, size_bytes: 0 })
    }

    /// Writes a small file in one go.
    ///
    /// # Errors
    /// When it cannot be written: then it is not there, or as it was.
    pub fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        match &self.0.files {
            Files::Folder(_) => {
                let mut writer = self.create(name)?;
                writer.write_all(content)?;
                writer.finish().map(|_| ())
            }
            Files::Bucket(bucket) => {
                name::check(name)?;
                bucket.put(name, Bytes::copy_from_slice(content))
            }
        }
    }

    /// A file, for who reads all of it or parts.
    ///
    /// # Errors
    /// When it cannot be read; of kind `NotFound` when there is none.
    pub fn open_file(&self, name: &str) -> io::Result<FileReader> {
        Ok(match &self.0.files {
            Files::Folder(folder) => FileReader(Source::File(File::open(inside(folder, name)?)?)),
            Files::Bucket(bucket) => {
                name::check(name)?;
                FileReader(Source::Memory(bucket.get(name)?))
            }
        })
    }

    /// A small file's content.
    ///
    /// # Errors
    /// When it cannot be read; of kind `NotFound` when there is none.
    pub fn get(&self, name: &str) -> io::Result<Bytes> {
        name::check(name)?;
        match &self.0.files {
            Files::Folder(folder) => std::fs::read(inside(folder, name)?).map(Bytes::from),
            Files::Bucket(bucket) => bucket.get(name),
        }
    }

    /// The first bytes of a file, `length` or a few more.
    pub(super) fn get_start(&self, name: &str, length: u64) -> io::Result<Bytes> {
        name::check(name)?;
        match &self.0.files {
            Files::Folder(_) => self.get(name),
            Files::Bucket(bucket) => bucket.get_start(name, length),
        }
    }

    /// A part of a file: at most `length` bytes from `offset` on.
    ///
    /// # Errors
    /// When it cannot be read; of kind `NotFound` when there is none.
    pub fn read_at(&self, name: &str, offset: u64, length: usize) -> io::Result<Bytes> {
        name::check(name)?;
        match &self.0.files {
            Files::Folder(folder) => {
                use std::io::{Read as _, Seek as _};
                let mut file = File::open(inside(folder, name)?)?;
                file.seek(io::SeekFrom::Start(offset))?;
                let mut bytes = Vec::with_capacity(length);
                file.take(length as u64).read_to_end(&mut bytes)?;
                Ok(Bytes::from(bytes))
            }
            Files::Bucket(bucket) => bucket.get_range(name, offset..offset + length as u64),
        }
    }

    /// Every file below a folder with its size in bytes; none where there is no such folder.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn list(&self, folder: &str) -> io::Result<BTreeMap<String, u64>> {
        name::check(folder)?;
        match &self.0.files {
            Files::Folder(root) => {
                let mut found = BTreeMap::new();
                list_folder(root, &inside(root, folder)?, &mut found)?;
                Ok(found)
            }
            Files::Bucket(bucket) => bucket.list(folder),
        }
    }

    /// The folder, where it is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.0.files {
            Files::Folder(folder) => Some(folder),
            Files::Bucket(_) => None,
        }
    }

    /// Removes a file.
    ///
    /// # Errors
    /// When it cannot be removed; of kind `NotFound` when there is none.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        name::check(name)?;
        match &self.0.files {
            Files::Folder(folder) => std::fs::remove_file(inside(folder, name)?),
            Files::Bucket(bucket) => bucket.remove(name),
        }
    }

    /// Files in the folders below `folder` that were written before `before_ms`. Files of the folder itself are left
    /// out: they are the manifest and its locks.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn list_before(&self, folder: &str, before_ms: i64) -> io::Result<Vec<String>> {
        name::check(folder)?;
        match &self.0.files {
            Files::Folder(root) => list_before(root, folder, before_ms),
            Files::Bucket(bucket) => {
                let mut names = bucket.list_before(folder, before_ms)?;
                names.retain(|name| name.matches('/').count() >= 2);
                Ok(names)
            }
        }
    }
}

fn list_folder(root: &Path, folder: &Path, found: &mut BTreeMap<String, u64>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let (path, metadata) = (entry.path(), entry.metadata()?);
        if metadata.is_dir() {
            list_folder(root, &path, found)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            found.insert(name.to_string_lossy().into_owned(), metadata.len());
        }
    }
    Ok(())
}

fn list_before(root: &Path, folder: &str, before_ms: i64) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for day in std::fs::read_dir(inside(root, folder)?)? {
        let day = day?.path();
        if !day.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&day)? {
            let path = file?.path();
            let modified = path.metadata().and_then(|metadata| metadata.modified());
            let is_old = modified
                .ok()
                .and_then(|at| jiff::Timestamp::try_from(at).ok())
                .is_some_and(|at| at.as_millisecond() <= before_ms);
            if let (true, Ok(name)) = (is_old, path.strip_prefix(root)) {
                names.push(name.to_string_lossy().into_owned());
            }
        }
    }
    Ok(names)
}

/// A file that is being written: it exists under its name once [`FileWriter::finish`] has returned, and not before. When
/// dropped unfinished it never existed.
#[derive(Debug)]
pub struct FileWriter {
    target: Target,
    size_bytes: u64,
}

#[derive(Debug)]
enum Target {
    File(LocalFile),
    Object(Upload),
}

impl Write for FileWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.target {
            Target::File(file) => file.file.write_all(bytes)?,
            Target::Object(upload) => upload.write(bytes)?,
        }
        self.size_bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::File(file) => file.file.flush(),
            Target::Object(_) => Ok(()),
        }
    }
}

impl FileWriter {
    /// Makes the file durable and gives it its name; answers its size in bytes.
    ///
    /// # Errors
    /// On any failure the file is not there under its name.
    pub fn finish(self) -> io::Result<u64> {
        match self.target {
            Target::File(file) => file.finish()?,
            Target::Object(upload) => upload.finish()?,
        }
        Ok(self.size_bytes)
    }
}

/// A file on disk under a temporary name, which no other writer shares.
#[derive(Debug)]
struct LocalFile {
    file: BufWriter<File>,
    temporary: PathBuf,
    target: PathBuf,
    is_renamed: bool,
}

impl LocalFile {
    fn create(target: &Path) -> io::Result<LocalFile> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if let Some(parent) = target.parent() {
            create_dir_synced(parent)?;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = target.with_extension(format!("{}x{number}.tmp", std::process::id()));
        Ok(LocalFile {
            file: BufWriter::with_capacity(1 << 16, File::create(&temporary)?),
            temporary,
            target: target.to_owned(),
            is_renamed: false,
        })
    }

    fn finish(mut self) -> io::Result<()> {
        let is_parquet = self.target.extension().is_some_and(|extension| extension == "parquet");
        let fault_at = |point| {
            if is_parquet {
                fault::at(point);
            }
        };
        self.file.flush()?;
        fault_at("parquet.written");
        self.file.get_ref().sync_all()?;
        fault_at("parquet.synced");
        std::fs::rename(&self.temporary, &self.target)?;
        self.is_renamed = true;
        fault_at("parquet.renamed");
        let parent = self.target.parent().unwrap_or(Path::new("."));
        File::open(parent)?.sync_all()
    }
}

impl Drop for LocalFile {
    fn drop(&mut self) {
        if !self.is_renamed {
            // What cannot be removed now is removed by the next vacuum.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// A stored file for the Parquet reader: a file on disk, or the whole object in memory.
#[derive(Debug)]
pub struct FileReader(Source);

#[derive(Debug)]
enum Source {
    File(File),
    Memory(Bytes),
}

impl FileReader {
    /// All of it, from its first byte on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn from_start(&self) -> io::Result<Box<dyn io::Read + Send>> {
        self.get_read(0).map_err(io::Error::other)
    }

    /// The content, when it was read already.
    pub fn in_memory(&self) -> Option<FileReader> {
        match &self.0 {
            Source::File(_) => None,
            Source::Memory(bytes) => Some(FileReader(Source::Memory(bytes.clone()))),
        }
    }
}

impl Length for FileReader {
    fn len(&self) -> u64 {
        match &self.0 {
            Source::File(file) => Length::len(file),
            Source::Memory(bytes) => bytes.len() as u64,
        }
    }
}

impl ChunkReader for FileReader {
    type T = Box<dyn io::Read + Send>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(match &self.0 {
            Source::File(file) => Box::new(file.get_read(start)?),
            Source::Memory(bytes) => {
                let start = usize::try_from(start).unwrap_or(usize::MAX).min(bytes.len());
                Box::new(bytes.slice(start..).reader())
            }
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        match &self.0 {
            Source::File(file) => file.get_bytes(start, length),
            Source::Memory(bytes) => bytes.get_bytes(start, length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::from(dir.path());
        let mut writer = storage.create("flows/1970-01-01/a.parquet").unwrap();
        writer.write_all(b"half").unwrap();
        let folder = dir.path().join("tables/flows/1970-01-01");
        assert!(!folder.join("a.parquet").exists());
        drop(writer);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left behind");

        let mut writer = storage.create("flows/1970-01-01/a.parquet").unwrap();
        writer.write_all(b"whole").unwrap();
        assert_eq!(writer.finish().unwrap(), 5);
        assert_eq!(storage.get("flows/1970-01-01/a.parquet").unwrap(), "whole");
    }

    #[test]
    fn s1_nothing_is_written_read_or_removed_outside() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let victim = outside.path().join("victim");
        std::fs::write(&victim, "as it was").unwrap();
        let storage = Storage::from(dir.path());
        storage.put("flows/d/a", b"inside").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("tables/flows/out")).unwrap();
        let absolute = victim.display().to_string();
        let above = format!("flows{}{absolute}", "/..".repeat(20));
        for name in [absolute.as_str(), above.as_str(), "flows/out/victim", "flows/out/new"] {
            assert!(storage.create(name).is_err(), "{name}");
            assert!(storage.put(name, b"evil").is_err(), "{name}");
            assert!(storage.get(name).is_err(), "{name}");
            assert!(storage.open_file(name).is_err(), "{name}");
            assert!(storage.read_at(name, 0, 1).is_err(), "{name}");
            assert!(storage.remove(name).is_err(), "{name}");
        }
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "as it was");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn two_writers_of_one_name_do_not_disturb_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::from(dir.path());
        let mut first = storage.create("flows/d/a").unwrap();
        let mut second = storage.create("flows/d/a").unwrap();
        first.write_all(b"first").unwrap();
        second.write_all(b"second").unwrap();
        first.finish().unwrap();
        assert_eq!(storage.get("flows/d/a").unwrap(), "first");
        second.finish().unwrap();
        assert_eq!(storage.get("flows/d/a").unwrap(), "second");
    }
}
