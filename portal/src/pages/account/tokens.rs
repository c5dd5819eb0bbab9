//! API tokens of the user who looks: made, listed, revoked. A token is in the answer to the form that made it, and nowhere after.

use activity::act::Act;
use askama::Template;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::tz::TimeZone;
use schemas::error_class::{Classified as _, ErrorClass};
use schemas::identity::{StoredToken, TOKEN_DAYS_MAX, TOKENS_PER_USER_MAX};
use schemas::ids::TokenId;

use super::step_up;
use super::two_factor::{missing, zone_of};
use crate::action;
use crate::auth::second_factor::{SecondFactor, second_factor_of};
use crate::auth::{ClientIp, CsrfForm, Role, SignedIn, TokenTerms, UserError, make_token, revoke_token, tokens_of};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::once;
use crate::outcome::words;
use crate::path::Path;
use crate::query::PageQuery;
use crate::shell::Shell;
use crate::state::AppState;

/// The page.
pub(super) const PATH: &str = "/account/tokens";
/// What the form offers.
const DAYS: &str = "90";

/// A token, in words.
pub(crate) struct TokenRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) since: String,
    pub(crate) used: String,
    pub(crate) ends: String,
    pub(crate) is_over: bool,
}

impl TokenRow {
    pub(crate) fn of(token: StoredToken, now_ms: i64, zone: &TimeZone) -> TokenRow {
        TokenRow {
            id: token.id.to_string(),
            since: format::minute(token.created_at_ms, zone),
            used: token
                .last_used_at_ms
                .map_or_else(|| "never".to_owned(), |used_ms| format::ago(used_ms, now_ms)),
            ends: format::minute(token.expires_at_ms, zone),
            is_over: token.expires_at_ms <= now_ms,
            name: token.name,
        }
    }
}

/// What was typed into the form, without what proves who it was.
struct Typed {
    name: String,
    days: String,
}

/// A token as it is shown, once.
struct Shown {
    name: String,
    token: String,
}

#[derive(Template)]
#[template(path = "account_tokens.html")]
struct TokensPage {
    shell: Shell,
    zone: String,
    tokens: Vec<TokenRow>,
    max_tokens: i64,
    max_days: i64,
    asks_code: bool,
    typed: Typed,
    problem: Option<String>,
    made: Option<Shown>,
    is_revoked: bool,
    form_token: String,
    portal: String,
    /// An address of the API that the user may read.
    example: &'static str,
}

/// What the page says of what was just done.
#[derive(Default)]
struct Outcome {
    typed: Option<Typed>,
    problem: Option<String>,
    made: Option<Shown>,
    is_revoked: bool,
}

fn example(role: Role) -> &'static str {
    match role {
        Role::Customer => "/api/v1/services",
        Role::Finance => "/api/v1/finance/aging",
        Role::Ops | Role::Network | Role::Admin => "/api/v1/exporters",
    }
}

async fn tokens_page(state: &AppState, who: &SignedIn, outcome: Outcome) -> Result<Response, PageError> {
    let (user, now_ms) = (who.user.id, state.now_ms());
    let zone = zone_of(state, who).await?;
    let tokens = tokens_of(state.db().pool(), user).await?;
    let asks_code = matches!(second_factor_of(state.db(), user).await?, SecondFactor::On { .. });
    let is_refused = outcome.problem.is_some();
    let mut response = page(&TokensPage {
        shell: Shell::new(who, "API tokens", super::PATH),
        zone: zone.iana_name().unwrap_or("UTC").to_owned(),
        tokens: tokens
            .into_iter()
            .map(|token| TokenRow::of(token, now_ms, &zone))
            .collect(),
        max_tokens: TOKENS_PER_USER_MAX,
        max_days: TOKEN_DAYS_MAX,
        asks_code,
        typed: outcome.typed.unwrap_or_else(|| Typed {
            name: String::new(),
            days: DAYS.to_owned(),
        }),
        problem: outcome.problem,
        made: outcome.made,
        is_revoked: outcome.is_revoked,
        form_token: once::form_token(),
        portal: state.portal_url().trim_end_matches('/').to_owned(),
        example: example(who.user.role),
    })?;
    // It may hold a token.
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if is_refused {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, response).into_response());
    }
    Ok(response)
}

#[derive(serde::Deserialize)]
pub(crate) struct Done {
    #[serde(default)]
    done: String,
}

pub(crate) async fn show(
    State(state): State<AppState>,
    who: SignedIn,
    PageQuery(shown): PageQuery<Done>,
) -> Result<Response, PageError> {
    let outcome = Outcome {
        is_revoked: shown.done == "revoked",
        ..Outcome::default()
    };
    tokens_page(&state, &who, outcome).await
}

#[derive(serde::Deserialize)]
pub(crate) struct NewToken {
    #[serde(default)]
    name: String,
    #[serde(default)]
    days: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    code: String,
    #[serde(default)]
    form_token: String,
}

/// Why a token is not made: in words for who asked, or something is broken.
enum Refused {
    Said(String),
    Failed(PageError),
}

impl<E: Into<Failure>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused::Failed(PageError(error.into()))
    }
}

/// Makes a token. It takes the password, so that who finds a browser signed in makes none.
pub(crate) async fn add(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, form): CsrfForm<NewToken>,
) -> Result<Response, PageError> {
    let typed = Typed {
        name: form.name.clone(),
        days: form.days.clone(),
    };
    let outcome = match make(&state, &who, ip, form).await {
        Ok(made) => Outcome {
            made: Some(made),
            ..Outcome::default()
        },
        Err(Refused::Said(problem)) => Outcome {
            typed: Some(typed),
            problem: Some(problem),
            ..Outcome::default()
        },
        Err(Refused::Failed(error)) => return Err(error),
    };
    tokens_page(&state, &who, outcome).await
}

async fn make(state: &AppState, who: &SignedIn, ip: std::net::IpAddr, form: NewToken) -> Result<Shown, Refused> {
    let days: i64 = form
        .days
        .trim()
        .parse()
        .map_err(|_| Refused::Said(format!("Days are a whole number from 1 to {TOKEN_DAYS_MAX}.")))?;
    if !once::is_token(&form.form_token) {
        return Err(Refused::Said("This form is too old. Send it again.".to_owned()));
    }
    let wrong = || Refused::Said("The password is not right.".to_owned());
    let proof = step_up(state, who, form.password).await?.ok_or_else(wrong)?;
    let mut act = action::begin(state, who, ip).await?;
    if !proof.still_holds(act.connection()).await? {
        return Err(wrong());
    }
    if !once::take(act.connection(), &form.form_token, state.now_ms()).await? {
        return Err(Refused::Said(
            "This form made a token already, which was shown once. Revoke it and make another one if you did not keep it.".to_owned(),
        ));
    }
    if matches!(
        second_factor_of(state.db(), who.user.id).await?,
        SecondFactor::On { .. }
    ) && let Some(why) = missing(state, act.connection(), ip, who, &form.code).await?
    {
        return Err(Refused::Said(why.to_owned()));
    }
    commit_token(act, who, &ip.to_canonical().to_string(), (&form.name, days)).await
}

async fn commit_token(mut act: Act, who: &SignedIn, ip: &str, (name, days): (&str, i64)) -> Result<Shown, Refused> {
    let now_ms = act.now_ms();
    let terms = TokenTerms { name, days };
    let made = make_token(act.connection(), &who.user, terms, ip, now_ms).await;
    let made = match made {
        Ok(made) => made,
        Err(error) if matches!(error.class(), ErrorClass::Refused | ErrorClass::Limit) => {
            return Err(Refused::Said(words(&error)));
        }
        Err(error) => return Err(error.into()),
    };
    act.commit(made.note).await?;
    tracing::info!(user = %who.user.id, token = %made.id, ip, "API token made");
    Ok(Shown {
        name: name.trim().to_owned(),
        token: made.token,
    })
}

#[derive(serde::Deserialize)]
pub(crate) struct Nothing {}

/// Revokes a token of the user's own.
pub(crate) async fn revoke(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    Path(token): Path<TokenId>,
    CsrfForm(who, Nothing {}): CsrfForm<Nothing>,
) -> Result<Response, PageError> {
    let mut act = action::begin(&state, &who, ip).await?;
    match revoke_token(act.connection(), token, Some(who.user.id)).await {
        Ok(note) => {
            act.commit(note).await?;
            Ok(Redirect::to("/account/tokens?done=revoked").into_response())
        }
        // It was revoked already, or is another user's: nothing is kept.
        Err(UserError::NoToken(_)) => Ok(Redirect::to(PATH).into_response()),
        Err(error) => Err(error.into()),
    }
}
