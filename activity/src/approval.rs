//! Dual approval (F-60): what one admin asks for and another decides.
//!
//! ```text
//! request ──▶ pending ──approve──▶ approved   the action is handed back to be done, in the same transaction
//!                     ──reject───▶ rejected   with a reason
//! ```
//!
//! An action is a name and its JSON: which actions there are, which of them wait for a second admin, and doing them, is up to
//! whoever requests.
//!
//! Promises:
//! * Whoever decides is an admin, may sign in, and is not the one who asked.
//! * Of two who decide at once, one wins and the other is told so: an action is handed out at most once.
//! * What is approved is what is done: the action is kept as it was asked for.
//! * Request and decision are in the audit log as high risk, so the owner is told of both. A decision is one entry with what was
//!   done by it.

use schemas::db::next_id;
use schemas::identity::{self, Role};
use schemas::ids::{ApprovalId, UserId};
use schemas::text::is_plain_text;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::act::Note;
use crate::audit::{self, Actor, AuditError, Entered, Entry, Risk};
use crate::event::{self, EventError, EventType, NewEvent};

/// Characters of a reason or summary at most.
pub const MAX_REASON_CHARS: usize = 500;
/// Approvals on a page at most.
pub const MAX_PAGE: i64 = 500;

/// Why an action was not asked for or decided.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("write the audit log")]
    Audit(#[from] AuditError),
    #[error("tell the admins")]
    Event(#[from] EventError),
    #[error("no approval {0}")]
    NoApproval(ApprovalId),
    #[error("{0} is not an active admin")]
    NotAdmin(UserId),
    #[error("{0} requested it: another admin decides")]
    OwnRequest(UserId),
    #[error("{user} was made an admin after {id} was requested: an admin of before decides")]
    NewAdmin { id: ApprovalId, user: UserId },
    #[error("{id} is {status} already")]
    Decided { id: ApprovalId, status: &'static str },
    #[error("there is no second admin to decide: add one with `ezscale user add --role admin`")]
    NoSecondAdmin,
    #[error("a {field} has between 1 and {MAX_REASON_CHARS} characters and no control characters or invisible ones")]
    Text { field: &'static str },
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

/// How far a request has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Approved,
    Rejected,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Approved => "approved",
            Status::Rejected => "rejected",
        }
    }
}

impl std::str::FromStr for Status {
    type Err = ApprovalError;

    fn from_str(text: &str) -> Result<Status, ApprovalError> {
        match text {
            "pending" => Ok(Status::Pending),
            "approved" => Ok(Status::Approved),
            "rejected" => Ok(Status::Rejected),
            _ => Err(ApprovalError::Corrupt {
                what: "approval status",
                text: text.to_owned(),
            }),
        }
    }
}

/// What an admin asks for.
#[derive(Clone, PartialEq, Debug)]
pub struct NewApproval<'a> {
    /// What kind of action it is, such as `price_change`.
    pub kind: &'a str,
    /// What is to be done, complete: whoever does it asks for nothing more.
    pub action: serde_json::Value,
    /// The role that may ask for it beside admins; [`Role::Admin`] where none may.
    pub requester_role: Role,
    /// The id of what it is about, such as `pln_3`.
    pub subject: &'a str,
    /// What it does, for the one who decides, in a sentence.
    pub summary: &'a str,
}

/// An admin, and where they came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admin<'a> {
    pub user: UserId,
    pub ip: &'a str,
}

/// A request and what became of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Approval {
    pub id: ApprovalId,
    pub kind: String,
    pub subject: String,
    /// As it was asked for.
    pub action: serde_json::Value,
    pub summary: String,
    pub status: Status,
    pub requested_by: UserId,
    pub requested_at_ms: i64,
    pub decided_by: Option<UserId>,
    pub decided_at_ms: Option<i64>,
    pub reason: String,
}

/// That a second admin was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requested {
    pub id: ApprovalId,
    /// The request's entry in the audit log, to be committed with.
    pub entered: Entered,
}

/// Asks for an action that a second admin decides on.
///
/// # Errors
/// When who asks may not, or there is no other admin who could decide.
pub async fn request(
    connection: &mut AnyConnection,
    new: NewApproval<'_>,
    by: Admin<'_>,
    now_ms: i64,
) -> Result<Requested, ApprovalError> {
    let summary = checked("summary", new.summary)?;
    // Before the look at the admins: concurrent requests take turns from here on.
    let id = ApprovalId(next_id(&mut *connection, "approval").await?);
    let name = name_of(&mut *connection, by.user, new.requester_role).await?;
    if !identity::has_other_enabled_admin(&mut *connection, by.user).await? {
        return Err(ApprovalError::NoSecondAdmin);
    }
    sqlx::query(
        "INSERT INTO approvals (id, action, subject, parameters, summary, status, requested_by, requested_at_ms, reason) \
         VALUES ($1, $2, $3, $4, $5, 'pending', $6, $7, '')",
    )
    .bind(id.0)
    .bind(new.kind)
    .bind(new.subject)
    .bind(new.action.to_string())
    .bind(summary)
    .bind(by.user.0)
    .bind(now_ms)
    .execute(&mut *connection)
    .await?;
    let change = serde_json::json!({"approval": id, "summary": summary, "parameters": new.action});
    let entry = Entry {
        actor: Actor {
            name: &name,
            user: Some(by.user),
            ip: by.ip,
        },
        action: "approval.request",
        subject: new.subject,
        change,
        risk: Risk::High,
    };
    let entered = audit::record(&mut *connection, entry, now_ms).await?;
    sqlx::query("UPDATE approvals SET request_audit_id = $1 WHERE id = $2")
        .bind(entered.id().0)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let payload = serde_json::json!({
        "approval": id, "action": new.kind, "object": new.subject, "summary": summary, "requested_by": name,
    });
    tell(connection, EventType::ApprovalRequested, id, payload, now_ms).await?;
    Ok(Requested { id, entered })
}

/// Approves: returns the request with what is to be done now, in the caller's transaction, and what the decision's entry says.
/// It is handed out once.
///
/// # Errors
/// When it was decided before, or `by` is no admin or the one who asked.
pub async fn approve(
    connection: &mut AnyConnection,
    id: ApprovalId,
    by: Admin<'_>,
    now_ms: i64,
) -> Result<(Approval, Note), ApprovalError> {
    decide(connection, id, by, Status::Approved, "", now_ms).await
}

/// Rejects, with the reason; returns what the decision's entry says.
///
/// # Errors
/// When it was decided before, there is no reason, or `by` is no admin or the one who asked.
pub async fn reject(
    connection: &mut AnyConnection,
    id: ApprovalId,
    by: Admin<'_>,
    reason: &str,
    now_ms: i64,
) -> Result<Note, ApprovalError> {
    let reason = checked("reason", reason)?;
    if !is_plain_text(reason) {
        return Err(ApprovalError::Text { field: "reason" });
    }
    let (_, note) = decide(connection, id, by, Status::Rejected, reason, now_ms).await?;
    Ok(note)
}

async fn decide(
    connection: &mut AnyConnection,
    id: ApprovalId,
    by: Admin<'_>,
    status: Status,
    reason: &str,
    now_ms: i64,
) -> Result<(Approval, Note), ApprovalError> {
    let name = admin_name(&mut *connection, by.user).await?;
    if status == Status::Approved && became_admin_since_request(&mut *connection, id, by.user).await? {
        return Err(ApprovalError::NewAdmin { id, user: by.user });
    }
    // One statement compares and sets: of two deciders at once the second finds nothing pending.
    let updated = sqlx::query(
        "UPDATE approvals SET status = $1, decided_by = $2, decided_at_ms = $3, reason = $4 \
         WHERE id = $5 AND status = 'pending' AND requested_by <> $2",
    )
    .bind(status.name())
    .bind(by.user.0)
    .bind(now_ms)
    .bind(reason)
    .bind(id.0)
    .execute(&mut *connection)
    .await?;
    let approval = approval(&mut *connection, id).await?;
    if updated.rows_affected() == 0 {
        return Err(match approval.status {
            Status::Pending => ApprovalError::OwnRequest(by.user),
            decided => ApprovalError::Decided {
                id,
                status: decided.name(),
            },
        });
    }
    let verb = match status {
        Status::Approved => "approval.approve",
        _ => "approval.reject",
    };
    let payload = serde_json::json!({
        "approval": id, "action": approval.kind, "object": approval.subject, "summary": approval.summary,
        "decision": status, "decided_by": name, "reason": reason,
    });
    tell(connection, EventType::ApprovalDecided, id, payload, now_ms).await?;
    let change = serde_json::json!({"approval": id, "summary": approval.summary, "reason": reason});
    let note = Note::new(verb, &approval.subject).change(change).risk(Risk::High);
    Ok((approval, note))
}

/// Whether somebody was made an admin, or let in again, after an approval was requested: whoever requests could otherwise make
/// the second admin too.
async fn became_admin_since_request(
    connection: &mut AnyConnection,
    id: ApprovalId,
    user: UserId,
) -> Result<bool, ApprovalError> {
    // By the order of the entries: the clocks of who requests and who adds users may differ. Requests of before this was kept
    // are compared by time.
    let sql = "SELECT count(*) FROM audit_log l JOIN approvals a ON a.id = $1 WHERE l.subject = $2 \
               AND l.action IN ('user.add', 'user.set_role', 'user.enable') AND (l.id > a.request_audit_id \
               OR (a.request_audit_id IS NULL AND l.at_ms > a.requested_at_ms))";
    let row = sqlx::query(sql).bind(id.0).bind(user.to_string());
    Ok(row.fetch_one(connection).await?.try_get::<i64, _>(0)? > 0)
}

async fn tell(
    connection: &mut AnyConnection,
    event_type: EventType,
    id: ApprovalId,
    payload: serde_json::Value,
    now_ms: i64,
) -> Result<(), ApprovalError> {
    let event = NewEvent {
        event_type,
        customer: None,
        subject: id.to_string(),
        payload,
    };
    event::publish(connection, event, now_ms).await?;
    Ok(())
}

/// The email address of an admin who may sign in.
async fn admin_name(db: impl AnyExecutor<'_>, user: UserId) -> Result<String, ApprovalError> {
    name_of(db, user, Role::Admin).await
}

/// The email address of an admin, or of somebody in another role, who may sign in.
async fn name_of(db: impl AnyExecutor<'_>, user: UserId, role: Role) -> Result<String, ApprovalError> {
    let found = identity::user(db, user).await?;
    let found = found.filter(|user| user.disabled_at_ms.is_none() && [Role::Admin, role].contains(&user.role));
    Ok(found.ok_or(ApprovalError::NotAdmin(user))?.email)
}

fn checked<'a>(field: &'static str, text: &'a str) -> Result<&'a str, ApprovalError> {
    let text = text.trim();
    match text.chars().count() {
        1..=MAX_REASON_CHARS => Ok(text),
        _ => Err(ApprovalError::Text { field }),
    }
}

const SELECT: &str = "SELECT id, action, subject, parameters, summary, status, requested_by, requested_at_ms, decided_by, \
                      decided_at_ms, reason FROM approvals";

/// One request.
///
/// # Errors
/// [`ApprovalError::NoApproval`] when there is none of this id.
pub async fn approval(db: impl AnyExecutor<'_>, id: ApprovalId) -> Result<Approval, ApprovalError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE id = $1"));
    let row = sqlx::query(sql).bind(id.0).fetch_optional(db).await?;
    read(&row.ok_or(ApprovalError::NoApproval(id))?)
}

/// The requests of one kind that nobody has decided, oldest first.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn pending_of(db: impl AnyExecutor<'_>, kind: &str) -> Result<Vec<Approval>, ApprovalError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE status = 'pending' AND action = $1 ORDER BY id"));
    let rows = sqlx::query(sql).bind(kind).fetch_all(db).await?;
    rows.iter().map(read).collect()
}

/// Requests, latest first, `limit` at most; of one status or all.
///
/// # Errors
/// As the database answers, or when a stored value is not understood.
pub async fn list(
    db: impl AnyExecutor<'_>,
    status: Option<Status>,
    before: Option<ApprovalId>,
    limit: i64,
) -> Result<Vec<Approval>, ApprovalError> {
    let sql = sqlx::AssertSqlSafe(format!(
        "{SELECT} WHERE id < $1 AND ($2 = '' OR status = $2) ORDER BY id DESC LIMIT $3"
    ));
    let rows = sqlx::query(sql)
        .bind(before.map_or(i64::MAX, |before| before.0))
        .bind(status.map_or("", Status::name))
        .bind(limit.clamp(1, MAX_PAGE))
        .fetch_all(db)
        .await?;
    rows.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<Approval, ApprovalError> {
    let parameters: String = row.try_get("parameters")?;
    Ok(Approval {
        id: ApprovalId(row.try_get("id")?),
        kind: row.try_get("action")?,
        subject: row.try_get("subject")?,
        action: serde_json::from_str(&parameters).map_err(|_| ApprovalError::Corrupt {
            what: "action",
            text: parameters,
        })?,
        summary: row.try_get("summary")?,
        status: row.try_get::<String, _>("status")?.parse()?,
        requested_by: UserId(row.try_get("requested_by")?),
        requested_at_ms: row.try_get("requested_at_ms")?,
        decided_by: row.try_get::<Option<i64>, _>("decided_by")?.map(UserId),
        decided_at_ms: row.try_get("decided_at_ms")?,
        reason: row.try_get("reason")?,
    })
}

#[cfg(test)]
mod tests;
