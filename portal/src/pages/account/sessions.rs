//! Where a user is signed in, and who signed in or tried to.

use std::net::IpAddr;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::tz::TimeZone;

use super::two_factor::zone_of;
use crate::action;
use crate::auth::manage::end_sessions;
use crate::auth::{
    Attempt, ClientIp, CsrfForm, Outcome, Session, SessionsToEnd, SignedIn, UserError, device_name, recent_attempts,
    sessions_of,
};
use crate::error::{PageError, page};
use crate::format;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

/// The page.
pub(super) const PATH: &str = "/account/sessions";
/// Attempts on the page.
const SHOWN: i64 = 30;

/// A session, in words.
pub(crate) struct SessionRow {
    pub(crate) name: String,
    pub(crate) device: String,
    pub(crate) user_agent: String,
    pub(crate) ip: String,
    pub(crate) since: String,
    pub(crate) seen: String,
    pub(crate) ends: String,
    pub(crate) is_this: bool,
}

impl SessionRow {
    /// `this`: the name of the session that looks.
    pub(crate) fn of(session: Session, this: &str, now_ms: i64, zone: &TimeZone) -> SessionRow {
        let is_this = session.name == this;
        SessionRow {
            device: device_name(&session.user_agent),
            user_agent: session.user_agent,
            ip: session.ip,
            since: format::minute(session.created_at_ms, zone),
            seen: if is_this {
                "now".to_owned()
            } else {
                format::ago(session.last_seen_at_ms, now_ms)
            },
            ends: format::minute(session.ends_at_ms, zone),
            is_this,
            name: session.name,
        }
    }
}

/// An attempt, in words.
pub(crate) struct AttemptRow {
    pub(crate) at: String,
    pub(crate) outcome: &'static str,
    /// With what, where it went well.
    pub(crate) method: &'static str,
    pub(crate) badge: &'static str,
    pub(crate) ip: String,
    pub(crate) device: String,
    pub(crate) user_agent: String,
    pub(crate) is_known_device: bool,
}

impl AttemptRow {
    pub(crate) fn of(attempt: Attempt, zone: &TimeZone) -> AttemptRow {
        AttemptRow {
            at: format::minute(attempt.at_ms, zone),
            outcome: attempt.outcome.label(),
            method: match attempt.method.as_str() {
                "app" => "with a code of the app",
                "recovery_code" => "with a recovery code",
                _ => "",
            },
            badge: match attempt.outcome {
                Outcome::SignedIn => "ok",
                Outcome::CodeAsked | Outcome::Disabled => "",
                Outcome::WrongPassword => "warn",
                Outcome::WrongCode => "late",
            },
            ip: attempt.ip,
            device: device_name(&attempt.user_agent),
            user_agent: attempt.user_agent,
            is_known_device: attempt.is_known_device,
        }
    }
}

#[derive(Template)]
#[template(path = "account_sessions.html")]
struct SessionsPage {
    shell: Shell,
    zone: String,
    sessions: Vec<SessionRow>,
    attempts: Vec<AttemptRow>,
    done: Option<&'static str>,
}

#[derive(serde::Deserialize)]
pub(crate) struct SessionsQuery {
    #[serde(default)]
    done: String,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    who: SignedIn,
    PageQuery(shown): PageQuery<SessionsQuery>,
) -> Result<Response, PageError> {
    let (user, now_ms) = (who.user.id, state.now_ms());
    let zone = zone_of(&state, &who).await?;
    let sessions = sessions_of(state.db().pool(), user, state.session_limits(), now_ms).await?;
    let attempts = recent_attempts(state.db().pool(), Some(user), now_ms, SHOWN).await?;
    page(&SessionsPage {
        sessions: sessions
            .into_iter()
            .map(|session| SessionRow::of(session, &who.session, now_ms, &zone))
            .collect(),
        attempts: attempts
            .into_iter()
            .map(|attempt| AttemptRow::of(attempt, &zone))
            .collect(),
        zone: zone.iana_name().unwrap_or("UTC").to_owned(),
        done: match shown.done.as_str() {
            "others" => Some("Every other browser was signed out."),
            "one" => Some("That browser was signed out."),
            _ => None,
        },
        shell: Shell::new(&who, "Sessions and sign-ins", super::PATH),
    })
}

#[derive(serde::Deserialize)]
pub(crate) struct EmptyForm {}

async fn end(state: &AppState, who: &SignedIn, ip: IpAddr, ending: SessionsToEnd<'_>) -> Result<(), PageError> {
    let mut act = action::begin(state, who, ip).await?;
    match end_sessions(act.connection(), who.user.id, ending).await {
        // It ended meanwhile.
        Ok((0, _)) | Err(UserError::NoSession(_)) => {}
        Ok((_, note)) => {
            act.commit(note).await?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Ends every session but this one.
pub(crate) async fn end_others(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, EmptyForm {}): CsrfForm<EmptyForm>,
) -> Result<Response, PageError> {
    end(&state, &who, ip, SessionsToEnd::AllBut(&who.session)).await?;
    Ok(Redirect::to("/account/sessions?done=others").into_response())
}

/// Ends one session of the user's.
pub(crate) async fn end_one(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    Path(session): Path<String>,
    CsrfForm(who, EmptyForm {}): CsrfForm<EmptyForm>,
) -> Result<Response, PageError> {
    end(&state, &who, ip, SessionsToEnd::One(&session)).await?;
    Ok(Redirect::to("/account/sessions?done=one").into_response())
}
