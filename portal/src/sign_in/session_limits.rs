//! How long sessions last.

use schemas::identity::{Role, SessionTimes};
use serde::{Deserialize, Serialize};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// How long sessions last: the section `[sessions]` of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionLimits {
    /// Of staff, from sign-in, whatever happens.
    pub staff_hours: u32,
    /// Of staff, after it was last used.
    pub staff_idle_minutes: u32,
    /// Of customers, from sign-in, whatever happens.
    pub customer_days: u32,
    /// Of customers, after it was last used.
    pub customer_idle_days: u32,
}

impl Default for SessionLimits {
    fn default() -> SessionLimits {
        SessionLimits {
            staff_hours: 12,
            staff_idle_minutes: 30,
            customer_days: 30,
            customer_idle_days: 7,
        }
    }
}

/// A limit that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("sessions.{setting} = {value} is out of range: use 1 to {most}")]
pub struct SessionLimitsError {
    setting: &'static str,
    value: u32,
    most: u32,
}

schemas::error_codes! {
    struct SessionLimitsError: Refused "sessions.out_of_range";
}

impl SessionLimits {
    /// # Errors
    /// When a limit is out of range, with the range.
    pub fn validate(&self) -> Result<(), SessionLimitsError> {
        for (setting, value, most) in [
            ("staff_hours", self.staff_hours, 24 * 7),
            ("staff_idle_minutes", self.staff_idle_minutes, 24 * 60),
            ("customer_days", self.customer_days, 365),
            ("customer_idle_days", self.customer_idle_days, 365),
        ] {
            if !(1..=most).contains(&value) {
                return Err(SessionLimitsError { setting, value, most });
            }
        }
        Ok(())
    }

    /// From sign-in, whatever happens.
    pub(crate) fn whole_ms(&self, role: Role) -> i64 {
        match role {
            Role::Customer => i64::from(self.customer_days) * DAY_MS,
            Role::Ops | Role::Finance | Role::Network | Role::Admin => i64::from(self.staff_hours) * HOUR_MS,
        }
    }

    /// After it was last used.
    pub(crate) fn idle_ms(&self, role: Role) -> i64 {
        match role {
            Role::Customer => i64::from(self.customer_idle_days) * DAY_MS,
            Role::Ops | Role::Finance | Role::Network | Role::Admin => i64::from(self.staff_idle_minutes) * MINUTE_MS,
        }
    }

    /// What is stored of a session, as far as it lasts by limits that were configured since.
    pub(crate) fn lasts(&self, role: Role, times: SessionTimes, now_ms: i64) -> bool {
        now_ms < times.expires_at_ms
            && now_ms < times.created_at_ms + self.whole_ms(role)
            && now_ms < times.last_seen_at_ms + self.idle_ms(role)
    }
}
