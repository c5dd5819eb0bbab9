//! Corrections of what exporters said, kept for good: what was said, by whom, and what it changed.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use super::assigned::note_attribution_changed;
use super::{InventoryError, checked_text};
use crate::address::Address;
use crate::db::next_id;
use crate::ids::CorrectionId;
use crate::metering::correction::{Correction, CorrectionSettings};

/// Characters in the reason of a correction at most.
pub const MAX_CORRECTION_REASON_CHARS: usize = 500;
/// Corrections kept for one exporter at most: each is looked at for every flow of it that is judged.
pub const CORRECTIONS_PER_EXPORTER_MAX: i64 = 100;

/// A stored correction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CorrectionRow {
    pub id: CorrectionId,
    pub correction: Correction,
    pub reason: String,
    pub created_by: String,
    pub created_at_ms: i64,
    /// When the stored flows showed it; `None` while they do not.
    pub applied_at_ms: Option<i64>,
    /// Stored files with flows that it changes, and these flows: as the rehearsal found them. Several processes may apply
    /// it side by side, each a part, and none of them knows the whole.
    pub files_rewritten: i64,
    pub flows_changed: i64,
}

const SELECT: &str = "SELECT id, exporter, from_ms, to_ms, settings, reason, created_by, created_at_ms, applied_at_ms, \
                      files_rewritten, flows_changed FROM exporter_corrections";

/// Keeps a correction, to be applied to the stored flows. From its commit on it holds for every flow that is judged.
/// `rehearsed` are the files and flows that it changes.
///
/// # Errors
/// When the range is empty, the settings say nothing or too much, the reason is too long, or the exporter has too many.
pub async fn add_correction(
    connection: &mut AnyConnection,
    correction: &Correction,
    reason: &str,
    created_by: &str,
    rehearsed: (u64, u64),
    now_ms: i64,
) -> Result<CorrectionRow, InventoryError> {
    correction.check(now_ms)?;
    let reason = checked_text("reason", reason, MAX_CORRECTION_REASON_CHARS)?;
    let id = CorrectionId(next_id(connection, "correction").await?);
    let kept: i64 = sqlx::query("SELECT CAST(count(*) AS BIGINT) FROM exporter_corrections WHERE exporter = $1")
        .bind(correction.exporter.to_string())
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    if kept >= CORRECTIONS_PER_EXPORTER_MAX {
        return Err(InventoryError::TooManyCorrections {
            exporter: correction.exporter,
            max: CORRECTIONS_PER_EXPORTER_MAX,
        });
    }
    let settings = serde_json::to_string(&correction.settings)
        .map_err(|_| corrupt("correction settings", format!("{:?}", correction.settings)))?;
    let (files_rewritten, flows_changed) = (stored(rehearsed.0), stored(rehearsed.1));
    sqlx::query(
        "INSERT INTO exporter_corrections (id, exporter, from_ms, to_ms, settings, reason, created_by, created_at_ms, \
         files_rewritten, flows_changed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(id.0)
    .bind(correction.exporter.to_string())
    .bind(correction.from_ms)
    .bind(correction.to_ms)
    .bind(settings)
    .bind(&reason)
    .bind(created_by)
    .bind(now_ms)
    .bind(files_rewritten)
    .bind(flows_changed)
    .execute(&mut *connection)
    .await?;
    // Whoever judges flows in this or another process takes it over, as it takes over assignments.
    note_attribution_changed(connection).await?;
    Ok(CorrectionRow {
        id,
        correction: correction.clone(),
        reason,
        created_by: created_by.to_owned(),
        created_at_ms: now_ms,
        applied_at_ms: None,
        files_rewritten,
        flows_changed,
    })
}

/// Every correction, in the order in which they were made.
///
/// # Errors
/// As the database answers.
pub async fn corrections(db: impl AnyExecutor<'_>) -> Result<Vec<CorrectionRow>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

/// Those that stored flows do not show yet, in the order in which they were made.
///
/// # Errors
/// As the database answers.
pub async fn pending_corrections(db: impl AnyExecutor<'_>) -> Result<Vec<CorrectionRow>, InventoryError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE applied_at_ms IS NULL ORDER BY id"));
    sqlx::query(sql).fetch_all(db).await?.iter().map(read).collect()
}

/// Notes that stored flows show a correction. Marking again changes nothing. `written` are the files and flows that the
/// caller changed: of those that were rehearsed what no other process had changed before, or more where flows have arrived
/// since; the larger numbers are kept.
///
/// # Errors
/// As the database answers.
pub async fn mark_correction_applied(
    db: impl AnyExecutor<'_>,
    id: CorrectionId,
    written: (u64, u64),
    now_ms: i64,
) -> Result<(), InventoryError> {
    sqlx::query(
        "UPDATE exporter_corrections SET applied_at_ms = $1, \
         files_rewritten = CASE WHEN files_rewritten < $2 THEN $2 ELSE files_rewritten END, \
         flows_changed = CASE WHEN flows_changed < $3 THEN $3 ELSE flows_changed END \
         WHERE id = $4 AND applied_at_ms IS NULL",
    )
    .bind(now_ms)
    .bind(stored(written.0))
    .bind(stored(written.1))
    .bind(id.0)
    .execute(db)
    .await?;
    Ok(())
}

/// A count as the database keeps it.
fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn corrupt(what: &'static str, text: String) -> InventoryError {
    InventoryError::Corrupt { what, text }
}

fn read(row: &AnyRow) -> Result<CorrectionRow, InventoryError> {
    let exporter: String = row.try_get("exporter")?;
    let settings: String = row.try_get("settings")?;
    let exporter: Address = exporter.parse().map_err(|_| corrupt("exporter", exporter.clone()))?;
    let settings: CorrectionSettings =
        serde_json::from_str(&settings).map_err(|_| corrupt("correction settings", settings.clone()))?;
    Ok(CorrectionRow {
        id: CorrectionId(row.try_get("id")?),
        correction: Correction {
            exporter,
            from_ms: row.try_get("from_ms")?,
            to_ms: row.try_get("to_ms")?,
            settings,
        },
        reason: row.try_get("reason")?,
        created_by: row.try_get("created_by")?,
        created_at_ms: row.try_get("created_at_ms")?,
        applied_at_ms: row.try_get("applied_at_ms")?,
        files_rewritten: row.try_get("files_rewritten")?,
        flows_changed: row.try_get("flows_changed")?,
    })
}
