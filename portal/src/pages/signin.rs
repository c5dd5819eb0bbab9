//! Signing in and out, and a new password for who forgot theirs.

pub(crate) mod code;
#[cfg(test)]
mod flight_tests;
pub(crate) mod password;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use schemas::identity;
use schemas::ids::UserId;
use sqlx::AnyConnection;

use crate::auth::attempts::{self, SignInAttempt};
use crate::auth::{
    Agent, AttemptSource, CsrfForm, OpenForm, Outcome, PreSession, Role, SignedIn, clear_cookies, close_session,
    device, open_session, pending, session_cookie, token_of, verify_password,
};
use crate::error::{Failure, PageError, page};
use crate::query::PageQuery;
use crate::shell;
use crate::state::AppState;

/// Longest address to go back to after sign-in.
const MAX_NEXT_BYTES: usize = 512;

/// Only a path of our own: never another site, however written.
fn local_path(next: &str) -> Option<&str> {
    let local = next.starts_with('/')
        && !next.starts_with("//")
        && !next.contains('\\')
        && next.len() <= MAX_NEXT_BYTES
        && !next.chars().any(char::is_control)
        && !next.starts_with("/signin")
        && !next.starts_with("/reset-password")
        && !next.starts_with("/api/");
    local.then_some(next)
}

#[derive(Template)]
#[template(path = "signin.html")]
struct SignInPage {
    /// Nobody can sign in yet.
    is_new: bool,
    form_token: String,
    email: String,
    next: String,
    done: Option<&'static str>,
    problem: Option<String>,
    /// Who knows the password can do something else than to wait.
    is_held_back: bool,
    sends_mail: bool,
}

#[derive(serde::Deserialize)]
pub(crate) struct SignInQuery {
    #[serde(default)]
    next: String,
    #[serde(default)]
    done: String,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    who: Result<SignedIn, crate::auth::Rejection>,
    PageQuery(asked): PageQuery<SignInQuery>,
    jar: CookieJar,
) -> Result<Response, PageError> {
    if let Ok(who) = who {
        let target = local_path(&asked.next).unwrap_or(shell::home(who.user.role));
        return Ok(Redirect::to(target).into_response());
    }
    let (form_token, jar) = PreSession::issue(&state, jar);
    let body = page(&SignInPage {
        is_new: !identity::has_users(state.db().pool()).await?,
        form_token,
        email: String::new(),
        next: local_path(&asked.next).unwrap_or("").to_owned(),
        done: (asked.done == "password").then_some("The new password is set. Sign in with it."),
        problem: None,
        is_held_back: false,
        sends_mail: state.sends_mail(),
    })?;
    Ok((jar, body).into_response())
}

#[derive(serde::Deserialize)]
pub(crate) struct Credentials {
    #[serde(default)]
    csrf_token: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
}

pub(crate) async fn sign_in(
    State(state): State<AppState>,
    agent: Agent,
    jar: CookieJar,
    OpenForm(form): OpenForm<Credentials>,
) -> Result<Response, PageError> {
    PreSession::check(&state, &jar, &form.csrf_token)?;
    let now_ms = state.now_ms();
    let device = device::known(&state, &jar, &form.email).await?;
    let guesser = device
        .as_deref()
        .map_or(AttemptSource::Stranger(agent.ip), AttemptSource::Known);
    let again = |problem: String, is_held_back: bool| {
        page(&SignInPage {
            is_new: false,
            form_token: form.csrf_token.clone(),
            email: form.email.clone(),
            next: local_path(&form.next).unwrap_or("").to_owned(),
            done: None,
            problem: Some(problem),
            is_held_back,
            sends_mail: state.sends_mail(),
        })
    };
    if let Err(retry_after_s) = state.sign_in_throttle().take(guesser, &form.email, now_ms) {
        state.sign_in_counts().held_back();
        tracing::warn!(ip = %agent.ip, "sign-in held back after failures");
        let body = again(too_early(retry_after_s), true)?;
        return Ok((StatusCode::TOO_MANY_REQUESTS, retry_after(retry_after_s), body).into_response());
    }
    let place = match state.password_lanes().enter(guesser, &form.email).await {
        Ok(place) => place,
        Err(busy) => {
            state.sign_in_throttle().take_back(guesser, &form.email);
            return Err(Failure::from(busy).into());
        }
    };
    let found = identity::find_candidate(state.db().pool(), &form.email).await?;
    let enabled = found.as_ref().filter(|candidate| !candidate.is_disabled);
    let stored = enabled.map(|candidate| candidate.password_hash.clone());
    state.sign_in_counts().password_check();
    let is_right = verify_password(place, form.password.clone(), stored).await;
    let mut made = SignInAttempt {
        user: found.as_ref().map(|candidate| candidate.user),
        email: &form.email,
        outcome: Outcome::WrongPassword,
        method: "",
        is_known_device: device.is_some(),
    };
    let mut transaction = state.db().begin_write().await?;
    let mut proved = None;
    if let Some(candidate) = &found {
        if candidate.is_disabled {
            made.outcome = Outcome::Disabled;
        } else if is_right && candidate.still_holds(&mut transaction).await? {
            proved = Some(candidate);
        }
    }
    let Some(candidate) = proved else {
        // Whoever it was, and whether there is such a user: the same is done and said.
        attempts::note(&mut transaction, made, &agent, now_ms).await?;
        transaction.commit().await?;
        state.sign_in_counts().attempt(made.outcome);
        tracing::info!(ip = %agent.ip, "sign-in failed");
        let body = again("That email and password do not belong together.".to_owned(), false)?;
        return Ok((StatusCode::UNAUTHORIZED, body).into_response());
    };
    state.sign_in_throttle().succeeded(guesser, &form.email);
    let answer = if candidate.has_second_factor() {
        made.outcome = Outcome::CodeAsked;
        attempts::note(&mut transaction, made, &agent, now_ms).await?;
        let jar = pending::open(&state, &mut transaction, jar, candidate.user).await?;
        let next = local_path(&form.next).unwrap_or("");
        (jar, Redirect::to(&code::address(next))).into_response()
    } else {
        made.outcome = Outcome::SignedIn;
        made.method = "password";
        let who = (candidate.user, candidate.role);
        finish(&state, &mut transaction, jar, &agent, who, made, &form.next).await?
    };
    transaction.commit().await?;
    state.sign_in_counts().attempt(made.outcome);
    Ok(answer)
}

fn too_early(retry_after_s: u64) -> String {
    let wait = match retry_after_s {
        0..=90 => format!("{retry_after_s} s"),
        _ => format!("{} min", retry_after_s.div_ceil(60)),
    };
    format!("There were too many wrong tries. Wait {wait}, then try again.")
}

fn retry_after(retry_after_s: u64) -> [(header::HeaderName, HeaderValue); 1] {
    [(header::RETRY_AFTER, HeaderValue::from(retry_after_s))]
}

/// Opens the session of who has proved who they are, in a transaction of the caller's, and leads on.
async fn finish(
    state: &AppState,
    connection: &mut AnyConnection,
    jar: CookieJar,
    agent: &Agent,
    (user, role): (UserId, Role),
    made: SignInAttempt<'_>,
    next: &str,
) -> Result<Response, PageError> {
    let previous = token_of(state, &jar);
    let token = open_session(state, &mut *connection, (user, role), previous.as_deref(), agent).await?;
    attempts::note(&mut *connection, made, agent, state.now_ms()).await?;
    let known = device::remember(state, connection, &jar, user).await?;
    tracing::info!(ip = %agent.ip, %user, %role, "signed in");
    let target = local_path(next).unwrap_or(shell::home(role)).to_owned();
    let jar = jar.add(session_cookie(state, token));
    Ok((jar, known, Redirect::to(&target)).into_response())
}

#[derive(serde::Deserialize)]
pub(crate) struct EmptyForm {}

pub(crate) async fn sign_out(
    State(state): State<AppState>,
    jar: CookieJar,
    CsrfForm(who, EmptyForm {}): CsrfForm<EmptyForm>,
) -> Result<Response, PageError> {
    if let Some(token) = token_of(&state, &jar) {
        close_session(&state, &token).await?;
    }
    tracing::info!(user = %who.user.id, "signed out");
    Ok((clear_cookies(&state, jar), Redirect::to("/signin")).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_leads_back_only_to_our_own_pages() {
        assert_eq!(local_path("/usage/svc_1?range=day"), Some("/usage/svc_1?range=day"));
        for bad in [
            "",
            "usage",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\r\nb",
            "/signin",
        ] {
            assert_eq!(local_path(bad), None, "{bad:?}");
        }
    }
}
