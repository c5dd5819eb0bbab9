//! The account page: who is signed in, and a new password.

use askama::Template;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum_extra::extract::CookieJar;

use crate::auth::{
    ClientIp, CsrfForm, MIN_PASSWORD_CHARS, SignedIn, UserError, change_password, open_session, password_hash_of,
    session_cookie, verify_password,
};
use crate::error::{Failure, PageError, page};
use crate::shell::Shell;
use crate::state::AppState;

pub(crate) fn routes() -> Router<AppState> {
    Router::new().route("/account", get(show)).route(
        "/account/password",
        get(|| async { Redirect::to("/account") }).post(change),
    )
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    min_password_chars: usize,
    problem: Option<String>,
    changed: bool,
}

fn account_page(who: &SignedIn, problem: Option<String>, changed: bool) -> Result<Response, PageError> {
    page(&AccountPage {
        shell: Shell::new(who, "Account", "/account"),
        min_password_chars: MIN_PASSWORD_CHARS,
        problem,
        changed,
    })
}

#[derive(serde::Deserialize)]
struct Shown {
    #[serde(default)]
    changed: String,
}

async fn show(who: SignedIn, axum::extract::Query(shown): axum::extract::Query<Shown>) -> Result<Response, PageError> {
    account_page(&who, None, shown.changed == "password")
}

#[derive(serde::Deserialize)]
struct NewPassword {
    current: String,
    new: String,
    again: String,
}

async fn change(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    jar: CookieJar,
    headers: HeaderMap,
    CsrfForm(who, form): CsrfForm<NewPassword>,
) -> Result<Response, PageError> {
    let refused = |problem: String| {
        let body = account_page(&who, Some(problem), false)?;
        Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response())
    };
    if let Err(retry_after_s) = state.sign_in_throttle().take(ip, &who.user.email, state.now_ms()) {
        return Err(Failure::TooManyRequests { retry_after_s }.into());
    }
    let stored = password_hash_of(state.db(), who.user.id).await?;
    if !verify_password(state.password_checks(), form.current, stored).await {
        return refused("The current password is not right.".to_owned());
    }
    state.sign_in_throttle().succeeded(ip, &who.user.email);
    if form.new != form.again {
        return refused("The new password was not repeated alike.".to_owned());
    }
    match change_password(state.db(), &who.user, &form.new).await {
        Ok(()) => {}
        Err(UserError::Password(error)) => return refused(format!("Not changed: {error}.")),
        Err(error) => return Err(Failure::internal("change a password")(error.into()).into()),
    }
    tracing::info!(user = %who.user.id, %ip, "password changed");
    let user_agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let token = open_session(&state, who.user.id, None, user_agent, &ip.to_string()).await?;
    let jar = jar.add(session_cookie(&state, token));
    Ok((jar, Redirect::to("/account?changed=password")).into_response())
}
