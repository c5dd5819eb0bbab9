//! The key file: made once, replaced whole, readable by its owner alone.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::SecretError;
use crate::file_format::{FoundFormat, refuse_newer};

/// What it is called.
const KIND: &str = "key file";
/// Bytes of a key of ChaCha20-Poly1305.
const KEY_BYTES: usize = 32;
/// Hex digits of a key's id.
pub(super) const ID_CHARS: usize = 16;
/// Keys in one file at most: one, and while it is replaced two.
const KEYS_MAX: usize = 16;
const HEADER: &str = "# The key under which EZSCALE seals secrets in its database (second factors, webhook secrets).\n\
                      # Keep a copy apart from the database's backups: without it they cannot be read.\n";
/// How the line begins that says the file's format; without one, that is 1.
const FORMAT_LINE: &str = "# format: ";
/// The format that this program writes, and the newest that it reads.
const KEY_FILE_FORMAT: u32 = 1;

/// A key, and the name under which values say that it sealed them.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub(super) bytes: [u8; KEY_BYTES],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl Key {
    pub(crate) fn random() -> Result<Key, SecretError> {
        let mut bytes = [0; KEY_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| SecretError::Random)?;
        Ok(Key::of(bytes))
    }

    fn of(bytes: [u8; KEY_BYTES]) -> Key {
        let named = [b"ezscale key id\0".as_slice(), &bytes].concat();
        let mut id = String::with_capacity(ID_CHARS);
        for byte in &digest(&SHA256, &named).as_ref()[..ID_CHARS / 2] {
            use std::fmt::Write as _;
            // Writing to a String cannot fail.
            let _ = write!(id, "{byte:02x}");
        }
        Key { id, bytes }
    }

    /// A line of the file; `None` where it is damaged.
    fn parse(line: &str) -> Option<Key> {
        let (id, text) = line.split_once(' ')?;
        let bytes: [u8; KEY_BYTES] = BASE64.decode(text.trim()).ok()?.try_into().ok()?;
        let key = Key::of(bytes);
        (key.id == id).then_some(key)
    }
}

/// The keys of a file, the oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Keyring(pub(crate) Vec<Key>);

impl Keyring {
    pub(crate) fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    fn text(&self) -> String {
        let lines = self
            .0
            .iter()
            .map(|key| format!("{} {}\n", key.id, BASE64.encode(key.bytes)));
        let head = format!("{HEADER}{FORMAT_LINE}{KEY_FILE_FORMAT}\n");
        lines.fold(head, |text, line| text + &line)
    }
}

/// Where the keys are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyFile(PathBuf);

impl KeyFile {
    pub fn new(path: impl Into<PathBuf>) -> KeyFile {
        KeyFile(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn error(&self) -> impl Fn(std::io::Error) -> SecretError + '_ {
        |source| SecretError::File {
            path: self.0.clone(),
            source,
        }
    }

    /// The ids of the keys, the oldest first; `None` where there is no file.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or can be read by others.
    pub fn key_ids(&self) -> Result<Option<Vec<String>>, SecretError> {
        let ring = self.read()?;
        Ok(ring.map(|ring| ring.0.into_iter().map(|key| key.id).collect()))
    }

    /// Its format; `None` where there is no file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn found_format(&self) -> Result<Option<FoundFormat>, SecretError> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => Ok(Some(FoundFormat {
                kind: KIND,
                path: self.0.clone(),
                found: format_of(&text),
                known: KEY_FILE_FORMAT,
            })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.error()(source)),
        }
    }

    /// Its keys; `None` where there is no file.
    pub(crate) fn read(&self) -> Result<Option<Keyring>, SecretError> {
        let metadata = match std::fs::metadata(&self.0) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.error()(source)),
        };
        check_mode(&self.0, &metadata)?;
        let text = std::fs::read_to_string(&self.0).map_err(self.error())?;
        refuse_newer(KIND, &self.0, format_of(&text), KEY_FILE_FORMAT)?;
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let damaged = || SecretError::Damaged {
                path: self.0.clone(),
                line: index + 1,
            };
            let key = Key::parse(line).filter(|_| keys.len() < KEYS_MAX);
            keys.push(key.ok_or_else(damaged)?);
        }
        match keys.is_empty() {
            true => Err(SecretError::Empty { path: self.0.clone() }),
            false => Ok(Some(Keyring(keys))),
        }
    }

    /// Makes the file with a new key; where another process was faster, that one's.
    pub(crate) fn create(&self) -> Result<Keyring, SecretError> {
        let ring = Keyring(vec![Key::random()?]);
        let temporary = self.write_beside(&ring)?;
        // A link, unlike a rename, does not replace what another process made meanwhile.
        let linked = std::fs::hard_link(&temporary, &self.0);
        std::fs::remove_file(&temporary).map_err(self.error())?;
        match linked {
            Ok(()) => self.sync_folder()?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(source) => return Err(self.error()(source)),
        }
        self.read()?.ok_or_else(|| SecretError::Empty { path: self.0.clone() })
    }

    /// Replaces the keys, in one step.
    pub(crate) fn replace(&self, ring: &Keyring) -> Result<(), SecretError> {
        let temporary = self.write_beside(ring)?;
        std::fs::rename(&temporary, &self.0).map_err(self.error())?;
        self.sync_folder()
    }

    fn folder(&self) -> &Path {
        match self.0.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    fn sync_folder(&self) -> Result<(), SecretError> {
        File::open(self.folder())
            .and_then(|folder| folder.sync_all())
            .map_err(self.error())
    }

    fn write_beside(&self, ring: &Keyring) -> Result<PathBuf, SecretError> {
        let mut name = self.0.as_os_str().to_owned();
        name.push(format!(".{}.new", std::process::id()));
        let temporary = PathBuf::from(name);
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(ring.text().as_bytes())?;
            file.sync_all()?;
            own_as(&temporary, self.folder())
        };
        write().map_err(self.error())?;
        Ok(temporary)
    }

    /// Held by who replaces keys.
    pub(crate) fn lock(&self) -> Result<File, SecretError> {
        let mut name = self.0.as_os_str().to_owned();
        name.push(".lock");
        let path = PathBuf::from(name);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(self.error())?;
        own_as(&path, self.folder()).map_err(self.error())?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(SecretError::Busy { path: self.0.clone() }),
            Err(std::fs::TryLockError::Error(source)) => Err(self.error()(source)),
        }
    }
}

/// The format that a key file says it has.
fn format_of(text: &str) -> u32 {
    let said = text.lines().find_map(|line| line.strip_prefix(FORMAT_LINE));
    said.and_then(|said| said.trim().parse().ok()).unwrap_or(1)
}

/// A file that root makes in somebody's folder is that one's: else the service could not read it.
fn own_as(path: &Path, folder: &Path) -> std::io::Result<()> {
    let (file, folder) = (std::fs::metadata(path)?, std::fs::metadata(folder)?);
    if file.uid() == 0 && folder.uid() != 0 {
        std::os::unix::fs::chown(path, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}

/// Nobody but its owner may read a key file; a group may when the file is root's, who gave it to the group of the service.
fn check_mode(path: &Path, metadata: &std::fs::Metadata) -> Result<(), SecretError> {
    let mode = metadata.mode() & 0o777;
    let forbidden = if metadata.uid() == 0 && metadata.gid() != 0 {
        0o037
    } else {
        0o077
    };
    match mode & forbidden {
        0 => Ok(()),
        _ => Err(SecretError::Readable {
            path: path.to_owned(),
            mode,
        }),
    }
}
