//! Dual approval (F-60): what somebody asks for and another admin decides.
//!
//! ```text
//! gate ──▶ passes    below the threshold of its kind (`risk`): the caller does it
//!      └─▶ pending ──approve──▶ approved   the action is handed back to be done, in the same transaction
//!                  ──reject───▶ rejected   with a reason
//!                  ──time─────▶ expired    nobody decided in time
//! ```
//!
//! An action is its kind and its JSON: doing it is up to whoever asks.
//!
//! Promises:
//! * Whoever decides is an admin, may sign in, is not the one who asked and not the one whom it is about.
//! * Of two who decide at once, one wins and the other is told so: an action is handed out at most once.
//! * What is approved is what is done: the action is kept as it was asked for, and asked for once while it waits.
//! * Request and decision are in the audit log as high risk, so the owner is told of both. A decision is one entry with what was
//!   done by it. The approval names both entries, and they name it.
//! * Who asks need not have a user: on the command line it is an account of the operating system, which its entry names.

use schemas::db::{Database, next_id, next_ids};
use schemas::identity::{self, Role};
use schemas::ids::{ApprovalId, AuditId, UserId};
use schemas::text::is_plain_text;
use schemas::window::DAY_MS;
use serde::Serialize;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AnyExecutor, Row as _};

use crate::act::{Act, By, Note};
use crate::audit::{self, AuditError, AuditReceipt, Risk};
use crate::event::{self, EventError, EventType, NewEvent};
use crate::risk::{self, ApprovalRequirement, HighRisk, RiskAssessment};

/// Characters of a reason or summary at most.
pub const MAX_REASON_CHARS: usize = 500;
/// Approvals on a page at most.
pub const MAX_PAGE: i64 = 500;
/// Whose way in was changed by somebody else so short before a request does not approve it.
const NEW_ACCESS_MS: i64 = DAY_MS;

/// Why an action was not asked for or decided.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("write the audit log")]
    Audit(#[from] AuditError),
    #[error("notify the admins")]
    Event(#[from] EventError),
    #[error("no approval {0}")]
    NoApproval(ApprovalId),
    #[error("{0} is not an active admin")]
    NotAdmin(UserId),
    #[error("{0} requested it: another admin decides")]
    OwnRequest(UserId),
    #[error("it is about {0}: another admin decides")]
    AboutOneself(UserId),
    #[error(
        "{user} was made an admin, or got a password or second factor from somebody else, after or shortly before {id} was \
         requested: another admin decides"
    )]
    NewAdmin { id: ApprovalId, user: UserId },
    #[error("{0} asks for the same and waits already")]
    Waits(ApprovalId),
    #[error("{0} has expired: ask for it again")]
    Expired(ApprovalId),
    #[error("{id} is {status} already")]
    Decided { id: ApprovalId, status: &'static str },
    #[error("there is no second admin to decide: add one with `ezscale user add --role admin`")]
    NoSecondAdmin,
    #[error("a {field} has between 1 and {MAX_REASON_CHARS} characters and no control characters or invisible ones")]
    Text { field: &'static str },
    #[error("stored {what} is not understood: {text:?}")]
    Corrupt { what: &'static str, text: String },
}

schemas::error_codes! {
    ApprovalError: "approval";
    of [Database, Audit, Event]
    source []
    NotFound: NoApproval = "no_approval";
    Refused:
        NotAdmin = "not_admin", OwnRequest = "own_request", AboutOneself = "about_oneself",
        NewAdmin = "new_admin",
        NoSecondAdmin = "no_second_admin", Text = "text";
    Conflict: Decided = "decided", Waits = "waits", Expired = "expired";
    Fault: Corrupt = "corrupt";
}

/// How far a request has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Approved,
    Rejected,
    /// Nobody decided in time.
    Expired,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Approved => "approved",
            Status::Rejected => "rejected",
            Status::Expired => "expired",
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
            "expired" => Ok(Status::Expired),
            _ => Err(ApprovalError::Corrupt {
                what: "approval status",
                text: text.to_owned(),
            }),
        }
    }
}

/// What somebody asks for.
#[derive(Clone, PartialEq, Debug)]
pub struct NewApproval<'a> {
    pub kind: HighRisk,
    /// How large it is, with what counts together with it, in the unit of its rule.
    pub size: i64,
    /// What is to be done, complete: whoever does it asks for nothing more.
    pub action: serde_json::Value,
    /// The id of what it is about, such as `pln_3`. Where it is a user, that user does not decide.
    pub subject: &'a str,
    /// What it does, for the one who decides, in a sentence.
    pub summary: &'a str,
}

/// What the rules say of an action that somebody is about to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what waits is not done"]
pub enum Gate {
    /// It may be done; its entry is of this risk.
    Passes(Risk),
    /// A second admin decides; what is committed is the request.
    Waits(Requested),
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
    /// `None` where who asked has no user: the entry of the request names them ([`requester`]).
    pub requested_by: Option<UserId>,
    pub requested_at_ms: i64,
    /// Nobody decides from then on.
    pub expires_at_ms: i64,
    pub decided_by: Option<UserId>,
    pub decided_at_ms: Option<i64>,
    pub reason: String,
    /// The entries of request and decision in the audit log; `None` of those of before entries were named.
    pub request_entry: Option<AuditId>,
    pub decision_entry: Option<AuditId>,
}

/// That a second admin was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requested {
    pub id: ApprovalId,
    /// The request's entry in the audit log, to be committed with.
    pub entered: AuditReceipt,
}

/// Asks the rules whether an action may be done, and asks a second admin where it may not. Every way in asks here.
///
/// # Errors
/// As [`request`], where it waits.
pub async fn gate(
    connection: &mut AnyConnection,
    new: NewApproval<'_>,
    by: &By,
    now_ms: i64,
) -> Result<Gate, ApprovalError> {
    let thresholds = risk::thresholds(&mut *connection).await?;
    let decision = match thresholds.judge(new.kind, new.size) {
        RiskAssessment::Passes => return Ok(Gate::Passes(Risk::Normal)),
        RiskAssessment::NotifyOwner => return Ok(Gate::Passes(Risk::High)),
        RiskAssessment::Waits(decision) => decision,
    };
    if decision == ApprovalRequirement::SecondAdminOfTwo {
        // Two who each make a second admin take turns.
        next_ids(&mut *connection, "user_changes", 0).await?;
        let admins = identity::enabled_admins(&mut *connection).await?;
        if admins.len() < 2 || !admins.iter().any(|admin| may_decide(*admin, by, new.subject)) {
            return Ok(Gate::Passes(Risk::High));
        }
    }
    Ok(Gate::Waits(request(connection, new, by, now_ms).await?))
}

/// Whether an admin is another than who asks and whom it is about.
fn may_decide(admin: UserId, by: &By, subject: &str) -> bool {
    by.actor().user != Some(admin) && subject != admin.to_string()
}

/// Asks for an action that a second admin decides on.
///
/// # Errors
/// When who asks may not, there is no other admin who could decide, or the same waits already.
pub async fn request(
    connection: &mut AnyConnection,
    new: NewApproval<'_>,
    by: &By,
    now_ms: i64,
) -> Result<Requested, ApprovalError> {
    let summary = checked("summary", new.summary)?;
    // Before the look at the admins and at what waits: concurrent requests take turns from here on.
    let id = ApprovalId(next_id(&mut *connection, "approval").await?);
    expire(&mut *connection, now_ms).await?;
    let user = by.actor().user;
    let name = match user {
        Some(user) => name_of(&mut *connection, user, new.kind.rule().requester).await?,
        None => by.actor().name.to_owned(),
    };
    let admins = identity::enabled_admins(&mut *connection).await?;
    if !admins.iter().any(|admin| may_decide(*admin, by, new.subject)) {
        return Err(ApprovalError::NoSecondAdmin);
    }
    let action = new.action.to_string();
    let same = sqlx::query(
        "SELECT id FROM approvals WHERE status = 'pending' AND action = $1 AND subject = $2 AND parameters = $3 LIMIT 1",
    )
    .bind(new.kind.name())
    .bind(new.subject)
    .bind(&action)
    .fetch_optional(&mut *connection)
    .await?;
    if let Some(row) = same {
        return Err(ApprovalError::Waits(ApprovalId(row.try_get(0)?)));
    }
    let expires_at_ms = now_ms + risk::thresholds(&mut *connection).await?.valid_ms();
    sqlx::query(
        "INSERT INTO approvals (id, action, subject, parameters, summary, status, requested_by, requested_at_ms, \
         expires_at_ms, reason) VALUES ($1, $2, $3, $4, $5, 'pending', $6, $7, $8, '')",
    )
    .bind(id.0)
    .bind(new.kind.name())
    .bind(new.subject)
    .bind(action)
    .bind(summary)
    .bind(user.map(|user| user.0))
    .bind(now_ms)
    .bind(expires_at_ms)
    .execute(&mut *connection)
    .await?;
    let change = serde_json::json!({"approval": id, "parameters": new.action});
    // A summary names people: it is kept where it can be erased.
    let note = Note::new("approval.request", new.subject)
        .change(change)
        .personal(serde_json::json!({ "summary": summary }))
        .risk(Risk::High);
    let entered = audit::enter(&mut *connection, by, note, now_ms).await?;
    sqlx::query("UPDATE approvals SET request_audit_id = $1 WHERE id = $2")
        .bind(entered.id().0)
        .bind(id.0)
        .execute(&mut *connection)
        .await?;
    let payload = serde_json::json!({
        "approval": id, "action": new.kind.name(), "object": new.subject, "summary": summary, "requested_by": name,
    });
    tell(connection, EventType::ApprovalRequested, id, payload, now_ms).await?;
    Ok(Requested { id, entered })
}

/// As [`expire()`], in a transaction of its own: for the job that does it hourly.
///
/// # Errors
/// As the database answers.
pub async fn expire_now(database: &Database, now_ms: i64) -> Result<u64, ApprovalError> {
    let mut transaction = database.begin_write().await?;
    let expired = expire(&mut transaction, now_ms).await?;
    transaction.commit().await?;
    Ok(expired)
}

/// Ends the requests that nobody decided in time, and tells the admins; how many. Nobody acts: it leaves no entry.
///
/// # Errors
/// As the database answers.
pub async fn expire(connection: &mut AnyConnection, now_ms: i64) -> Result<u64, ApprovalError> {
    let rows = sqlx::query(
        "UPDATE approvals SET status = 'expired' WHERE status = 'pending' AND expires_at_ms <= $1 \
         RETURNING id, action, subject, summary",
    )
    .bind(now_ms)
    .fetch_all(&mut *connection)
    .await?;
    for row in &rows {
        let id = ApprovalId(row.try_get(0)?);
        let (action, subject, summary): (String, String, String) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        let payload = serde_json::json!({
            "approval": id, "action": action, "object": subject, "summary": summary, "decision": Status::Expired,
        });
        tell(&mut *connection, EventType::ApprovalDecided, id, payload, now_ms).await?;
    }
    Ok(u64::try_from(rows.len()).unwrap_or(u64::MAX))
}

/// Commits a decision and what was done by it, with an entry that the approval names from then on.
///
/// # Errors
/// As [`Act::commit`].
pub async fn commit_decision(mut act: Act, id: ApprovalId, note: Note) -> Result<AuditReceipt, ApprovalError> {
    let entered = act.enter(note).await?;
    sqlx::query("UPDATE approvals SET decision_audit_id = $1 WHERE id = $2")
        .bind(entered.id().0)
        .bind(id.0)
        .execute(act.connection())
        .await?;
    Ok(act.commit_entered(entered).await?)
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
    let name = name_of(&mut *connection, by.user, Role::Admin).await?;
    if status == Status::Approved && got_in_by_others(&mut *connection, id, by.user).await? {
        return Err(ApprovalError::NewAdmin { id, user: by.user });
    }
    // One statement compares and sets: of two deciders at once the second finds nothing pending.
    let updated = sqlx::query(
        "UPDATE approvals SET status = $1, decided_by = $2, decided_at_ms = $3, reason = $4 \
         WHERE id = $5 AND status = 'pending' AND (requested_by IS NULL OR requested_by <> $2) AND expires_at_ms > $3 \
         AND subject <> $6",
    )
    .bind(status.name())
    .bind(by.user.0)
    .bind(now_ms)
    .bind(reason)
    .bind(id.0)
    .bind(by.user.to_string())
    .execute(&mut *connection)
    .await?;
    let approval = approval(&mut *connection, id).await?;
    if updated.rows_affected() == 0 {
        return Err(match approval.status {
            Status::Expired => ApprovalError::Expired(id),
            Status::Pending if approval.expires_at_ms <= now_ms => ApprovalError::Expired(id),
            Status::Pending if approval.requested_by == Some(by.user) => ApprovalError::OwnRequest(by.user),
            Status::Pending => ApprovalError::AboutOneself(by.user),
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
    let change = serde_json::json!({"approval": id, "reason": reason});
    let note = Note::new(verb, &approval.subject)
        .change(change)
        .personal(serde_json::json!({"summary": approval.summary}))
        .risk(Risk::High);
    Ok((approval, note))
}

/// Whether somebody was made an admin, let in again, or given a password or another second factor by others after an approval was
/// requested, or was given those shortly before: whoever requests could otherwise be the second admin too.
async fn got_in_by_others(connection: &mut AnyConnection, id: ApprovalId, user: UserId) -> Result<bool, ApprovalError> {
    // By the order of the entries: the clocks of who requests and who adds users may differ. Requests of before this was kept
    // are compared by time.
    let sql = "SELECT count(*) FROM audit_log l JOIN approvals a ON a.id = $1 WHERE l.subject = $2 AND ( \
               l.action IN ('user.add', 'user.set_role', 'user.enable', 'user.set_password', 'user.two_factor_reset', \
               'approval.approve') AND (l.id > a.request_audit_id OR (a.request_audit_id IS NULL \
               AND l.at_ms > a.requested_at_ms)) \
               OR l.action IN ('user.set_password', 'user.two_factor_reset') AND l.at_ms > a.requested_at_ms - $3)";
    let row = sqlx::query(sql).bind(id.0).bind(user.to_string()).bind(NEW_ACCESS_MS);
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

const SELECT: &str = "SELECT id, action, subject, parameters, summary, status, requested_by, requested_at_ms, expires_at_ms, \
                      decided_by, decided_at_ms, reason, request_audit_id, decision_audit_id FROM approvals";

/// Who asked: an email address, or an account of the operating system.
///
/// # Errors
/// As the database answers.
pub async fn requester(connection: &mut AnyConnection, approval: &Approval) -> Result<String, ApprovalError> {
    if let Some(user) = approval.requested_by
        && let Some(user) = identity::user(&mut *connection, user).await?
    {
        return Ok(user.email);
    }
    let named = match approval.request_entry {
        Some(entry) => audit::actor_of(connection, entry).await?,
        None => None,
    };
    Ok(named.unwrap_or_else(|| audit::ERASED.to_owned()))
}

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
pub async fn pending_of(db: impl AnyExecutor<'_>, kind: HighRisk) -> Result<Vec<Approval>, ApprovalError> {
    let sql = sqlx::AssertSqlSafe(format!("{SELECT} WHERE status = 'pending' AND action = $1 ORDER BY id"));
    let rows = sqlx::query(sql).bind(kind.name()).fetch_all(db).await?;
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
        requested_by: row.try_get::<Option<i64>, _>("requested_by")?.map(UserId),
        requested_at_ms: row.try_get("requested_at_ms")?,
        expires_at_ms: row.try_get("expires_at_ms")?,
        decided_by: row.try_get::<Option<i64>, _>("decided_by")?.map(UserId),
        decided_at_ms: row.try_get("decided_at_ms")?,
        reason: row.try_get("reason")?,
        request_entry: row.try_get::<Option<i64>, _>("request_audit_id")?.map(AuditId),
        decision_entry: row.try_get::<Option<i64>, _>("decision_audit_id")?.map(AuditId),
    })
}

#[cfg(test)]
mod tests;
