//! Versions of the files in a data folder, and how one that a newer program wrote is refused.
//!
//! Each kind of file carries the number of its format; one that carries none is of format 1. A program reads every format up
//! to the newest that it knows, and writes the newest. What is newer is refused before anything of it is read: an older
//! program would take it for damaged, or drop what it does not know when it writes the file anew.
//!
//! | file | where its format is | newest known |
//! |---|---|---|
//! | `FORMAT` (the folder) | its text | `src/private.rs` |
//! | `tables/<table>/MANIFEST` | `format` in its first line | `MANIFEST_FORMAT` in `tables/src/table/manifest.rs` |
//! | the table's Parquet files | property `table_format` of the manifest | `TableDef::format` |
//! | `journal/segment-*.journal` | the last byte of its magic | `SEGMENT_FORMAT` in `collector/src/journal/` |
//! | `journal/CHECKPOINT` | `version` | `VERSION` in `collector/src/pipeline/checkpoint.rs` |
//! | `secrets.key` | `# format:` | `KEY_FILE_FORMAT` in `secret/key_file.rs` |
//! | a backup's `MANIFEST` | `format` | `FORMAT` in `src/backup/manifest.rs` |
//!
//! The relational schema counts for itself ([`crate::db`]).

use std::path::{Path, PathBuf};

/// The version of this program.
pub const PROGRAM_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A file that a newer program wrote.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{} is a {kind} of format {found}, and this ezscale {PROGRAM_VERSION} knows formats up to {known}: use the newer ezscale \
     that wrote it, or restore a backup from before the upgrade (docs/upgrades.md)",
    .path.display()
)]
pub struct NewerFormat {
    pub path: PathBuf,
    /// Such as `manifest`.
    pub kind: &'static str,
    pub found: u32,
    pub known: u32,
}

crate::error_codes! {
    struct NewerFormat: Fault "file.newer_format";
}

/// A file with its format, as a data folder has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundFormat {
    /// Such as `manifest`.
    pub kind: &'static str,
    pub path: PathBuf,
    pub found: u32,
    /// The newest that this program knows.
    pub known: u32,
}

impl FoundFormat {
    pub fn is_newer(&self) -> bool {
        self.found > self.known
    }
}

/// Refuses a format that is newer than this program.
///
/// # Errors
/// When it is.
pub fn refuse_newer(kind: &'static str, path: &Path, found: u32, known: u32) -> Result<(), NewerFormat> {
    if found <= known {
        return Ok(());
    }
    Err(NewerFormat {
        path: path.to_owned(),
        kind,
        found,
        known,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_is_refused_with_the_file_both_numbers_and_what_to_do() {
        let path = Path::new("/data/journal/CHECKPOINT");
        assert_eq!(refuse_newer("checkpoint", path, 1, 2), Ok(()));
        assert_eq!(refuse_newer("checkpoint", path, 2, 2), Ok(()));
        let refused = refuse_newer("checkpoint", path, 3, 2).unwrap_err().to_string();
        for part in [
            "/data/journal/CHECKPOINT is a checkpoint of format 3",
            "knows formats up to 2",
            "use the newer ezscale",
            "restore a backup",
            PROGRAM_VERSION,
        ] {
            assert!(refused.contains(part), "{part:?} in {refused}");
        }
    }
}
