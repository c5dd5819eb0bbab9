//! Who is asking, and what they may see (S1).
//!
//! ```text
//! password (argon2id) ──▶ session row: SHA-256 of a random token ──▶ cookie holds the token
//!     │                                CSRF token ──▶ hidden field of every form
//!     └─ where a second factor is on: first the code of an app, or a recovery code
//! ```
//!
//! A handler states who may call it by the extractor it takes: [`SignedIn`], [`Customer`], or one of the staff roles.
//! [`Customer`] carries the customer id of the session; no customer id is ever read from a request.

mod csrf;
mod extract;
mod last_seen;
mod password;
pub(crate) mod pending;
pub(crate) mod second_factor;
mod session;
#[cfg(test)]
mod tests;
mod throttle;
mod totp;
mod users;

pub(crate) use csrf::{CsrfForm, PreSession, refuse_foreign_origin, same};
pub(crate) use extract::{Admin, ClientIp, Customer, Finance, IsApi, Network, Ops};
pub use extract::{Rejection, SignedIn};
pub(crate) use last_seen::LastSeen;
pub(crate) use password::verify as verify_password;
pub use password::{MIN_PASSWORD_CHARS, PasswordError};
pub use second_factor::{Reset, reset_two_factor};
pub(crate) use session::{clear_cookies, close as close_session, open as open_session, session_cookie, token_of};
pub(crate) use throttle::Throttle;
pub use users::{NewUser, Role, User, UserError, create_user};
pub(crate) use users::{change_password, find_for_sign_in, password_hash_of};

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
