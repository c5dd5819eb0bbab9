//! A new password for who forgot theirs: a page that asks for the address, a link by mail, a page that takes the password.
//!
//! * Whether somebody signs in with an address is not told: the answer is given before it is looked at.
//! * The link begins with the address that the portal is configured to have, whatever a request says.
//! * The new password signs nobody in: that is done as always, with the second factor where there is one.

use std::net::IpAddr;

use activity::act::{Act, By as Who, Note};
use activity::audit::Actor;
use activity::password_reset::{self, ResetMailOutcome, ResetRequester};
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::CookieJar;
use schemas::identity;
use schemas::ids::UserId;

use super::{retry_after, too_early};
use crate::auth::manage::{ChangeContext, put_password};
use crate::auth::notice::PasswordChange;
use crate::auth::{Agent, AttemptSource, MIN_PASSWORD_CHARS, NewHash, OpenForm, PasswordError, PreSession, device};
use crate::error::{Failure, PageError, page};
use crate::path::Path;
use crate::query::PageQuery;
use crate::state::AppState;

#[derive(Template)]
#[template(path = "forgot_password.html")]
struct ForgotPage {
    form_token: String,
    /// It was asked for.
    is_asked: bool,
    sends_mail: bool,
    problem: Option<String>,
}

#[derive(serde::Deserialize)]
pub(crate) struct ForgotPasswordQuery {
    #[serde(default)]
    asked: String,
}

/// Asks for the address.
pub(crate) async fn forgot(
    State(state): State<AppState>,
    PageQuery(shown): PageQuery<ForgotPasswordQuery>,
    jar: CookieJar,
) -> Result<Response, PageError> {
    let (form_token, jar) = PreSession::issue(&state, jar);
    let body = page(&ForgotPage {
        form_token,
        is_asked: !shown.asked.is_empty(),
        sends_mail: state.sends_mail(),
        problem: None,
    })?;
    Ok((jar, body).into_response())
}

#[derive(serde::Deserialize)]
pub(crate) struct Address {
    #[serde(default)]
    csrf_token: String,
    #[serde(default)]
    email: String,
}

/// Mails a link, if there is whom to mail it to.
pub(crate) async fn ask(
    State(state): State<AppState>,
    agent: Agent,
    jar: CookieJar,
    OpenForm(form): OpenForm<Address>,
) -> Result<Response, PageError> {
    PreSession::check(&state, &jar, &form.csrf_token)?;
    let taken = state
        .link_throttle()
        .take(AttemptSource::Stranger(agent.ip), "", state.now_ms());
    if let Err(retry_after_s) = taken {
        tracing::warn!(ip = %agent.ip, "links by mail held back");
        let body = page(&ForgotPage {
            form_token: form.csrf_token,
            is_asked: false,
            sends_mail: state.sends_mail(),
            problem: Some(too_early(retry_after_s)),
        })?;
        return Ok((StatusCode::TOO_MANY_REQUESTS, retry_after(retry_after_s), body).into_response());
    }
    state.sign_in_counts().link_asked();
    let asked_of = state.clone();
    // The answer waits for nothing that is done about the address: it says as little as its text does. What is lost when the
    // process ends now is asked for again.
    state.links().add(async move {
        if let Err(failure) = request(&asked_of, &form.email, agent.ip).await {
            let error: &(dyn std::error::Error + 'static) = &failure;
            tracing::error!(error, "a password reset link could not be mailed");
        }
    });
    Ok(Redirect::to("/forgot-password?asked=yes").into_response())
}

/// Asks for a mail, and notes that in the audit log.
async fn request(state: &AppState, email: &str, ip: IpAddr) -> Result<(), Failure> {
    let Some(candidate) = identity::find_candidate(state.db().pool(), email).await? else {
        tracing::info!(%ip, "password reset requested for an address that is no user's");
        return Ok(());
    };
    let (now_ms, ip) = (state.now_ms(), ip.to_canonical().to_string());
    let by = Actor {
        name: "somebody who is not signed in",
        user: None,
        ip: &ip,
    };
    let mut act = Act::begin(state.db(), Who::from(by), now_ms).await?;
    match password_reset::request(act.connection(), candidate.user, ResetRequester::Anybody, &ip, now_ms).await? {
        ResetMailOutcome::Mailed => {}
        refused @ (ResetMailOutcome::Nobody | ResetMailOutcome::TooMany { .. }) => {
            tracing::info!(%ip, user = %candidate.user, ?refused, "no link is mailed");
            return Ok(());
        }
    }
    act.commit(Note::new("user.password_reset_request", candidate.user))
        .await?;
    Ok(())
}

/// Whose password is set.
struct PasswordUser {
    user: UserId,
    email: String,
    name: String,
}

#[derive(Template)]
#[template(path = "reset_password.html")]
struct ResetPage {
    form_token: String,
    /// `None`: the link cannot be used.
    whose: Option<PasswordUser>,
    min_password_chars: usize,
    problem: Option<String>,
}

/// Whose password a link sets. Links that are no good are counted: one of 256 random bits is not found, and nobody is to try.
async fn password_user(state: &AppState, agent: &Agent, token: &str) -> Result<Option<PasswordUser>, Failure> {
    let (guesser, now_ms) = (AttemptSource::Stranger(agent.ip), state.now_ms());
    if let Err(retry_after_s) = state.link_throttle().take(guesser, "", now_ms) {
        return Err(Failure::TooManyRequests { retry_after_s });
    }
    let Some(user) = password_reset::pending(state.db().pool(), token, now_ms).await? else {
        return Ok(None);
    };
    state.link_throttle().succeeded(guesser, "");
    let found = identity::user(state.db().pool(), user).await?;
    Ok(found.map(|found| PasswordUser {
        user,
        email: found.email,
        name: found.name,
    }))
}

fn void() -> Result<Response, PageError> {
    let body = page(&ResetPage {
        form_token: String::new(),
        whose: None,
        min_password_chars: MIN_PASSWORD_CHARS,
        problem: None,
    })?;
    Ok((StatusCode::NOT_FOUND, body).into_response())
}

/// What the link in the mail opens. Nothing is changed by it.
pub(crate) async fn link(
    State(state): State<AppState>,
    agent: Agent,
    Path(token): Path<String>,
    jar: CookieJar,
) -> Result<Response, PageError> {
    let Some(whose) = password_user(&state, &agent, &token).await? else {
        return void();
    };
    let (form_token, jar) = PreSession::issue(&state, jar);
    let body = page(&ResetPage {
        form_token,
        whose: Some(whose),
        min_password_chars: MIN_PASSWORD_CHARS,
        problem: None,
    })?;
    Ok((jar, body).into_response())
}

#[derive(serde::Deserialize)]
pub(crate) struct NewPassword {
    #[serde(default)]
    csrf_token: String,
    #[serde(default)]
    new: String,
    #[serde(default)]
    again: String,
}

/// Its form: sets the password, ends every session, and leads to the page that signs in.
pub(crate) async fn set(
    State(state): State<AppState>,
    agent: Agent,
    Path(token): Path<String>,
    jar: CookieJar,
    OpenForm(form): OpenForm<NewPassword>,
) -> Result<Response, PageError> {
    PreSession::check(&state, &jar, &form.csrf_token)?;
    let Some(whose) = password_user(&state, &agent, &token).await? else {
        return void();
    };
    let place = state
        .password_lanes()
        .enter(AttemptSource::Stranger(agent.ip), &whose.email)
        .await
        .map_err(Failure::from)?;
    let hash = if form.new == form.again {
        match NewHash::of(&form.new, &whose.email, &whose.name).await {
            Ok(hash) => Ok(hash),
            Err(error @ PasswordError::Hash(_)) => {
                return Err(Failure::internal("hash a password")(error.into()).into());
            }
            Err(error) => Err(format!("Not set: {error}.")),
        }
    } else {
        Err("The two new passwords differ: enter the same one twice.".to_owned())
    };
    drop(place);
    let hash = match hash {
        Ok(hash) => hash,
        Err(problem) => {
            let body = page(&ResetPage {
                form_token: form.csrf_token,
                whose: Some(whose),
                min_password_chars: MIN_PASSWORD_CHARS,
                problem: Some(problem),
            })?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response());
        }
    };
    let ip = agent.ip_text();
    let by = ChangeContext {
        actor: Actor {
            name: &whose.email,
            user: Some(whose.user),
            ip: &ip,
        },
        now_ms: state.now_ms(),
    };
    let mut act = Act::begin(state.db(), Who::from(by.actor), by.now_ms).await?;
    let taken = password_reset::take(act.connection(), &token, by.now_ms).await?;
    if taken != Some(whose.user) {
        return void();
    }
    let note = put_password(act.connection(), whose.user, &hash, PasswordChange::Reset, by).await?;
    // Who reads the user's mail is no stranger: others' guesses do not hold them up here.
    let known = device::remember(&state, act.connection(), &jar, whose.user).await?;
    act.commit(note).await?;
    state.sign_in_counts().password_reset();
    tracing::info!(ip = %agent.ip, user = %whose.user, "password set by a link");
    Ok((known, Redirect::to("/signin?done=password")).into_response())
}
