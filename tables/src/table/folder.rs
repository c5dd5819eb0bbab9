//! Folders that are found after a power cut.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

/// Makes a folder, and those above it, where they are missing; their names are synced, so that what is synced in them is
/// found after a power cut.
///
/// # Errors
/// When one cannot be made, or is a file.
pub fn create_dir_synced(dir: &Path) -> std::io::Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new(""));
    create_dir_synced(parent)?;
    match std::fs::create_dir(dir) {
        // Somebody else was faster.
        Err(error) if error.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        made => made?,
    }
    let parent = if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    };
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_once_and_a_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir_synced(&deep).unwrap();
        create_dir_synced(&deep).unwrap();
        assert!(deep.is_dir());
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        for path in [file.clone(), file.join("below")] {
            assert!(create_dir_synced(&path).is_err(), "{}", path.display());
        }
    }
}
