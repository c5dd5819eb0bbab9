//! Files of `usage_5m` that an older version wrote.
//!
//! They lack `error_bound_ppm`, which follows from the row's own packets and samples. So the files are written once more
//! from their own rows: nothing is asked of flows, which may be gone by retention, and no other number changes. The
//! table's property `columns` says that this is done.

use std::collections::BTreeMap;

use tables::table::{Commit, FileEncoding, FileEntry, Snapshot, Table, Token, write_parquet};

use super::Row;
use super::cells::Cells;
use super::files::{batch_of, read_rows};
use super::group::Group;
use super::key::ByService;
use crate::AnalyticsError;
use crate::store::parquet::unique_suffix;

/// Property of `usage_5m`: which columns its files have.
pub(crate) const COLUMNS: &str = "columns";
/// With `error_bound_ppm`.
pub(crate) const COLUMNS_VERSION: &str = "2";

/// The properties of `usage_5m` when it is complete up to a commit of `flows` and its files have all columns.
pub fn properties(flows_sequence: u64) -> BTreeMap<String, String> {
    BTreeMap::from([
        (super::FLOWS_SEQUENCE.to_owned(), flows_sequence.to_string()),
        (COLUMNS.to_owned(), COLUMNS_VERSION.to_owned()),
    ])
}

/// Whether every file has all columns.
pub(crate) fn are_current(usage: &Snapshot) -> bool {
    let version = usage.properties.get(COLUMNS).map(String::as_str);
    usage.files.is_empty() || version == Some(COLUMNS_VERSION)
}

/// Writes every file anew; answers the commit that replaces the old ones.
pub(crate) fn rewrite(table: &Table, usage: &Snapshot, number: u64) -> Result<Commit, AnalyticsError> {
    let mut commit = Commit {
        token: Some(Token {
            writer: Cells::<ByService>::WRITER.to_owned(),
            number,
        }),
        set: BTreeMap::from([(COLUMNS.to_owned(), COLUMNS_VERSION.to_owned())]),
        ..Commit::default()
    };
    for file in usage.files.values() {
        let mut rows: Vec<Row<ByService>> = Vec::new();
        read_rows(table, &file.path, &mut rows)?;
        let stem = file.path.strip_suffix(".parquet").unwrap_or(&file.path);
        let path = format!("{stem}-c{COLUMNS_VERSION}-{}.parquet", unique_suffix());
        let size_bytes = write_parquet(table, &path, [&batch_of(table.def(), &rows)?])?;
        commit.remove.push(file.path.clone());
        commit.add.push(FileEntry {
            path,
            size_bytes,
            encoding: FileEncoding::Open,
            ..file.clone()
        });
    }
    Ok(commit)
}
