//! How long the relational database keeps what no money depends on: `[retention.records]` of the configuration.
//!
//! Money, contracts, evidence and the audit log are not among it and are never removed.

use serde::{Deserialize, Serialize};

/// Shorter than this a delivery could go while others of its event are still retried, and a gateway may still ask what
/// became of an event.
const DAYS_MIN: u32 = 7;
/// A hundred years are enough for everybody, and safe to compute with.
const DAYS_MAX: u32 = 36_500;

/// Days by kind of record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordRetention {
    /// Events, from when they were dispatched, once no delivery and no notification of theirs is left.
    pub events_days: u32,
    /// Mails and webhooks that were delivered or given up, from when they were made out.
    pub deliveries_days: u32,
    /// Notifications in the portal, from when they were read; unread ones stay.
    pub notifications_days: u32,
    /// The text of payment gateways' webhooks, from when they were counted; that they were counted is kept.
    pub gateway_payloads_days: u32,
    /// Runs of background jobs, from when they began.
    pub job_runs_days: u32,
}

impl Default for RecordRetention {
    fn default() -> RecordRetention {
        RecordRetention {
            events_days: 400,
            deliveries_days: 90,
            notifications_days: 180,
            gateway_payloads_days: 90,
            job_runs_days: 30,
        }
    }
}

/// A number of days that is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("retention.records.{name} = {days} is out of range: use {DAYS_MIN} to {DAYS_MAX}")]
pub struct RecordRetentionError {
    name: &'static str,
    days: u32,
}

impl RecordRetention {
    /// Checks every number of days.
    ///
    /// # Errors
    /// The first one that is out of range.
    pub fn validate(&self) -> Result<(), RecordRetentionError> {
        for (name, days) in [
            ("events_days", self.events_days),
            ("deliveries_days", self.deliveries_days),
            ("notifications_days", self.notifications_days),
            ("gateway_payloads_days", self.gateway_payloads_days),
            ("job_runs_days", self.job_runs_days),
        ] {
            if !(DAYS_MIN..=DAYS_MAX).contains(&days) {
                return Err(RecordRetentionError { name, days });
            }
        }
        Ok(())
    }

    /// What is kept how long, in sentences.
    pub fn words(&self) -> Vec<String> {
        vec![
            format!(
                "events are kept {} days after they were dispatched, and longer while a delivery or notification of theirs is kept",
                self.events_days
            ),
            format!(
                "mails and webhooks that were delivered or given up are kept {} days",
                self.deliveries_days
            ),
            format!(
                "notifications are kept {} days after they were read",
                self.notifications_days
            ),
            format!(
                "the text of payment gateways' webhooks is kept {} days after they were counted",
                self.gateway_payloads_days
            ),
            format!("runs of background jobs are kept {} days", self.job_runs_days),
        ]
    }
}
