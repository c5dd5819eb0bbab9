//! The second factor: set up with an app, new recovery codes, turned off.
//!
//! The QR code is drawn here, on the server, from the address that apps read; the secret goes nowhere else. Recovery codes are
//! in the answer to the form that made them, and nowhere after.

use std::net::IpAddr;

use activity::act::{Act, Note};
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum_extra::extract::CookieJar;
use jiff::tz::TimeZone;
use qrcode::{Color, QrCode};
use schemas::{identity, inventory};
use sqlx::AnyConnection;

use super::step_up;
use crate::action;
use crate::auth::second_factor::{self, SecondFactor, SecondFactorMethod};
use crate::auth::{AttemptSource, ClientIp, CsrfForm, SignedIn, notice, token_of};
use crate::error::{Failure, PageError, page};
use crate::format;
use crate::shell::Shell;
use crate::state::AppState;

/// The page.
pub(super) const PATH: &str = "/account/two-factor";
/// Modules of white around a QR code (ISO/IEC 18004, 5.3.8).
const QUIET_MODULES: usize = 4;
/// From here on the page asks for new recovery codes.
const FEW_CODES: i64 = 3;

const WRONG_PASSWORD: &str = "The password is not right.";
const WRONG_CODE: &str = "That code is not right, or was used already. Wait for the next one that the app shows.";

/// A secret as apps take it.
struct Setup {
    /// In parts of four.
    secret: String,
    uri: String,
    qr: Qr,
}

/// A QR code: the dark modules as the data of one path.
struct Qr {
    modules: usize,
    path: String,
}

impl Qr {
    fn of(text: &str) -> Result<Qr, Failure> {
        use std::fmt::Write as _;
        let code =
            QrCode::new(text.as_bytes()).map_err(|error| Failure::internal("draw a QR code")(Box::new(error)))?;
        let (width, colours) = (code.width(), code.to_colors());
        let mut path = String::new();
        for (y, row) in colours.chunks(width).enumerate() {
            let mut x = 0;
            for run in row.chunk_by(|a, b| a == b) {
                if run[0] == Color::Dark {
                    let (left, top, length) = (x + QUIET_MODULES, y + QUIET_MODULES, run.len());
                    // Writing to a String cannot fail.
                    let _ = write!(path, "M{left} {top}h{length}v1h-{length}z");
                }
                x += run.len();
            }
        }
        Ok(Qr {
            modules: width + 2 * QUIET_MODULES,
            path,
        })
    }
}

/// What is on.
struct ActiveSecondFactor {
    since: String,
    recovery_codes: i64,
    is_few: bool,
}

#[derive(Template)]
#[template(path = "two_factor.html")]
struct TwoFactorPage {
    shell: Shell,
    setup: Option<Setup>,
    active: Option<ActiveSecondFactor>,
    /// Shown this once.
    new_codes: Vec<String>,
    /// It was turned on just now.
    is_new: bool,
    problem: Option<(&'static str, &'static str)>,
}

impl TwoFactorPage {
    fn problem_of(&self, form: &str) -> Option<&str> {
        self.problem.filter(|(of, _)| *of == form).map(|(_, why)| why)
    }
}

/// The name that apps show beside the account.
fn issuer(state: &AppState) -> String {
    let address = state.portal_url();
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or(host);
    format!("EZSCALE {host}")
}

pub(super) async fn zone_of(state: &AppState, who: &SignedIn) -> Result<TimeZone, Failure> {
    match who.user.customer {
        Some(customer) => Ok(inventory::customer(state.db().pool(), customer).await?.time_zone),
        None => Ok(TimeZone::UTC),
    }
}

async fn two_factor_page(
    state: &AppState,
    who: &SignedIn,
    problem: Option<(&'static str, &'static str)>,
    new_codes: Vec<String>,
    is_new: bool,
) -> Result<Response, PageError> {
    let (mut setup, mut active) = (None, None);
    match second_factor::second_factor_of(state.db(), who.user.id).await? {
        SecondFactor::Off => {}
        SecondFactor::Pending(secret) => {
            let text = secret.text();
            let parts: Vec<&str> = (0..text.len())
                .step_by(4)
                .filter_map(|at| text.get(at..at + 4))
                .collect();
            let uri = secret.uri(&issuer(state), &who.user.email);
            setup = Some(Setup {
                secret: parts.join(" "),
                qr: Qr::of(&uri)?,
                uri,
            });
        }
        SecondFactor::On {
            since_ms,
            recovery_codes,
        } => {
            active = Some(ActiveSecondFactor {
                since: format::date(since_ms, &zone_of(state, who).await?),
                recovery_codes,
                is_few: recovery_codes <= FEW_CODES,
            });
        }
    }
    let body = page(&TwoFactorPage {
        shell: Shell::new(who, "Second factor", super::PATH),
        setup,
        active,
        new_codes,
        is_new,
        problem,
    })?;
    if problem.is_some() {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response());
    }
    Ok(body)
}

pub(crate) async fn show(State(state): State<AppState>, who: SignedIn) -> Result<Response, PageError> {
    two_factor_page(&state, &who, None, Vec::new(), false).await
}

#[derive(serde::Deserialize)]
pub(crate) struct Proof {
    #[serde(default)]
    password: String,
    #[serde(default)]
    code: String,
}

/// Makes a secret. It takes the password, so that who finds a browser signed in does not lock its owner out.
pub(crate) async fn begin(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, proof): CsrfForm<Proof>,
) -> Result<Response, PageError> {
    let refused = async || two_factor_page(&state, &who, Some(("begin", WRONG_PASSWORD)), Vec::new(), false).await;
    let Some(step_up) = step_up(&state, &who, proof.password).await? else {
        return refused().await;
    };
    let mut act = action::begin(&state, &who, ip).await?;
    if !step_up.still_holds(act.connection()).await? {
        drop(act);
        return refused().await;
    }
    second_factor::begin(act.connection(), state.db().vault(), who.user.id).await?;
    act.commit(Note::new("two_factor.begin", who.user.id)).await?;
    Ok(Redirect::to(PATH).into_response())
}

/// Forgets a secret that was not confirmed.
pub(crate) async fn cancel(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, _): CsrfForm<Proof>,
) -> Result<Response, PageError> {
    let mut act = action::begin(&state, &who, ip).await?;
    if second_factor::cancel(act.connection(), who.user.id).await? {
        act.commit(Note::new("two_factor.cancel", who.user.id)).await?;
    }
    Ok(Redirect::to(PATH).into_response())
}

/// Turns it on.
pub(crate) async fn confirm(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    jar: CookieJar,
    CsrfForm(who, proof): CsrfForm<Proof>,
) -> Result<Response, PageError> {
    let SecondFactor::Pending(_) = second_factor::second_factor_of(state.db(), who.user.id).await? else {
        return Ok(Redirect::to(PATH).into_response());
    };
    let session = token_of(&state, &jar).unwrap_or_default();
    let now_ms = state.now_ms();
    let mut act = action::begin(&state, &who, ip).await?;
    let vault = state.db().vault();
    let confirmed = second_factor::confirm(act.connection(), vault, who.user.id, &proof.code, &session, now_ms).await?;
    let Some(codes) = confirmed else {
        drop(act);
        return two_factor_page(&state, &who, Some(("confirm", WRONG_CODE)), Vec::new(), false).await;
    };
    commit(act, &who, ip, "two_factor.on").await?;
    tracing::info!(user = %who.user.id, %ip, "second factor turned on");
    two_factor_page(&state, &who, None, codes, true).await
}

/// Why the code is not enough; `None` where it is. The code is used up then.
pub(super) async fn missing(
    state: &AppState,
    connection: &mut AnyConnection,
    ip: IpAddr,
    who: &SignedIn,
    code: &str,
) -> Result<Option<&'static str>, Failure> {
    let guesser = AttemptSource::Known(&who.session);
    if let Err(retry_after_s) = state.code_throttle().take(guesser, &who.user.email, state.now_ms()) {
        state.sign_in_counts().held_back();
        return Err(Failure::TooManyRequests { retry_after_s });
    }
    let vault = state.db().vault();
    let accepted = second_factor::accept(&mut *connection, vault, who.user.id, code, state.now_ms()).await?;
    let Some(means) = accepted else {
        return Ok(Some(WRONG_CODE));
    };
    if means == SecondFactorMethod::RecoveryCode {
        tracing::warn!(%ip, user = %who.user.id, "a recovery code was used");
        let (user, from) = (who.user.id, ip.to_canonical().to_string());
        notice::second_factor_changed(connection, user, "recovery_code_used", &from, state.now_ms()).await?;
    }
    state.code_throttle().succeeded(guesser, &who.user.email);
    Ok(None)
}

/// Ten recovery codes in place of those there were.
pub(crate) async fn renew(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, proof): CsrfForm<Proof>,
) -> Result<Response, PageError> {
    let refused = async |why| two_factor_page(&state, &who, Some(("renew", why)), Vec::new(), false).await;
    let Some(step_up) = step_up(&state, &who, proof.password).await? else {
        return refused(WRONG_PASSWORD).await;
    };
    let mut act = action::begin(&state, &who, ip).await?;
    if !step_up.still_holds(act.connection()).await? {
        drop(act);
        return refused(WRONG_PASSWORD).await;
    }
    if let Some(why) = missing(&state, act.connection(), ip, &who, &proof.code).await? {
        drop(act);
        return refused(why).await;
    }
    let codes = second_factor::new_recovery_codes(act.connection(), who.user.id).await?;
    commit(act, &who, ip, "two_factor.recovery_codes").await?;
    two_factor_page(&state, &who, None, codes, false).await
}

/// Turns it off.
pub(crate) async fn turn_off(
    State(state): State<AppState>,
    ClientIp(ip): ClientIp,
    CsrfForm(who, proof): CsrfForm<Proof>,
) -> Result<Response, PageError> {
    let refused = async |why| two_factor_page(&state, &who, Some(("off", why)), Vec::new(), false).await;
    let Some(step_up) = step_up(&state, &who, proof.password).await? else {
        return refused(WRONG_PASSWORD).await;
    };
    let mut act = action::begin(&state, &who, ip).await?;
    if !step_up.still_holds(act.connection()).await? {
        drop(act);
        return refused(WRONG_PASSWORD).await;
    }
    if let Some(why) = missing(&state, act.connection(), ip, &who, &proof.code).await? {
        drop(act);
        return refused(why).await;
    }
    identity::turn_off_second_factor(act.connection(), who.user.id).await?;
    commit(act, &who, ip, "two_factor.off").await?;
    tracing::info!(user = %who.user.id, %ip, "second factor turned off");
    Ok(Redirect::to("/account?changed=two-factor-off").into_response())
}

/// Tells the user by mail, and commits the act; no secret is in either.
async fn commit(mut act: Act, who: &SignedIn, ip: IpAddr, action: &'static str) -> Result<(), Failure> {
    let (now_ms, ip) = (act.now_ms(), ip.to_canonical().to_string());
    let change = action.strip_prefix("two_factor.").unwrap_or(action);
    notice::second_factor_changed(act.connection(), who.user.id, change, &ip, now_ms).await?;
    act.commit(Note::new(action, who.user.id)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drawn again from the path, it is the code, with white all around.
    #[test]
    fn the_path_is_the_code() {
        let text = "otpauth://totp/EZSCALE:a%40example.net?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";
        let drawn = Qr::of(text).unwrap();
        let code = QrCode::new(text).unwrap();
        assert_eq!(drawn.modules, code.width() + 8);
        let mut dark = vec![false; drawn.modules * drawn.modules];
        for run in drawn.path.split('M').filter(|run| !run.is_empty()) {
            let numbers: Vec<usize> = run
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|number| number.parse().ok())
                .collect();
            let [x, y, length, 1, back] = numbers[..] else {
                panic!("{run}")
            };
            assert_eq!(length, back);
            dark[y * drawn.modules + x..][..length].fill(true);
        }
        for y in 0..drawn.modules {
            for x in 0..drawn.modules {
                let inside = |at: usize| at.checked_sub(QUIET_MODULES).filter(|at| *at < code.width());
                let expected = match (inside(x), inside(y)) {
                    (Some(x), Some(y)) => code[(x, y)] == Color::Dark,
                    _ => false,
                };
                assert_eq!(dark[y * drawn.modules + x], expected, "{x} {y}");
            }
        }
    }
}
