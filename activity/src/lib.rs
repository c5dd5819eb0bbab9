//! Activity: what is done in the system, and by whom.
//!
//! * [`job`]: what runs by itself. One driver gives each job its own task, schedule, lease, history, progress and alert.
//!
//! The crate stands on `schemas` alone. It knows no money and no flows: what a job does, and how an alert is delivered, comes in
//! through a trait from the crate that knows.

pub mod job;
