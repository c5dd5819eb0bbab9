//! Opening the database where that may upgrade it: every command does so, and each upgrade is in the audit log.
//!
//! A process that runs goes by the schema it was started with. So while one collects into the data folder no other upgrades the
//! database below it: it is refused with what to do. A database that several machines share is not watched that way: stop the
//! programs there first (docs/upgrades.md).

use std::path::Path;

use activity::act::{Act, Note};
use activity::audit::Risk;
use schemas::db::{Backend, Database, Migration, Upgrade};
use schemas::file_format::PROGRAM_VERSION;

use crate::config::Config;
use crate::database_note;
use crate::operator;
use crate::options::now_ms;

/// A configuration's database with today's schema, its secrets still sealed.
pub(crate) async fn open(config: &Config) -> anyhow::Result<Database> {
    database_note::refuse_forgotten(config)?;
    let hindrance = || hindrance(&config.data_dir);
    let url = config.database_url();
    let database = Database::open_unless(&url, &hindrance).await?;
    if database.backend() == Backend::Postgres
        && config.data_dir.exists()
        && let Err(error) = database_note::write(&config.data_dir, &url)
    {
        // It works without the note.
        tracing::warn!("where the database is cannot be noted in the data folder: {error:#}");
    }
    // A new database was not upgraded.
    if let Some(upgrade) = database.upgrade().filter(|upgrade| upgrade.from > 0) {
        audit(&database, upgrade).await?;
    }
    Ok(database)
}

/// Why a database must not be upgraded now; `None` where nothing speaks against it.
pub(crate) fn hindrance(data_dir: &Path) -> Option<String> {
    match collector::journal::holder(data_dir) {
        Ok(None) => None,
        Ok(Some(holder)) => Some(format!(
            "another process{holder} of the earlier version works in {}: stop it, then start this version, which upgrades the database",
            data_dir.display()
        )),
        Err(error) => Some(format!(
            "whether another process works in {} is not known: {error}",
            data_dir.display()
        )),
    }
}

/// Records what was applied.
pub(crate) async fn audit(database: &Database, upgrade: &Upgrade) -> anyhow::Result<()> {
    let now_ms = now_ms(database).await?;
    let applied: Vec<String> = upgrade.applied.iter().map(title).collect();
    let change = serde_json::json!({
        "before": { "schema_version": upgrade.from },
        "after": { "schema_version": upgrade.to(), "migrations": applied, "program": PROGRAM_VERSION },
    });
    let act = Act::begin(database, operator::by(), now_ms).await?;
    let note = Note::new("db.migrate", "schema").change(change);
    act.commit(note.risk(Risk::High)).await?;
    Ok(())
}

/// A migration as people name it: `004 payment reversals`.
pub(crate) fn title(migration: &Migration) -> String {
    format!("{:03} {}", migration.version, migration.name)
}
