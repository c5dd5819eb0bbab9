//! Small files that are whole or as they were before: temporary file, sync, rename, sync of the folder.

use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Replaces `path` by `content`.
///
/// # Errors
/// On any failure `path` is as it was before.
pub(crate) fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
