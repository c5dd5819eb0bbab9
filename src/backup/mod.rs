//! Backups beside a running server, to a folder or an S3 bucket.
//!
//! ```text
//! <to>/backups/2026-11-29T20-15-00Z/MANIFEST       written last: a backup exists when this does
//!                                  /database       SQLite's file, or what pg_dump wrote (custom format)
//!                                  /tables/flows   the table's manifest: which files it had
//!                                  /interfaces.json, configuration.toml (secrets left out), secrets.key (only when asked)
//!     /files/3f/3fa9…                              the files of all tables, by their SHA-256, shared by the backups
//! ```
//!
//! * **The database first, then the tables**, and of the tables first what is derived, last the flows. A table only ever gains
//!   what the database speaks of (usage that was charged, re-attribution that was done), and each derived table says how far it
//!   has read the ones before it: so everything that a part of the backup speaks of is in a part that was taken later. The other
//!   way round, the database would know charges whose flows the backup lacks.
//! * What is in `files/` already is not copied again: a table's file never changes.
//! * Every file is read back after it was written, and its SHA-256 compared; the database's copy is checked before it is taken.
//! * A file that vanishes while it is copied (merged, or past its retention) makes all tables be looked at again; what was
//!   copied until then is not copied twice.
//! * Killed at any moment, it leaves no backup and no harm: files that are there count for the next one.

mod copy;
mod database;
mod manifest;
mod restore;
mod verify;
mod write;

use std::path::Path;

use anyhow::Context as _;
use tables::column::TableDef;
use tables::definitions::{
    AS_1H, AS_5M, COLLECTION_5M, COUNTERS, INTERFACE_1H, INTERFACE_5M, PORT_1H, PORT_5M, TABLES, TRUTH_1H, USAGE_1H,
    USAGE_5M,
};
use tables::flow::FLOWS;
use tables::table::{Storage, StorageConfig};

pub(crate) use manifest::{Backup, list, read};
pub(crate) use restore::{Restore, restore};
pub(crate) use verify::{prune, verify};
pub(crate) use write::{Options, write};

/// The tables in the order in which they are looked at: each after everything that is derived from it.
const TABLE_ORDER: [&TableDef; TABLES.len()] = [
    &TRUTH_1H,
    &USAGE_1H,
    &INTERFACE_1H,
    &PORT_1H,
    &AS_1H,
    &USAGE_5M,
    &INTERFACE_5M,
    &PORT_5M,
    &AS_5M,
    &COLLECTION_5M,
    &COUNTERS,
    &FLOWS,
];

/// Opens the place of backups: `s3://bucket/prefix`, or a folder.
pub(crate) fn open_place(to: &str, config: &StorageConfig) -> anyhow::Result<Storage> {
    let config = if to.starts_with("s3://") {
        StorageConfig {
            url: Some(to.to_owned()),
            ..config.clone()
        }
    } else {
        let folder = Path::new(to.strip_prefix("file://").unwrap_or(to));
        let folder = std::path::absolute(folder).with_context(|| format!("find the folder {to}"))?;
        let text = folder
            .to_str()
            .with_context(|| format!("the name of {to} is not UTF-8"))?;
        StorageConfig {
            // Spaces and their like, as in every URL.
            url: Some(format!(
                "file://{}",
                text.replace('%', "%25").replace('?', "%3F").replace('#', "%23")
            )),
            ..StorageConfig::default()
        }
    };
    Storage::open(Path::new(""), &config).with_context(|| format!("open the place of backups {to}"))
}
