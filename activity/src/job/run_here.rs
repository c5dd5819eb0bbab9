//! A job run once by a command, where no other process runs it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::lease::{LEASE_MS, leases};
use super::shared::TICK;
use super::watch::WatchState;
use super::{Cause, Driver, Hold, Job, JobError, Outcome, Settings};

/// How long a lease of a process that does not answer is waited for.
const PATIENCE: Duration = Duration::from_millis(LEASE_MS.unsigned_abs() + 15_000);

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LocalRun {
    /// It ran; what it did, or why it failed.
    Ended { outcome: Outcome, text: String },
    /// It may not run now, and why.
    Held(String),
}

/// Runs a job once in this process, under its lease, recorded as any run.
///
/// # Errors
/// [`JobError::SwitchedOff`] where it is, [`JobError::Held`] when another process has its lease and renews it; as the database answers.
pub async fn run_here(job: Arc<dyn Job>, settings: Settings) -> Result<LocalRun, JobError> {
    let name = job.name();
    if let Some(why) = job.switched_off() {
        return Err(JobError::SwitchedOff {
            job: name.to_owned(),
            why: why.to_owned(),
        });
    }
    let database = settings.database.clone();
    let driver = Driver::new(settings, vec![job]);
    let shared = driver.shared();
    let Some(slot) = shared.slots.first() else {
        return Err(JobError::Unknown(name.to_owned()));
    };
    let mut looks = WatchState::default();
    let since = Instant::now();
    loop {
        shared.keep_leases(&mut looks).await?;
        if shared.has_adopted(slot) {
            break;
        }
        if since.elapsed() >= PATIENCE {
            let held = leases(database.pool())
                .await?
                .into_iter()
                .find(|row| row.name == slot.lease);
            return Err(JobError::Held {
                job: name,
                owner: held.map(|row| row.owner).unwrap_or_default(),
            });
        }
        tokio::time::sleep(TICK).await;
    }
    let now_ms = slot.now_ms(&shared.settings.clock);
    let held = slot.job.hold(now_ms).await;
    if let Hold::ByOrder(why) | Hold::Unknown(why) = held {
        shared.leave().await;
        return Ok(LocalRun::Held(why));
    }
    let stop = CancellationToken::new();
    let watch = async {
        loop {
            tokio::time::sleep(TICK).await;
            shared.look(&mut looks).await;
        }
    };
    let outcome = tokio::select! {
        outcome = shared.run(slot, Cause::Request, now_ms, &stop) => outcome,
        () = watch => Outcome::GivenUp,
    };
    shared.leave().await;
    let text = slot.state().stored.last_text.clone();
    Ok(LocalRun::Ended { outcome, text })
}
