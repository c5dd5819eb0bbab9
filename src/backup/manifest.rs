//! What a backup says of itself.
//!
//! A backup may come from elsewhere, and whoever can write it can write its checksums: so nothing that it names leads out of its
//! place, or out of the folder that it is restored into. Its tables are those that we know ([`TableName`]), their files are
//! relative paths of plain names ([`RelativePath`]), and its name is that of its folder.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use ring::digest::{SHA256, digest};
use schemas::file_format::PROGRAM_VERSION;
use serde::{Deserialize, Serialize};
use tables::table::{RelativePath, Storage};

use super::TABLE_ORDER;

/// The form of backups that this program writes.
pub(super) const FORMAT: u32 = 1;
const MANIFEST: &str = "MANIFEST";

/// The name of a table that backups hold.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(into = "&'static str")]
pub(crate) struct TableName(&'static str);

impl TableName {
    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }
}

impl TryFrom<String> for TableName {
    type Error = UnknownTable;

    fn try_from(name: String) -> Result<TableName, UnknownTable> {
        let known = TABLE_ORDER.iter().find(|def| def.name == name);
        known.map(|def| TableName(def.name)).ok_or(UnknownTable(name))
    }
}

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<TableName, D::Error> {
        TableName::try_from(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl From<TableName> for &'static str {
    fn from(table: TableName) -> &'static str {
        table.0
    }
}

/// A backup names a table that this program does not have.
#[derive(Debug)]
pub(crate) struct UnknownTable(String);

impl std::fmt::Display for UnknownTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is no table {:?}", self.0)
    }
}

impl std::error::Error for UnknownTable {}

/// A file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) size_bytes: u64,
    /// In hex.
    pub(crate) sha256: String,
}

impl Part {
    /// Whether its checksum is one.
    fn is_sound(&self) -> bool {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        self.sha256.len() == 64 && self.sha256.bytes().all(is_digit)
    }

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
    pub(crate) parts: BTreeMap<RelativePath, Part>,
    /// Files of tables, by table and path.
    pub(crate) tables: BTreeMap<TableName, BTreeMap<RelativePath, TableFile>>,
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

    /// A file of a table.
    pub(super) fn file(&self, table: &str, path: &str) -> Option<&TableFile> {
        let (_, files) = self.tables.iter().find(|(name, _)| name.as_str() == table)?;
        files.get(path)
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

    fn parse(text: &str) -> anyhow::Result<Backup> {
        let (first, json) = text.split_once('\n').context("it ends in its first line")?;
        let json = json.trim_end();
        let is_whole = first.strip_prefix("sha256 ") == Some(sha256_hex(json.as_bytes()).as_str());
        ensure!(is_whole, "it has another checksum than its first line says");
        // Asked first: of a newer form this program knows only that it says so.
        let said: BackupVersion = serde_json::from_str(json)?;
        if said.format > FORMAT {
            return Err(NewerBackup(said).into());
        }
        let backup: Backup = serde_json::from_str(json)?;
        let of_tables = backup.table_files().map(|(_, _, file)| &file.part);
        for part in backup.parts.values().chain(of_tables) {
            ensure!(part.is_sound(), "{:?} is no checksum", part.sha256);
        }
        Ok(backup)
    }
}

/// What a backup of any form says of itself.
#[derive(Debug, Deserialize)]
struct BackupVersion {
    format: u32,
    product_version: String,
}

/// A newer program made a backup.
#[derive(Debug)]
struct NewerBackup(BackupVersion);

impl std::fmt::Display for NewerBackup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "it is a backup of format {}, and this ezscale {PROGRAM_VERSION} knows formats up to {FORMAT}: use ezscale {} or newer",
            self.0.format, self.0.product_version
        )
    }
}

impl std::error::Error for NewerBackup {}

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
    ensure!(
        RelativePath::is_one(&name) && !name.contains('/'),
        "{name:?} is no name of a backup: list them with ezscale backup list"
    );
    let file = manifest_name(&name);
    let content = place
        .get(&file)
        .with_context(|| format!("there is no backup {name} in {}", place.url()))?;
    let text = std::str::from_utf8(&content).context("it is not UTF-8");
    let location = place.location(&file);
    let backup = text
        .and_then(Backup::parse)
        .map_err(|error| match error.is::<NewerBackup>() {
            true => error.context(format!("{} cannot be read", location.display())),
            false => error.context(format!("{} is damaged", location.display())),
        })?;
    ensure!(
        backup.name == name,
        "{} is damaged: it is of a backup named {:?}",
        location.display(),
        backup.name
    );
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

    fn empty() -> Backup {
        Backup {
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
        }
    }

    #[test]
    fn a_damaged_manifest_is_no_backup() {
        let backup = empty();
        let text = backup.text().unwrap();
        assert_eq!(Backup::parse(&text).unwrap(), backup);
        for cut in 0..text.len() - 1 {
            assert!(Backup::parse(&text[..cut]).is_err(), "cut at {cut}");
        }
        assert!(Backup::parse(&text.replace("\"format\":1", "\"format\":2")).is_err());
    }

    /// A manifest with a right checksum, whatever it says.
    fn signed(json: &serde_json::Value) -> String {
        let json = json.to_string();
        format!("sha256 {}\n{json}\n", sha256_hex(json.as_bytes()))
    }

    #[test]
    fn a_backup_of_a_newer_form_is_not_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let place = Storage::from(dir.path());
        let newer = serde_json::json!({ "format": FORMAT + 1, "product_version": "9.9.9", "chapters": [] });
        place.put(&manifest_name("n"), signed(&newer).as_bytes()).unwrap();
        let refused = format!("{:#}", read(&place, Some("n")).unwrap_err());
        for part in [
            "backups/n/MANIFEST cannot be read",
            &format!("a backup of format {}", FORMAT + 1),
            &format!("up to {FORMAT}"),
            "use ezscale 9.9.9 or newer",
        ] {
            assert!(refused.contains(part), "{part:?} in {refused}");
        }
        assert!(!refused.contains("damaged"), "{refused}");
    }

    fn holding(table: &str, path: &str) -> serde_json::Value {
        let mut json = serde_json::to_value(empty()).unwrap();
        json["tables"] = serde_json::json!({ table: { path: {
            "rows": 1, "min_time_ms": 0, "max_time_ms": 1, "sequence": 1, "size_bytes": 4, "sha256": "0".repeat(64),
        } } });
        json
    }

    #[test]
    fn s1_a_manifest_whose_names_lead_out_is_no_backup() {
        let sound = Backup::parse(&signed(&holding("flows", "2026-11-21/a.parquet"))).unwrap();
        assert_eq!(
            Backup::parse(&sound.text().unwrap()).unwrap(),
            sound,
            "written as it was read"
        );
        for path in [
            "../../../victim",
            "/etc/cron.d/x",
            "a//b",
            "",
            "a\\b",
            "a\0b",
            ".",
            "a/..",
        ] {
            let error = Backup::parse(&signed(&holding("flows", path))).unwrap_err();
            assert!(
                format!("{error:#}").contains("not a relative path"),
                "{path:?}: {error:#}"
            );
            let mut json = serde_json::to_value(empty()).unwrap();
            json["parts"] = serde_json::json!({ path: { "size_bytes": 4, "sha256": "0".repeat(64) } });
            assert!(Backup::parse(&signed(&json)).is_err(), "{path:?}");
        }
        for table in ["/tmp", "..", "flows/..", "", "users"] {
            let error = Backup::parse(&signed(&holding(table, "a"))).unwrap_err();
            assert!(
                format!("{error:#}").contains("there is no table"),
                "{table:?}: {error:#}"
            );
        }
        let mut json = holding("flows", "a");
        json["tables"]["flows"]["a"]["sha256"] = "../../../../etc/passwd".into();
        assert!(Backup::parse(&signed(&json)).is_err());
    }

    #[test]
    fn s1_a_backup_has_the_name_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let place = Storage::from(dir.path());
        let text = empty().text().unwrap();
        place.put(&manifest_name("n"), text.as_bytes()).unwrap();
        place.put(&manifest_name("other"), text.as_bytes()).unwrap();
        assert_eq!(read(&place, Some("n")).unwrap(), empty());
        let error = format!("{:#}", read(&place, Some("other")).unwrap_err());
        assert!(error.contains("of a backup named \"n\""), "{error}");
        for name in ["../n", "", "..", "/n", "n/.", "a/b"] {
            let error = format!("{:#}", read(&place, Some(name)).unwrap_err());
            assert!(error.contains("no name of a backup"), "{name:?}: {error}");
        }
    }
}
