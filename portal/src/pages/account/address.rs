//! Where a customer is written to: asking for a link, changing the address, and the page that the link opens.
//!
//! The link's page needs no session, for mail is often read elsewhere: who holds the link has read the mail. Opening it
//! changes nothing; its button does.

use activity::act::{Act, By, Note};
use activity::audit::Actor;
use activity::verification::{self, LinkPurpose, VerificationError, VerificationMailOutcome};
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::CookieJar;
use jiff::tz::TimeZone;
use schemas::inventory::{self, InventoryError};

use super::{Refused, account_page, step_up};
use crate::action;
use crate::auth::{ClientIp, CsrfForm, Customer, OpenForm, PreSession};
use crate::error::{PageError, page};
use crate::format;
use crate::once;
use crate::path::Path;
use crate::state::AppState;

fn too_many(until_ms: i64, zone: &TimeZone) -> String {
    format!(
        "Enough mails were sent for now: look for one among unwanted mail too. The next can be sent after {}.",
        format::minute(until_ms, zone)
    )
}

#[derive(serde::Deserialize)]
pub(crate) struct LinkRequestForm {
    #[serde(default)]
    form_token: String,
}

/// In the audit log: a mail with a link to the address was asked for.
const LINK_REQUESTED: &str = "customer.email_link_request";

/// Sends a mail with a link to the address.
pub(crate) async fn ask(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    customer: Customer,
    CsrfForm(who, form): CsrfForm<LinkRequestForm>,
) -> Result<Response, PageError> {
    if !state.sends_mail() {
        let refused = Refused {
            form: "verify",
            why: super::NO_MAIL.to_owned(),
            typed: String::new(),
        };
        return account_page(&state, &who, None, refused).await;
    }
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    if !once::take(act.connection(), &form.form_token, now_ms).await? {
        return Ok(Redirect::to("/account?changed=asked").into_response());
    }
    match verification::request(act.connection(), customer.id, now_ms).await? {
        VerificationMailOutcome::Mailed => {
            act.commit(Note::new(LINK_REQUESTED, customer.id)).await?;
            Ok(Redirect::to("/account?changed=asked").into_response())
        }
        VerificationMailOutcome::Verified | VerificationMailOutcome::Unavailable => {
            Ok(Redirect::to(super::PATH).into_response())
        }
        VerificationMailOutcome::TooMany { until_ms } => {
            drop(act);
            let zone = inventory::customer(state.db().pool(), customer.id).await?.time_zone;
            let refused = Refused {
                form: "verify",
                why: too_many(until_ms, &zone),
                typed: String::new(),
            };
            account_page(&state, &who, None, refused).await
        }
    }
}

#[derive(serde::Deserialize)]
pub(crate) struct NewAddress {
    #[serde(default)]
    form_token: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
}

/// Writes to another address from now on.
pub(crate) async fn change(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    customer: Customer,
    CsrfForm(who, form): CsrfForm<NewAddress>,
) -> Result<Response, PageError> {
    let refused = async |why: String| {
        let refused = Refused {
            form: "address",
            why,
            typed: form.email.clone(),
        };
        account_page(&state, &who, None, refused).await
    };
    let Some(proof) = step_up(&state, &who, form.password.clone()).await? else {
        return refused("The password is not right.".to_owned()).await;
    };
    let mut act = action::begin(&state, &who, ip).await?;
    let now_ms = act.now_ms();
    if !proof.still_holds(act.connection()).await? {
        drop(act);
        return refused("The password is not right.".to_owned()).await;
    }
    if !once::take(act.connection(), &form.form_token, now_ms).await? {
        return Ok(Redirect::to("/account?changed=address").into_response());
    }
    let before = inventory::customer(act.connection(), customer.id).await?;
    let problem = match verification::change_own_address(act.connection(), customer.id, &form.email, now_ms).await {
        Ok(VerificationMailOutcome::Mailed) => None,
        // It is the address that was there.
        Ok(VerificationMailOutcome::Verified) => return Ok(Redirect::to(super::PATH).into_response()),
        Ok(VerificationMailOutcome::TooMany { until_ms }) => {
            Some(format!("Not changed. {}", too_many(until_ms, &before.time_zone)))
        }
        Err(VerificationError::Inventory(InventoryError::Email(_))) => {
            Some("An email address is like billing@example.net. Correct it.".to_owned())
        }
        // Whose it is, is not for others to know (S1): that it was asked for counts, so that few can be tried.
        Ok(VerificationMailOutcome::Unavailable) => {
            act.commit(Note::new("customer.email_refused", customer.id)).await?;
            return refused("This address cannot be used. Choose another one, or write to us.".to_owned()).await;
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(problem) = problem {
        drop(act);
        return refused(problem).await;
    }
    let after = inventory::customer(act.connection(), customer.id).await?;
    if after.email == before.email {
        act.commit(Note::new(LINK_REQUESTED, customer.id)).await?;
        return Ok(Redirect::to("/account?changed=asked").into_response());
    }
    let personal = serde_json::json!({ "before": before.email, "after": after.email });
    act.commit(Note::new("customer.email", customer.id).personal(personal))
        .await?;
    Ok(Redirect::to("/account?changed=address").into_response())
}

/// What the page of a link shows.
enum LinkState {
    /// A button, and what it does.
    Ready {
        pending: LinkPurpose,
        form_token: String,
    },
    /// The link cannot be used.
    Void,
    Done,
}

#[derive(Template)]
#[template(path = "verify_email.html")]
struct LinkPage {
    shown: LinkState,
}

fn void() -> Result<Response, PageError> {
    let body = page(&LinkPage { shown: LinkState::Void })?;
    Ok((StatusCode::NOT_FOUND, body).into_response())
}

/// What the link in the mail opens.
pub(crate) async fn link(
    State(state): State<AppState>,
    Path(token): Path<String>,
    jar: CookieJar,
) -> Result<Response, PageError> {
    let Some(pending) = verification::pending(state.db().pool(), &token, state.now_ms()).await? else {
        return void();
    };
    let (form_token, jar) = PreSession::issue(&state, jar);
    let shown = LinkState::Ready { pending, form_token };
    Ok((jar, page(&LinkPage { shown })?).into_response())
}

#[derive(serde::Deserialize)]
pub(crate) struct ConfirmLinkForm {
    #[serde(default)]
    csrf_token: String,
}

/// Its button.
pub(crate) async fn confirm(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    Path(token): Path<String>,
    jar: CookieJar,
    OpenForm(form): OpenForm<ConfirmLinkForm>,
) -> Result<Response, PageError> {
    PreSession::check(&state, &jar, &form.csrf_token)?;
    // Who reads the mail need not be signed in.
    let address = ip.to_string();
    let by = Actor {
        name: "somebody with the link",
        user: None,
        ip: &address,
    };
    let mut act = Act::begin(state.db(), By::from(by), state.now_ms()).await?;
    let Some(verified) = verification::confirm(act.connection(), &token, state.now_ms()).await? else {
        return void();
    };
    act.commit(Note::new("customer.email_verified", verified.customer))
        .await?;
    tracing::info!(%ip, customer = %verified.customer, "email address verified");
    Ok(Redirect::to("/verify-email").into_response())
}

/// Where the button leads.
pub(crate) async fn verified() -> Result<Response, PageError> {
    page(&LinkPage { shown: LinkState::Done })
}
