//! What a portal itself keeps of signing in, in memory, and its limits. [`crate::auth`] stands on it.
//!
//! * [`Throttle`]: how long who guessed waits before the next try.
//! * [`PasswordLanes`]: places to check a password.
//! * [`LinkQueue`]: links to set a new password that were asked for.
//! * [`LastSeen`]: sessions and tokens whose last use is not written yet.
//! * [`SessionLimits`]: how long sessions last.
//! * [`Counts`]: what signing in has done since the start.

mod counts;
mod lanes;
mod last_seen;
mod link_queue;
mod session_limits;
mod throttle;

pub(crate) use counts::Counts;
pub(crate) use lanes::{PasswordLanes, PasswordPlace};
pub(crate) use last_seen::{LastSeen, Used};
pub(crate) use link_queue::LinkQueue;
pub use session_limits::{SessionLimits, SessionLimitsError};
pub(crate) use throttle::{AttemptSource, Throttle};
