//! Who signs in, and what they hold: users and their roles, sessions, tokens, second factors, known browsers, links to set a
//! password, and the log of who tried.
//!
//! * This is the only module with SQL on these tables. It stores and finds; what may be done, what is audited and what a browser
//!   is told is for who calls it.
//! * Nothing here is a secret that opens anything: tokens come as their SHA-256, passwords as their hash, secrets of authenticator
//!   apps sealed ([`crate::secret`]).
//! * Writes take the caller's connection, so that they are part of its transaction. Functions that are named `hold_…` take the
//!   user's row: what they found stays so until the transaction ends.
//! * Every function fails with [`sqlx::Error`], as the database answers.

mod account;
mod attempt;
mod device;
mod password_link;
mod second_factor;
mod session;
mod sign_in;
mod token;
mod user;

pub use account::{Account, AccountFilter, IdleLimits, MAX_ACCOUNTS, account, accounts};
pub use attempt::{ATTEMPTS_KEPT_MS, Attempt, NewAttempt, Outcome, note_attempt, recent_attempts};
pub use device::{DEVICE_KNOWN_MS, forget_devices, is_known_device, remember_device};
pub use password_link::{add_password_link, password_link_user, take_password_link, void_password_links};
pub use second_factor::{
    StoredSecondFactor, accept_code_step, cancel_second_factor, confirmed_secret, pending_secret, put_pending_secret,
    replace_recovery_codes, second_factor, turn_off_second_factor, turn_on_second_factor, use_recovery_code,
    users_with_second_factor,
};
pub use session::{
    NewSession, SESSION_NAME_CHARS, SessionTimes, SessionUser, SessionsToEnd, StoredSession, close_session,
    end_sessions, end_sessions_without, has_session, note_session_used, open_session, session_name, session_user,
    sessions_of,
};
pub use sign_in::{PendingSignIn, close_sign_in, hold_sign_in, open_sign_in, pending_sign_in, take_code_attempt};
pub use token::{
    NewToken, StoredToken, TOKEN_DAYS_MAX, TOKENS_PER_USER_MAX, TokenHolder, add_token, end_tokens, note_token_used,
    remove_token, token_holder, tokens_of,
};
pub use user::{
    Candidate, NewUserRow, User, add_user, customer_exists, customer_is_active, disable_admin, disable_users_of,
    email_is_taken, emails_of, enabled_admins, find_candidate, has_other_admin, has_other_enabled_admin, has_users,
    hold_by_password, normalised_email, password_hash, set_disabled, set_password_hash, set_role, user, user_named,
};

/// What a user may see and do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Their own services and invoices.
    Customer,
    /// Traffic and exporters.
    Ops,
    /// Invoices and revenue of everybody.
    Finance,
    /// Exporters and traffic.
    Network,
    /// All that staff may.
    Admin,
}

/// A text that names no role.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a role is one of customer, ops, finance, network, admin, not {0:?}")]
pub struct RoleError(pub String);

crate::error_codes! {
    struct RoleError: Refused "user.role";
}

impl Role {
    /// All of them, customers first.
    pub const ALL: [Role; 5] = [Role::Customer, Role::Ops, Role::Network, Role::Finance, Role::Admin];

    /// As stored.
    pub fn name(self) -> &'static str {
        match self {
            Role::Customer => "customer",
            Role::Ops => "ops",
            Role::Finance => "finance",
            Role::Network => "network",
            Role::Admin => "admin",
        }
    }

    /// As shown.
    pub fn label(self) -> &'static str {
        match self {
            Role::Customer => "Customer",
            Role::Ops => "Operations",
            Role::Finance => "Finance",
            Role::Network => "Network engineer",
            Role::Admin => "Administrator",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Role, RoleError> {
        match text {
            "customer" => Ok(Role::Customer),
            "ops" => Ok(Role::Ops),
            "finance" => Ok(Role::Finance),
            "network" => Ok(Role::Network),
            "admin" => Ok(Role::Admin),
            other => Err(RoleError(other.to_owned())),
        }
    }
}

impl serde::Serialize for Role {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The role in a row; the table holds no other texts.
fn role_in(row: &sqlx::any::AnyRow) -> Result<Role, sqlx::Error> {
    let role: String = sqlx::Row::try_get(row, "role")?;
    role.parse()
        .map_err(|error: RoleError| sqlx::Error::Decode(Box::new(error)))
}

#[cfg(test)]
mod tests;
