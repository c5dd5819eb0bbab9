//! The second page of signing in: the code. Only who gave the right password gets here, and there is no session before it.

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::CookieJar;

use super::{Asked, SignInPage, finish, local_path};
use crate::auth::second_factor::{self, Means};
use crate::auth::{ClientIp, PreSession, pending};
use crate::error::{Failure, PageError, page};
use crate::state::AppState;

/// Where it is.
const PATH: &str = "/signin/code";

/// The address of the page, which leads on to `next`.
pub(super) fn address(next: &str) -> String {
    match next {
        "" => PATH.to_owned(),
        next => format!("{PATH}?next={}", super::percent_encoded(next)),
    }
}

#[derive(Template)]
#[template(path = "signin_code.html")]
struct CodePage {
    form_token: String,
    email: String,
    next: String,
    problem: Option<&'static str>,
    /// What was tried was a recovery code.
    with_recovery_code: bool,
}

pub(super) async fn show(
    State(state): State<AppState>,
    Query(asked): Query<Asked>,
    jar: CookieJar,
) -> Result<Response, PageError> {
    let Some(pending) = pending::find(&state, &jar).await? else {
        return Ok(Redirect::to(&super::address(local_path(&asked.next).unwrap_or("/"))).into_response());
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
pub(super) struct Typed {
    #[serde(default)]
    csrf_token: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    recovery_code: String,
    #[serde(default)]
    next: String,
}

pub(super) async fn check(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    jar: CookieJar,
    headers: HeaderMap,
    Form(form): Form<Typed>,
) -> Result<Response, PageError> {
    PreSession::check(&state, &jar, &form.csrf_token)?;
    let next = local_path(&form.next).unwrap_or("").to_owned();
    let Some(pending) = pending::find(&state, &jar).await? else {
        return start_again(&state, jar, next).await;
    };
    if let Err(retry_after_s) = state.code_throttle().take(ip, &pending.email, state.now_ms()) {
        tracing::warn!(%ip, user = %pending.user, "codes held back after too many failures");
        return Err(Failure::TooManyRequests { retry_after_s }.into());
    }
    if !pending::take_attempt(&state, &jar).await? {
        return start_again(&state, jar, next).await;
    }
    let with_recovery_code = !form.recovery_code.is_empty();
    let typed = if with_recovery_code {
        &form.recovery_code
    } else {
        &form.code
    };
    let mut transaction = state.db().begin_write().await?;
    let accepted = second_factor::accept(&mut transaction, pending.user, typed, state.now_ms()).await?;
    transaction.commit().await?;
    let Some(means) = accepted else {
        tracing::info!(%ip, user = %pending.user, "second factor refused");
        if pending::find(&state, &jar).await?.is_none() {
            return start_again(&state, jar, next).await;
        }
        let body = page(&CodePage {
            form_token: form.csrf_token,
            email: pending.email,
            next,
            problem: Some(if with_recovery_code {
                "That is none of your recovery codes, or it was used already."
            } else {
                "That code is not right, or was used already. Wait for the next one."
            }),
            with_recovery_code,
        })?;
        return Ok((StatusCode::UNAUTHORIZED, body).into_response());
    };
    state.code_throttle().succeeded(ip, &pending.email);
    let jar = pending::close(&state, jar).await?;
    // Who had to use a recovery code is shown how many are left.
    let next = match means {
        Means::App => next,
        Means::RecoveryCode => {
            tracing::warn!(%ip, user = %pending.user, "a recovery code was used");
            "/account/two-factor".to_owned()
        }
    };
    finish(&state, jar, &headers, ip, pending.user, pending.role, &next).await
}

/// There is no time or try left: the password is asked for again.
async fn start_again(state: &AppState, jar: CookieJar, next: String) -> Result<Response, PageError> {
    let jar = pending::close(state, jar).await?;
    let (form_token, jar) = PreSession::issue(state, jar);
    let body = page(&SignInPage {
        form_token,
        email: String::new(),
        next,
        problem: Some("The code was not given in time, or too many were wrong. Sign in again.".to_owned()),
    })?;
    Ok((StatusCode::UNAUTHORIZED, jar, body).into_response())
}
