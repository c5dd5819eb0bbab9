//! Attack traffic: ops flags windows of a service, which are then told on invoices and not charged. Network engineers see them.

use activity::act::Note;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use billing::approval::{Gate, wanted};
use billing::{BillingError, exclusion};
use jiff::tz::TimeZone;
use schemas::ids::{ExclusionId, ServiceId};
use schemas::window::HOUR_MS;
use serde_json::json;

use super::service::{href, render};
use crate::action::{Action, ActionFailure, Draft, Fields, said};
use crate::auth::{ClientIp, CsrfForm, Operations, Ops, Role};
use crate::customer;
use crate::error::{Failure, PageError};
use crate::format;
use crate::path::Path;
use crate::query::PageQuery;
use crate::range::{Range, RangeQuery};
use crate::state::AppState;

/// The form that flags.
const FLAG: &str = "flag";
/// A longer time that was chosen is no attack: whoever flags all of it by accident gives a day's usage away.
const MAX_SUGGESTED_MS: i64 = 2 * HOUR_MS;
/// Flagged times shown, the latest first.
const MAX_ROWS: usize = 50;

/// A time that was flagged.
pub(super) struct AttackRow {
    pub(super) id: ExclusionId,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) reason: String,
    pub(super) by: String,
    /// When that was taken back.
    pub(super) revoked: Option<String>,
}

/// What the page of a service shows of its attacks.
pub(super) struct Attacks {
    pub(super) rows: Vec<AttackRow>,
    pub(super) total: usize,
    /// Whether who looks may flag.
    pub(super) may_flag: bool,
    pub(super) draft: Draft,
    pub(super) notice: Option<&'static str>,
    /// What the form suggests: the time that the page shows, where it was chosen and may be that of one attack.
    pub(super) from: String,
    pub(super) to: String,
}

impl Attacks {
    pub(super) async fn of(
        state: &AppState,
        service: ServiceId,
        range: &Range,
        role: Role,
        shown: AttacksQuery,
    ) -> Result<Attacks, PageError> {
        let all = exclusion::exclusions_of(state.db().pool(), service).await?;
        let time = |at_ms: i64| format::minute(at_ms, &TimeZone::UTC);
        let rows = all.iter().take(MAX_ROWS).map(|exclusion| AttackRow {
            id: exclusion.id,
            from: time(exclusion.from_ms),
            to: time(exclusion.to_ms),
            reason: exclusion.reason.clone(),
            by: exclusion.created_by.clone(),
            revoked: exclusion.revoked_at_ms.map(time),
        });
        // As a field of type `datetime-local` has it.
        let is_chosen = range.preset.is_empty() && range.to_ms - range.from_ms <= MAX_SUGGESTED_MS;
        let field = |at_ms: i64| match is_chosen {
            true => format::minute_field(at_ms, &TimeZone::UTC),
            false => String::new(),
        };
        Ok(Attacks {
            rows: rows.collect(),
            total: all.len(),
            may_flag: role != Role::Network,
            draft: shown.draft,
            notice: match shown.done.as_str() {
                "flag" => Some("Windows flagged: shown on the invoice but not charged."),
                "revoke" => Some("Flag removed: the windows are charged again."),
                "asked" => Some("Requested. A second admin decides."),
                _ => None,
            },
            from: field(range.from_ms),
            to: field(range.to_ms),
        })
    }
}

/// What the page is shown after.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct AttacksQuery {
    #[serde(default)]
    done: String,
    #[serde(skip)]
    draft: Draft,
}

pub(crate) async fn flag(
    State(state): State<AppState>,
    Operations(who): Operations,
    Path(service): Path<String>,
    PageQuery(asked): PageQuery<RangeQuery>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let ops = Ops(who);
    let (_, own) = customer::service_for_staff(&state, &ops, &service).await?;
    let id = own.service.id;
    let done: Result<&'static str, ActionFailure> = async {
        let (from_ms, to_ms) = (fields.utc_ms("from")?, fields.utc_ms("to")?);
        match exclusion::check_time((from_ms, to_ms)) {
            Err(BillingError::EndsBeforeStart { .. }) => return Err(said("The end must be after the start.")),
            Err(BillingError::NoWindow) => {
                return Err(said(
                    "No 5-minute window starts in that time: say from 04:00 until 04:05, or longer.",
                ));
            }
            checked => checked?,
        }
        let Some(mut action) = Action::begin(&state, &ops.0, ip, &fields).await? else {
            return Ok("flag");
        };
        let (actor, now_ms) = (action.actor.clone(), action.now_ms);
        let reason = fields.text("reason");
        let wanted = wanted::usage_exclusion(action.connection(), id, (from_ms, to_ms), reason, now_ms).await?;
        if let Gate::Waits(asked) = action.gate(&wanted).await? {
            action.commit_entered(asked.entered).await?;
            return Ok("asked");
        }
        let made = exclusion::exclude(action.connection(), id, (from_ms, to_ms), reason, &actor, now_ms).await?;
        let change = json!({"after": {"service": id, "from": format::rfc3339(from_ms), "to": format::rfc3339(to_ms),
            "reason": made.reason}});
        action
            .commit(Note::new("usage.exclude", made.id).change(change))
            .await?;
        Ok("flag")
    }
    .await;
    match done {
        Ok(what) => Ok(after(id, what)),
        Err(refused) => {
            let shown = AttacksQuery {
                done: String::new(),
                draft: Draft::refused(FLAG, refused, fields)?,
            };
            render(&state, &ops, &service, &asked, shown).await
        }
    }
}

pub(crate) async fn revoke(
    State(state): State<AppState>,
    Operations(who): Operations,
    Path((service, exclusion)): Path<(String, String)>,
    PageQuery(asked): PageQuery<RangeQuery>,
    ClientIp(ip): ClientIp,
    CsrfForm(_, fields): CsrfForm<Fields>,
) -> Result<Response, PageError> {
    let ops = Ops(who);
    let (_, own) = customer::service_for_staff(&state, &ops, &service).await?;
    let id: ExclusionId = exclusion.parse().map_err(|_| Failure::NotFound)?;
    let all = exclusion::exclusions_of(state.db().pool(), own.service.id).await?;
    let found = all.iter().find(|known| known.id == id).ok_or(Failure::NotFound)?;
    let done: Result<(), ActionFailure> = async {
        let Some(mut action) = Action::begin(&state, &ops.0, ip, &fields).await? else {
            return Ok(());
        };
        let now_ms = action.now_ms;
        exclusion::revoke(action.connection(), id, now_ms).await?;
        let change = json!({"before": {"service": own.service.id, "from": format::rfc3339(found.from_ms),
            "to": format::rfc3339(found.to_ms), "reason": found.reason}});
        action.commit(Note::new("usage.include", id).change(change)).await
    }
    .await;
    match done {
        Ok(()) => Ok(after(own.service.id, "revoke")),
        Err(refused) => {
            let shown = AttacksQuery {
                done: String::new(),
                draft: Draft::refused(id.to_string(), refused, fields)?,
            };
            render(&state, &ops, &service, &asked, shown).await
        }
    }
}

fn after(service: ServiceId, what: &str) -> Response {
    Redirect::to(&format!("{}?done={what}#attacks", href(service))).into_response()
}

#[cfg(test)]
mod tests;
