//! `DATABASE` in the data folder: that its database lies elsewhere, in PostgreSQL, and where.
//!
//! Without a database's name a command goes by the SQLite file in the data folder. Where the installation has PostgreSQL, such
//! as after a restore, a forgotten `--database` would begin an empty SQLite database there and answer from that: the note
//! refuses it. The URL is in the note without its password. A database that is named is used, whatever the note says.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};
use schemas::db::without_password;

use crate::config::Config;

/// The note's name in the data folder.
pub(crate) const NOTE: &str = "DATABASE";

/// Notes in a data folder where its database is.
///
/// Fails when the note cannot be read or written.
pub(crate) fn write(data_dir: &Path, url: &str) -> anyhow::Result<()> {
    let path = data_dir.join(NOTE);
    let text = without_password(url) + "\n";
    // What says so already is left alone: a full disk hinders nobody.
    if read(&path)?.as_ref() == Some(&text) {
        return Ok(());
    }
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

/// Refuses to go by SQLite in a folder whose database is in PostgreSQL.
///
/// Fails with what to name.
pub(crate) fn refuse_forgotten(config: &Config) -> anyhow::Result<()> {
    if config.database.is_some() {
        return Ok(());
    }
    let path = config.data_dir.join(NOTE);
    let Some(url) = read(&path)? else { return Ok(()) };
    bail!(
        "the database of {} is {}, and none is named: name it with --database, EZSCALE_DATABASE or `database` in the \
         configuration (remove {} to use SQLite in the data folder)",
        config.data_dir.display(),
        url.trim(),
        path.display()
    )
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_not_named_is_not_begun_beside_another() {
        let scratch = tempfile::tempdir().unwrap();
        let mut config = Config {
            data_dir: scratch.path().to_owned(),
            ..Config::default()
        };
        refuse_forgotten(&config).unwrap();
        write(scratch.path(), "postgres://ez:hush4711@db.example.net/ez").unwrap();
        let refused = refuse_forgotten(&config).unwrap_err().to_string();
        for words in [
            "postgres://ez:(hidden)@db.example.net/ez",
            "--database",
            "EZSCALE_DATABASE",
        ] {
            assert!(refused.contains(words), "{words} in {refused}");
        }
        config.database = Some("postgres://ez@other/ez".parse().unwrap());
        refuse_forgotten(&config).unwrap();
    }
}
