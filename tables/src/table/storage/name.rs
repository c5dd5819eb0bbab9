//! Names of stored files, which cannot lead out of where they are stored.
//!
//! A name may come from outside: the manifest of a backup, or the copy of a manifest in a bucket. So it is checked where it is
//! read ([`RelativePath`]), and again where it is used ([`inside`]).

use std::borrow::Borrow;
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longest name of a file.
const MAX_BYTES: usize = 1024;

/// The text is no relative path of plain components.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a relative path of plain names")]
pub struct PathError {
    text: String,
}

/// A relative path with `/` between plain names: not empty, nothing absolute, no `.` or `..`, no empty name, no backslash and
/// no control character.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

impl RelativePath {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a text is one.
    pub fn is_one(text: &str) -> bool {
        let is_name = |name: &str| {
            let mut parts = Path::new(name).components();
            let is_plain = parts.next() == Some(Component::Normal(OsStr::new(name))) && parts.next().is_none();
            is_plain && !name.chars().any(|letter| letter == '\\' || letter.is_control())
        };
        text.len() <= MAX_BYTES && text.split('/').all(is_name)
    }
}

impl TryFrom<String> for RelativePath {
    type Error = PathError;

    fn try_from(text: String) -> Result<RelativePath, PathError> {
        match RelativePath::is_one(&text) {
            true => Ok(RelativePath(text)),
            false => Err(PathError { text }),
        }
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> String {
        path.0
    }
}

/// Maps by path are searched by text.
impl Borrow<str> for RelativePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Refuses a name that is no [`RelativePath`].
pub(super) fn check(name: &str) -> io::Result<()> {
    if RelativePath::is_one(name) {
        return Ok(());
    }
    let error = PathError { text: name.to_owned() };
    Err(io::Error::new(io::ErrorKind::InvalidInput, error))
}

/// Where a file of a folder is. The folder itself may be a symbolic link; one below it that leads out of it is refused.
pub(super) fn inside(folder: &Path, name: &str) -> io::Result<PathBuf> {
    check(name)?;
    let mut path = folder.to_owned();
    for part in name.split('/') {
        path.push(part);
        let is_link = match path.symlink_metadata() {
            Ok(metadata) => metadata.is_symlink(),
            // What is not there yet leads nowhere.
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error),
        };
        if is_link && !path.canonicalize()?.starts_with(folder.canonicalize()?) {
            let text = format!("{} is a link that leads out of {}", path.display(), folder.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    Ok(folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names that a manifest from elsewhere may hold.
    const EVIL: [&str; 14] = [
        "",
        "/",
        "/etc/cron.d/x",
        "..",
        ".",
        "../../../victim",
        "a/../../b",
        "a/./b",
        "a//b",
        "a/",
        "a\\..\\b",
        "a\0b",
        "a\nb",
        "./a",
    ];

    #[test]
    fn s1_a_path_cannot_hold_what_leads_out() {
        for text in EVIL {
            assert!(RelativePath::try_from(text.to_owned()).is_err(), "{text:?}");
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<RelativePath>(&json).is_err(), "{text:?}");
        }
        assert!(RelativePath::try_from("x".repeat(MAX_BYTES + 1)).is_err());
        for text in ["flows/2026-11-21/a.parquet", "a", "..a/b..", "...", "a b"] {
            let path = RelativePath::try_from(text.to_owned()).unwrap();
            assert_eq!(path.as_str(), text);
        }
    }

    #[test]
    fn s1_a_folder_gives_no_place_outside() {
        let (outside, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folder = root.path().join("tables");
        std::fs::create_dir_all(folder.join("flows")).unwrap();
        for name in EVIL {
            assert!(inside(&folder, name).is_err(), "{name:?}");
        }
        assert_eq!(inside(&folder, "flows/d/a").unwrap(), folder.join("flows/d/a"));
        std::os::unix::fs::symlink(outside.path(), folder.join("flows/out")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("gone"), folder.join("flows/lost")).unwrap();
        std::os::unix::fs::symlink(folder.join("flows"), folder.join("again")).unwrap();
        let refused = inside(&folder, "flows/out/a").unwrap_err();
        assert!(refused.to_string().contains("leads out"), "{refused}");
        assert!(inside(&folder, "flows/lost").is_err());
        assert!(inside(&folder, "again/a").is_ok(), "it stays inside");
        // The folder itself lies where its owner wants it.
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(inside(&link, "again/a").is_ok());
    }
}
