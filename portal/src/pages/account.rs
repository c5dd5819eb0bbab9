//! The account page: who is signed in, where their customer is written to, how they sign in.

pub(crate) mod address;
pub(crate) mod sessions;
#[cfg(test)]
mod sessions_tests;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
#[cfg(test)]
mod tokens_tests;
pub(crate) mod two_factor;
#[cfg(test)]
pub(crate) mod two_factor_tests;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect, Response};
use axum_extra::extract::CookieJar;
use schemas::{identity, inventory};

use crate::action;
use crate::auth::manage::{ChangeContext, put_password};
use crate::auth::notice::PasswordChange;
use crate::auth::second_factor::{SecondFactor, second_factor_of};
use crate::auth::{
    Agent, AttemptSource, CsrfForm, MIN_PASSWORD_CHARS, NewHash, PasswordError, SignedIn, StepUp, open_session,
    session_cookie, sessions_of, verify_password,
};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

/// The page, and the navigation entry of all pages here.
const PATH: &str = "/account";

/// Where a form was answered with a page, its address may be opened or loaded again.
pub(crate) async fn to_account() -> Redirect {
    Redirect::to(PATH)
}

/// The same for forms of the sessions' page.
pub(crate) async fn to_sessions() -> Redirect {
    Redirect::to(sessions::PATH)
}

/// The same for forms of the tokens' page.
pub(crate) async fn to_tokens() -> Redirect {
    Redirect::to(tokens::PATH)
}

/// The same for forms of the second factor's page.
pub(crate) async fn to_second_factor() -> Redirect {
    Redirect::to(two_factor::PATH)
}

/// Why no link can be mailed.
const NO_MAIL: &str = "This installation sends no mail. Ask its operator to verify the address.";

/// Where the customer is written to.
struct Address {
    email: String,
    /// Since when it is verified.
    verified: Option<String>,
    /// What was typed instead of it.
    typed: String,
}

/// A form of the page that was refused.
#[derive(Default)]
struct Refused {
    form: &'static str,
    why: String,
    /// What was typed, where that is shown again.
    typed: String,
}

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    /// A mail server is configured.
    sends_mail: bool,
    min_password_chars: usize,
    address: Option<Address>,
    has_second_factor: bool,
    sessions: usize,
    done: Option<&'static str>,
    refused: Refused,
}

impl AccountPage {
    fn problem(&self, form: &str) -> Option<&str> {
        (self.refused.form == form).then_some(self.refused.why.as_str())
    }
}

async fn account_page(
    state: &AppState,
    who: &SignedIn,
    done: Option<&'static str>,
    refused: Refused,
) -> Result<Response, PageError> {
    let address = match who.user.customer {
        Some(customer) => {
            let customer = inventory::customer(state.db().pool(), customer).await?;
            Some(Address {
                verified: customer
                    .email_verified_at_ms
                    .map(|at_ms| format::date(at_ms, &customer.time_zone)),
                email: customer.email,
                typed: refused.typed.clone(),
            })
        }
        None => None,
    };
    let second_factor = second_factor_of(state.db(), who.user.id).await?;
    let sessions = sessions_of(state.db().pool(), who.user.id, state.session_limits(), state.now_ms()).await?;
    let is_refused = !refused.form.is_empty();
    let body = page(&AccountPage {
        shell: Shell::new(who, "Account", PATH),
        sends_mail: state.sends_mail(),
        min_password_chars: MIN_PASSWORD_CHARS,
        address,
        has_second_factor: matches!(second_factor, SecondFactor::On { .. }),
        sessions: sessions.len(),
        done,
        refused,
    })?;
    if is_refused {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response());
    }
    Ok(body)
}

#[derive(serde::Deserialize)]
pub(crate) struct AccountQuery {
    #[serde(default)]
    changed: String,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    who: SignedIn,
    PageQuery(shown): PageQuery<AccountQuery>,
) -> Result<Response, PageError> {
    let done = match shown.changed.as_str() {
        "password" => Some("The password was changed. Every other session was ended."),
        "asked" | "address" if !state.sends_mail() => Some(match shown.changed.as_str() {
            "address" => {
                "The address was changed. This installation sends no mail: ask its operator to verify the address."
            }
            _ => NO_MAIL,
        }),
        "asked" => Some("A mail with a link is on its way. Open the link within 24 hours and press the button there."),
        "address" => {
            Some("The address was changed. A mail with a link is on its way there: open it to verify the address.")
        }
        "two-factor-off" => Some("The second factor is off: the password alone signs you in."),
        _ => None,
    };
    account_page(&state, &who, done, Refused::default()).await
}

/// What shows that this is the password of who is signed in; `None` where it is not. Guesses are counted for the session: those
/// of others hold up nobody who is signed in. What goes by it asks in its transaction whether it still holds.
pub(crate) async fn step_up(state: &AppState, who: &SignedIn, password: String) -> Result<Option<StepUp>, Failure> {
    let guesser = AttemptSource::Known(&who.session);
    if let Err(retry_after_s) = state.sign_in_throttle().take(guesser, &who.user.email, state.now_ms()) {
        state.sign_in_counts().held_back();
        return Err(Failure::TooManyRequests { retry_after_s });
    }
    let place = match state.password_lanes().enter(guesser, &who.user.email).await {
        Ok(place) => place,
        Err(busy) => {
            state.sign_in_throttle().take_back(guesser, &who.user.email);
            return Err(busy.into());
        }
    };
    let stored = identity::password_hash(state.db().pool(), who.user.id).await?;
    state.sign_in_counts().password_check();
    if !verify_password(place, password, stored.clone()).await {
        return Ok(None);
    }
    state.sign_in_throttle().succeeded(guesser, &who.user.email);
    Ok(stored.map(|password_hash| StepUp {
        user: who.user.id,
        session: who.session.clone(),
        password_hash,
    }))
}

#[derive(serde::Deserialize)]
pub(crate) struct NewPassword {
    current: String,
    new: String,
    again: String,
}

pub(crate) async fn change(
    State(state): State<AppState>,
    agent: Agent,
    jar: CookieJar,
    CsrfForm(who, form): CsrfForm<NewPassword>,
) -> Result<Response, PageError> {
    let refused = async |why: String| {
        let refused = Refused {
            form: "password",
            why,
            typed: String::new(),
        };
        account_page(&state, &who, None, refused).await
    };
    let Some(proof) = step_up(&state, &who, form.current).await? else {
        return refused("The current password is not right.".to_owned()).await;
    };
    if form.new != form.again {
        return refused("The two new passwords differ: enter the same one twice.".to_owned()).await;
    }
    let lane = state
        .password_lanes()
        .enter(AttemptSource::Known(&who.session), &who.user.email);
    let place = lane.await.map_err(Failure::from)?;
    let hash = match NewHash::of(&form.new, &who.user.email, &who.user.name).await {
        Ok(hash) => hash,
        Err(error @ PasswordError::Hash(_)) => return Err(Failure::internal("hash a password")(error.into()).into()),
        Err(error) => return refused(format!("Not changed: {error}.")).await,
    };
    drop(place);
    let ip = agent.ip_text();
    let by = ChangeContext {
        actor: who.actor(&ip),
        now_ms: state.now_ms(),
    };
    let mut act = action::begin(&state, &who, agent.ip).await?;
    if !proof.still_holds(act.connection()).await? {
        drop(act);
        return refused("The current password is not right.".to_owned()).await;
    }
    let note = put_password(act.connection(), who.user.id, &hash, PasswordChange::Changed, by).await?;
    // All sessions ended, and this browser goes on with a new one.
    let user = (who.user.id, who.user.role);
    let token = open_session(&state, act.connection(), user, None, &agent).await?;
    act.commit(note).await?;
    tracing::info!(user = %who.user.id, ip = %agent.ip, "password changed");
    let jar = jar.add(session_cookie(&state, token));
    Ok((jar, Redirect::to("/account?changed=password")).into_response())
}
