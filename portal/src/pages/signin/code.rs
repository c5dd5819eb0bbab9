//! The second page of signing in: the code. Only who gave the right password gets here, and there is no session before it.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::CookieJar;

use super::{SignInPage, SignInQuery, finish, local_path, retry_after, too_early};
use crate::auth::attempts::{self, SignInAttempt};
use crate::auth::second_factor::{self, SecondFactorMethod};
use crate::auth::{Agent, AttemptSource, OpenForm, Outcome, PreSession, device, notice, pending};
use crate::error::{PageError, page};
use crate::links;
use crate::query::PageQuery;
use crate::state::AppState;

/// Where it is.
const PATH: &str = "/signin/code";

/// The address of the page, which leads on to `next`.
pub(super) fn address(next: &str) -> String {
    match next {
        "" => PATH.to_owned(),
        next => format!("{PATH}?next={}", links::percent_encoded(next)),
    }
}

#[derive(Template)]
#[template(path = "signin_code.html")]
struct CodePage {
    form_token: String,
    email: String,
    next: String,
    problem: Option<String>,
    /// What was tried was a recovery code.
    with_recovery_code: bool,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    PageQuery(asked): PageQuery<SignInQuery>,
    jar: CookieJar,
) -> Result<Response, PageError> {
    let Some(pending) = pending::find(&state, &jar).await? else {
        return Ok(Redirect::to(&links::sign_in(local_path(&asked.next).unwrap_or("/"))).into_response());
    };
    let (form_token, jar) = PreSession::issue(&state, jar);
    let body = page(&CodePage {
        form_token,
        email: pending.email,
        next: local_path(&asked.next).unwrap_or("").to_owned(),
        problem: None,
        with_recovery_code: false,
    })?;
    Ok((jar, body).into_response())
}

#[derive(serde::Deserialize)]
pub(crate) struct CodeForm {
    #[serde(default)]
    csrf_token: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    recovery_code: String,
    #[serde(default)]
    next: String,
}

pub(crate) async fn check(
    State(state): State<AppState>,
    agent: Agent,
    jar: CookieJar,
    OpenForm(form): OpenForm<CodeForm>,
) -> Result<Response, PageError> {
    PreSession::check(&state, &jar, &form.csrf_token)?;
    let now_ms = state.now_ms();
    let next = local_path(&form.next).unwrap_or("").to_owned();
    let Some(pending) = pending::find(&state, &jar).await? else {
        return start_again(&state, jar, next).await;
    };
    let with_recovery_code = !form.recovery_code.is_empty();
    let again = |problem: String, email: &str, next: &str| {
        page(&CodePage {
            form_token: form.csrf_token.clone(),
            email: email.to_owned(),
            next: next.to_owned(),
            problem: Some(problem),
            with_recovery_code,
        })
    };
    let device = device::known(&state, &jar, &pending.email).await?;
    let guesser = device
        .as_deref()
        .map_or(AttemptSource::Stranger(agent.ip), AttemptSource::Known);
    if let Err(retry_after_s) = state.code_throttle().take(guesser, &pending.email, now_ms) {
        state.sign_in_counts().held_back();
        tracing::warn!(ip = %agent.ip, user = %pending.user, "codes held back after failures");
        let body = again(too_early(retry_after_s), &pending.email, &next)?;
        return Ok((StatusCode::TOO_MANY_REQUESTS, retry_after(retry_after_s), body).into_response());
    }
    if !pending::take_attempt(&state, &jar).await? {
        return start_again(&state, jar, next).await;
    }
    let typed = if with_recovery_code {
        &form.recovery_code
    } else {
        &form.code
    };
    let mut made = SignInAttempt {
        user: Some(pending.user),
        email: &pending.email,
        outcome: Outcome::WrongCode,
        method: "",
        is_known_device: device.is_some(),
    };
    let mut transaction = state.db().begin_write().await?;
    // What was found before may have ended: by a new password, another role, or a second factor that was turned off.
    let Some(pending) = pending::hold(&state, &mut transaction, &jar).await? else {
        transaction.rollback().await?;
        return start_again(&state, jar, next).await;
    };
    let vault = state.db().vault();
    let accepted = second_factor::accept(&mut transaction, vault, pending.user, typed, now_ms).await?;
    let Some(method) = accepted else {
        attempts::note(&mut transaction, made, &agent, now_ms).await?;
        transaction.commit().await?;
        state.sign_in_counts().attempt(made.outcome);
        tracing::info!(ip = %agent.ip, user = %pending.user, "second factor refused");
        if pending::find(&state, &jar).await?.is_none() {
            return start_again(&state, jar, next).await;
        }
        let problem = if with_recovery_code {
            "That is none of your recovery codes, or it was used already."
        } else {
            "That code is not right, or was used already. Wait for the next one."
        };
        let body = again(problem.to_owned(), &pending.email, &next)?;
        return Ok((StatusCode::UNAUTHORIZED, body).into_response());
    };
    made.outcome = Outcome::SignedIn;
    // Who had to use a recovery code is shown how many are left.
    let next = match method {
        SecondFactorMethod::App => {
            made.method = "app";
            next
        }
        SecondFactorMethod::RecoveryCode => {
            made.method = "recovery_code";
            tracing::warn!(ip = %agent.ip, user = %pending.user, "a recovery code was used");
            let (user, ip) = (pending.user, agent.ip_text());
            notice::second_factor_changed(&mut transaction, user, "recovery_code_used", &ip, now_ms).await?;
            "/account/two-factor".to_owned()
        }
    };
    let (jar, is_closed) = pending::close(&state, &mut transaction, jar).await?;
    if !is_closed {
        transaction.rollback().await?;
        return start_again(&state, jar, next).await;
    }
    let who = (pending.user, pending.role);
    let answer = finish(&state, &mut transaction, jar, &agent, who, made, &next).await?;
    transaction.commit().await?;
    state.sign_in_counts().attempt(made.outcome);
    state.code_throttle().succeeded(guesser, &pending.email);
    Ok(answer)
}

/// There is no time or try left: the password is asked for again.
async fn start_again(state: &AppState, jar: CookieJar, next: String) -> Result<Response, PageError> {
    let mut transaction = state.db().begin_write().await?;
    let (jar, _) = pending::close(state, &mut transaction, jar).await?;
    transaction.commit().await?;
    let (form_token, jar) = PreSession::issue(state, jar);
    let body = page(&SignInPage {
        is_new: false,
        form_token,
        email: String::new(),
        next,
        done: None,
        problem: Some("The code was not given in time, or too many were wrong. Sign in again.".to_owned()),
        is_held_back: false,
        sends_mail: state.sends_mail(),
    })?;
    Ok((StatusCode::UNAUTHORIZED, jar, body).into_response())
}
