//! The configuration file, looked at again and again: read when it has changed, and until what it says is taken over.
//!
//! * A file that changed since the last look may be half written, and half a file can be a valid one: it is read once it is as
//!   it was at the look before.
//! * A change is one of the content, or of who may read it: a file that was refused for its mode is read again after `chmod`.
//! * What was read and not taken over is read again at each look, so that a mistake is told until somebody mends it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::options::begun_ms;

/// Which state of a file was seen: seconds and nanoseconds of its last change of content (mtime) and of anything (ctime).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn changed_ms(&self) -> i64 {
        let (seconds, nanoseconds) = self.changed;
        seconds * 1_000 + nanoseconds / 1_000_000
    }
}

/// A configuration file that is followed.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: Option<PathBuf>,
    /// What is in force.
    taken: Option<Stamp>,
    /// At the last look.
    seen: Option<Stamp>,
    /// It was read and not taken over.
    is_pending: bool,
}

impl ConfigFile {
    /// What it says now is in force, unless it changed since the process began: it may have been read before that. Without a path
    /// nothing ever changes.
    pub(super) fn new(path: Option<PathBuf>) -> ConfigFile {
        let stamp = path.as_deref().and_then(Stamp::of);
        let is_older = |stamp: &Stamp| begun_ms().is_none_or(|begun_ms| stamp.changed_ms() < begun_ms);
        ConfigFile {
            path,
            taken: stamp.filter(is_older),
            seen: stamp,
            is_pending: false,
        }
    }

    /// The configuration, when the file is not what is in force and is as it was at the last look, or at once when it is asked
    /// for. Until [`ConfigFile::take`] the same again at each look.
    pub(super) fn read_changed(&mut self, is_asked_for: bool) -> Option<anyhow::Result<Config>> {
        let path = self.path.as_deref()?;
        let stamp = Stamp::of(path);
        let is_settled = std::mem::replace(&mut self.seen, stamp) == stamp;
        let is_to_be_read = is_settled && (self.is_pending || stamp != self.taken);
        if !is_asked_for && !is_to_be_read {
            return None;
        }
        self.is_pending = true;
        Some(Config::read(path))
    }

    /// What was read last is in force.
    pub(super) fn take(&mut self) {
        self.taken = self.seen;
        self.is_pending = false;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use jiff::Timestamp;

    use super::*;

    fn write(path: &Path, text: &str, second: i64) {
        std::fs::write(path, text).unwrap();
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(Timestamp::from_second(second).unwrap().into())
            .unwrap();
    }

    #[test]
    fn a_changed_file_is_read_once_it_is_settled_until_it_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ezscale.toml");
        write(&path, "[collection]\nsuspend_day = 20\n", 1);
        let mut file = ConfigFile::new(Some(path.clone()));
        // What it said at the start is in force.
        assert!(file.read_changed(false).is_none());
        write(&path, "[collection]\nsuspend_day = 30\n", 2);
        assert!(file.read_changed(false).is_none());
        for _ in 0..2 {
            let config = file.read_changed(false).unwrap().unwrap();
            assert_eq!(config.collection.suspend_day, 30);
        }
        file.take();
        assert!(file.read_changed(false).is_none());
        assert!(file.read_changed(true).unwrap().is_ok());
        file.take();
        // One with mistakes is told until they are mended, also when it is asked for at once.
        write(&path, "[collection]\nsuspend_day = 3\n", 3);
        for is_asked_for in [true, false, false] {
            let error = format!("{:#}", file.read_changed(is_asked_for).unwrap().unwrap_err());
            assert!(error.contains("nothing is charged automatically on day 7"), "{error}");
        }
        assert!(ConfigFile::new(None).read_changed(true).is_none());
    }

    #[test]
    fn a_file_that_was_refused_for_its_mode_is_taken_after_chmod() {
        let dir = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(dir.path(), 0o755);
        let path = dir.path().join("ezscale.toml");
        write(&path, "", 1);
        set(&path, 0o644);
        let mut file = ConfigFile::new(Some(path.clone()));
        write(
            &path,
            "[[exporter]]\naddress = '192.0.2.1'\nsnmp = { community = 'c' }\n",
            2,
        );
        assert!(file.read_changed(false).is_none());
        for _ in 0..3 {
            let error = file.read_changed(false).unwrap().unwrap_err().to_string();
            assert!(error.contains("can be read by others"), "{error}");
        }
        set(&path, 0o640);
        // The first look sees that something changed.
        assert!(file.read_changed(false).is_none());
        assert_eq!(file.read_changed(false).unwrap().unwrap().exporters.len(), 1);
        file.take();
        assert!(file.read_changed(false).is_none());
    }
}
