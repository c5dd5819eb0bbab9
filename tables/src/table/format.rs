//! The format of a table's files: a number that rises with each change of its columns or of what they mean.
//!
//! The manifest's property `table_format` says the newest format that was ever written to the table; without it, that is 1.
//! Files of earlier formats stay beside it and are read ([`crate::column::ColumnFallback`]). Of a table with files of a newer
//! format nothing is read and nothing is written: whoever merges files without knowing a column drops it.

use std::path::Path;

use super::manifest::{self, Cache, MANIFEST_FORMAT};
use super::{Commit, ManifestError, Snapshot, Table};
use crate::column::TableDef;
use schemas::file_format::{FoundFormat, NewerFormat, refuse_newer};

/// The property of a manifest.
const TABLE_FORMAT: &str = "table_format";
/// Of tables that do not say.
const FIRST_FORMAT: u32 = 1;

fn recorded(snapshot: &Snapshot) -> Option<u32> {
    snapshot.properties.get(TABLE_FORMAT)?.parse().ok()
}

impl Table {
    /// Refuses a table whose files a newer program wrote.
    pub(super) fn refuse_newer_files(&self, snapshot: &Snapshot) -> Result<(), NewerFormat> {
        let found = recorded(snapshot).unwrap_or(FIRST_FORMAT);
        refuse_newer("table", &self.dir, found, self.def.format)
    }

    /// Lets a commit say of which format its files are, where the manifest does not yet.
    pub(super) fn say_format(&self, before: &Snapshot, commit: &mut Commit) {
        if recorded(before).is_none_or(|recorded| recorded < self.def.format) {
            commit.set.insert(TABLE_FORMAT.to_owned(), self.def.format.to_string());
        }
    }
}

/// The formats of a data directory's manifest of a table, and of the table's files where the manifest can be read; nothing
/// where there is no manifest. Nothing is made or changed.
///
/// # Errors
/// When the manifest cannot be read or is damaged.
pub fn found_formats(data_dir: &Path, def: &TableDef) -> Result<Vec<FoundFormat>, ManifestError> {
    let dir = data_dir.join("tables").join(def.name);
    let path = dir.join("MANIFEST");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let of_manifest = FoundFormat {
        kind: "manifest",
        found: manifest::format_of(&path)?,
        path,
        known: MANIFEST_FORMAT,
    };
    if of_manifest.is_newer() {
        return Ok(vec![of_manifest]);
    }
    let snapshot = Cache::default().refresh(&dir)?;
    let of_table = FoundFormat {
        kind: "table",
        found: recorded(&snapshot).unwrap_or(FIRST_FORMAT),
        path: dir,
        known: def.format,
    };
    Ok(vec![of_manifest, of_table])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::FLOWS;

    /// Flows as a program of the future has them.
    static FUTURE: TableDef = TableDef {
        format: FLOWS.format + 1,
        ..FLOWS
    };

    fn add(path: &str) -> Commit {
        let file = super::super::FileEntry {
            path: path.to_owned(),
            rows: 1,
            size_bytes: 1,
            min_time_ms: 0,
            max_time_ms: 0,
            sequence: 0,
            encoding: super::super::FileEncoding::Open,
        };
        Commit {
            add: vec![file],
            ..Commit::default()
        }
    }

    fn found(data_dir: &Path) -> Vec<(&'static str, u32, u32)> {
        let found = found_formats(data_dir, &FLOWS).unwrap();
        found.iter().map(|one| (one.kind, one.found, one.known)).collect()
    }

    #[test]
    fn a_table_says_its_format_from_the_first_commit_on() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(found(dir.path()), []);
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        table.commit(add("a")).unwrap();
        let expected = [
            ("manifest", MANIFEST_FORMAT, MANIFEST_FORMAT),
            ("table", FLOWS.format, FLOWS.format),
        ];
        assert_eq!(found(dir.path()), expected);
        assert_eq!(
            table.snapshot().unwrap().properties[TABLE_FORMAT],
            FLOWS.format.to_string()
        );
    }

    #[test]
    fn a_table_with_newer_files_is_neither_read_nor_written() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path(), &FLOWS).unwrap();
        table.commit(add("a")).unwrap();
        let newer = Table::open(dir.path(), &FUTURE).unwrap();
        assert_eq!(newer.snapshot().unwrap().files.len(), 1, "an older one is read");
        newer.commit(add("b")).unwrap();
        let reopened = Table::open(dir.path(), &FLOWS).unwrap();
        for table in [&table, &reopened] {
            let refused = table.snapshot().unwrap_err().to_string();
            let words = format!("tables/flows is a table of format {}", FUTURE.format);
            assert!(
                refused.contains(&words) && refused.contains("restore a backup"),
                "{refused}"
            );
            assert!(matches!(table.commit(add("c")), Err(ManifestError::Newer(_))));
        }
        assert_eq!(found(dir.path())[1], ("table", FUTURE.format, FLOWS.format));
        let elsewhere = tempfile::tempdir().unwrap();
        let restored = Table::open(elsewhere.path(), &FLOWS).unwrap();
        let snapshot = Snapshot::clone(&newer.snapshot().unwrap());
        assert!(matches!(restored.begin_with(snapshot), Err(ManifestError::Newer(_))));
    }
}
