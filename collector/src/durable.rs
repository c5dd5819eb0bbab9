//! Small files that are whole or as they were before: temporary file, sync, rename, sync of the folder. And what to tell
//! people when a disk fails them.

use std::error::Error;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use schemas::fault;

/// Replaces `path` by `content`.
///
/// # Errors
/// On any failure `path` is as it was before.
pub(crate) fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fault::at("durable.written");
    std::fs::rename(&temporary, path)?;
    fault::at("durable.renamed");
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// What somebody can do about an error that a disk caused, for the log; empty where only the error itself helps.
pub fn advice(error: &(dyn Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space on this disk, or enlarge it",
                ErrorKind::ReadOnlyFilesystem => "mount this disk writable; look for disk errors in the kernel's log",
                ErrorKind::PermissionDenied => "give this folder to the user that ezscale runs as",
                ErrorKind::NotFound | ErrorKind::NotADirectory => "restore or mount this folder",
                _ => "",
            };
        }
        cause = error.source();
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;
    use tables::table::WriteError;

    #[test]
    fn advice_looks_through_every_cause() {
        let full = || std::io::Error::from_raw_os_error(28);
        let encoding = WriteError::Parquet {
            path: "x".into(),
            source: parquet::errors::ParquetError::from(full()),
        };
        assert!(advice(&encoding).contains("free space"), "{encoding:?}");
        let read_only = WriteError::Io {
            path: "x".into(),
            source: std::io::Error::from_raw_os_error(30),
        };
        assert!(advice(&read_only).contains("writable"));
        assert_eq!(advice(&std::io::Error::other("x")), "");
    }
}
