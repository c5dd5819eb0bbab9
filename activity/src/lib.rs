//! Who did what, who hears of it, and what runs by itself.
//!
//! * [`act`]: whatever somebody changes, with its entry in the audit log.
//! * [`audit`]: the log of who did what, to what, from where, as a chain of hashes.
//! * [`risk`]: the rule table: which actions are of high risk, from which size on, and who decides.
//! * [`approval`]: what one admin asks for and another decides; what is then done belongs to whoever asked.
//! * [`event`]: the outbox: what happened is written in the transaction of the change, and consumers react to it.
//! * [`channel`]: the consumers that tell people and programs: mail, webhooks, Discord, the portal.
//! * [`job`]: background jobs: one driver gives each its own task, schedule, lease, history, progress and alert.
//! * [`verification`], [`password_reset`]: links that are mailed to prove who reads a mailbox.
//!
//! It stands on [`schemas`] alone. Billing, the portal and the command line stand on it; what it must know of them comes in as
//! plain values: an action to be approved is a name and its JSON, an event's facts are complete when they come.
//!
//! But for the driver of jobs, nothing here reads a clock: whoever calls says what time it is.

pub mod act;
pub mod approval;
pub mod audit;
pub mod channel;
pub mod event;
mod hex;
pub mod job;
mod link_token;
pub mod password_reset;
pub mod risk;
#[cfg(test)]
mod testing;
pub mod verification;
