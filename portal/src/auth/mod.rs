//! Who is asking, and what they may see (S1).
//!
//! ```text
//! password (argon2id) ──▶ session row: SHA-256 of a random token ──▶ cookie holds the token
//!     │                                CSRF token ──▶ hidden field of every form
//!     └─ where a second factor is on: first the code of an app, or a recovery code
//! ```
//!
//! Who guesses waits longer each time and locks out nobody ([`crate::sign_in`], [`device`]); who signed in, and who tried, is
//! kept for the user to see ([`attempts`]). Users are managed in one place, from the portal and the command line ([`manage`]).
//!
//! Programs show an API token instead of a session ([`token`]); they are let into the API, and into no page.
//!
//! A handler states who may call it by the extractor it takes: [`SignedIn`], [`Customer`], or one of the staff roles.
//! [`Customer`] carries the customer id of the session; no customer id is ever read from a request.

mod agent;
pub(crate) mod attempts;
mod csrf;
pub(crate) mod device;
mod extract;
mod guessable;
pub(crate) mod manage;
pub(crate) mod notice;
mod password;
pub(crate) mod pending;
pub(crate) mod second_factor;
mod session;
#[cfg(test)]
mod tests;
mod token;
mod totp;
mod users;

pub(crate) use crate::sign_in::{AttemptSource, PasswordLanes};
pub use crate::sign_in::{SessionLimits, SessionLimitsError};
pub(crate) use agent::Agent;
pub use agent::device_name;
pub(crate) use csrf::{CsrfForm, OpenForm, PreSession, refuse_foreign_origin, same};
pub(crate) use extract::{
    Admin, ClientIp, Customer, Finance, Network, Operations, Ops, PAGES_ARE_FOR_SESSIONS, Principal,
    PrincipalExtractor, Staff,
};
pub use extract::{Rejection, SignedIn};
pub use manage::{
    ChangeContext, ManagedChange, account, accounts, disable, enable, end_sessions, reset_second_factor, send_reset,
    set_password, set_role, user_named,
};
pub use password::{MIN_PASSWORD_CHARS, PasswordError};
pub(crate) use password::{NewHash, prepare as prepare_passwords, verify as verify_password};
pub use schemas::identity::{
    Account, AccountFilter as Filter, Attempt, MAX_ACCOUNTS as MAX_USERS, Outcome, Role, SessionsToEnd, User,
    recent_attempts,
};
pub use session::{Session, sessions_of};
pub(crate) use session::{
    StepUp, clear_cookies, close as close_session, open as open_session, session_cookie, token_of,
};
pub(crate) use token::make_token;
pub use token::{Proof, TokenTerms, issue_token, revoke_token, token_user, tokens_of};
pub use users::{CheckedUser, NewUser, UserError, add_user, check_user, create_user};

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 256 random bits from the operating system's generator, as hex.
pub(crate) fn random_token() -> String {
    hex(&rand::random::<[u8; 32]>())
}
