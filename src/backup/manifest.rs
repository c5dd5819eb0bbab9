//! What a backup says of itself.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use ring::digest::{SHA256, digest};
use schemas::table::Storage;
use serde::{Deserialize, Serialize};

/// The form of backups that this program writes.
pub(super) const FORMAT: u32 = 1;
const MANIFEST: &str = "MANIFEST";

/// A file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) size_bytes: u64,
    /// In hex.
    pub(crate) sha256: String,
}

impl Part {
    /// Where the content of a table's file is.
    pub(super) fn file_name(&self) -> String {
        format!("files/{}/{}", self.sha256.get(..2).unwrap_or("xx"), self.sha256)
    }
}

/// Which database a backup holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DatabaseKind {
    Sqlite,
    Postgres,
}

/// A file of a table, with what its manifest says of it: what says the same has the same content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct TableFile {
    pub(crate) rows: u64,
    pub(crate) min_time_ms: i64,
    pub(crate) max_time_ms: i64,
    pub(crate) sequence: u64,
    #[serde(flatten)]
    pub(crate) part: Part,
}

/// A whole backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Backup {
    pub(crate) format: u32,
    pub(crate) name: String,
    pub(crate) created_at: String,
    pub(crate) product_version: String,
    pub(crate) schema_version: i64,
    pub(crate) database: DatabaseKind,
    /// The keys under which its secrets are sealed.
    pub(crate) secret_keys: Vec<String>,
    /// The tables' files are left out: they lie elsewhere.
    pub(crate) without_tables: bool,
    /// Files of this backup alone, by name.
    pub(crate) parts: BTreeMap<String, Part>,
    /// Files of tables, by table and path.
    pub(crate) tables: BTreeMap<String, BTreeMap<String, TableFile>>,
}

impl Backup {
    pub(super) fn folder(name: &str) -> String {
        format!("backups/{name}")
    }

    /// Where a file of its own is.
    pub(super) fn part_name(&self, part: &str) -> String {
        format!("{}/{part}", Backup::folder(&self.name))
    }

    pub(crate) fn table_files(&self) -> impl Iterator<Item = (&str, &str, &TableFile)> {
        self.tables.iter().flat_map(|(table, files)| {
            let each = files.iter();
            each.map(move |(path, file)| (table.as_str(), path.as_str(), file))
        })
    }

    pub(crate) fn table_bytes(&self) -> u64 {
        self.table_files().map(|(_, _, file)| file.part.size_bytes).sum()
    }

    /// Whether it holds the key file.
    pub(crate) fn has_key(&self) -> bool {
        self.parts.contains_key(super::write::KEY)
    }

    /// The text of its manifest: a line with the checksum of what follows.
    pub(super) fn text(&self) -> anyhow::Result<String> {
        let json = serde_json::to_string(self)?;
        Ok(format!("sha256 {}\n{json}\n", sha256_hex(json.as_bytes())))
    }

    fn parse(text: &str) -> Option<Backup> {
        let (first, json) = text.split_once('\n')?;
        let json = json.trim_end();
        let is_whole = first.strip_prefix("sha256 ")? == sha256_hex(json.as_bytes());
        is_whole.then(|| serde_json::from_str(json).ok()).flatten()
    }
}

pub(super) fn manifest_name(name: &str) -> String {
    format!("{}/{MANIFEST}", Backup::folder(name))
}

/// The names of the backups in a place, the oldest first.
pub(crate) fn list(place: &Storage) -> anyhow::Result<Vec<String>> {
    let files = place
        .list("backups")
        .with_context(|| format!("list the backups in {}", place.url()))?;
    let names = files.keys().filter_map(|file| {
        let name = file.strip_prefix("backups/")?.strip_suffix(&format!("/{MANIFEST}"))?;
        (!name.contains('/')).then(|| name.to_owned())
    });
    // Of two in one second the later has a longer name.
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    Ok(names)
}

/// One backup; the newest where none is named.
pub(crate) fn read(place: &Storage, name: Option<&str>) -> anyhow::Result<Backup> {
    let name = match name {
        Some(name) => name.to_owned(),
        None => list(place)?
            .pop()
            .with_context(|| format!("there is no backup in {}", place.url()))?,
    };
    let file = manifest_name(&name);
    let content = place
        .get(&file)
        .with_context(|| format!("there is no backup {name} in {}", place.url()))?;
    let text = std::str::from_utf8(&content).ok().and_then(Backup::parse);
    let backup = text.with_context(|| format!("{} is damaged", place.location(&file).display()))?;
    if backup.format != FORMAT {
        bail!(
            "backup {name} has the form {}, which this program does not know: use ezscale {} or newer",
            backup.format,
            backup.product_version
        );
    }
    Ok(backup)
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_manifest_is_no_backup() {
        let backup = Backup {
            format: FORMAT,
            name: "n".to_owned(),
            created_at: String::new(),
            product_version: "0".to_owned(),
            schema_version: 1,
            database: DatabaseKind::Sqlite,
            secret_keys: Vec::new(),
            without_tables: false,
            parts: BTreeMap::new(),
            tables: BTreeMap::new(),
        };
        let text = backup.text().unwrap();
        assert_eq!(Backup::parse(&text).as_ref(), Some(&backup));
        for cut in 0..text.len() - 1 {
            assert_eq!(Backup::parse(&text[..cut]), None, "cut at {cut}");
        }
        assert_eq!(Backup::parse(&text.replace("\"format\":1", "\"format\":2")), None);
    }
}
