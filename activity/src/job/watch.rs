//! What keeps watch beside the jobs of a process: it follows the test clock, takes and renews leases, sees what people ask for, and
//! writes what changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use schemas::clock;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::lease::{self, LOST_AFTER, Lease, LeaseWatch, RENEW_EVERY};
use super::shared::{Shared, TICK};
use super::slot::{Slot, waits_for};
use super::{JobError, causes, history, store};

/// How often what somebody may wait to read is written.
const WRITE_EVERY: Duration = Duration::from_secs(2);
/// How often what nobody waits for is.
const STALE_WRITE_EVERY: Duration = Duration::from_secs(60);

/// What the watch remembers from one look to the next.
#[derive(Default)]
pub(super) struct WatchState {
    is_registered: bool,
    leases: LeaseWatch,
    renewed: Option<Instant>,
    written: Option<Instant>,
    stale_written: Option<Instant>,
    /// The last look failed: it was said.
    has_failed: bool,
}

/// Whether a time has passed since an instant; it has, since never.
fn has_passed(since: Option<Instant>, time: Duration) -> bool {
    since.is_none_or(|since| since.elapsed() >= time)
}

pub(super) async fn keep_watch(shared: Arc<Shared>, mut looks: WatchState, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(TICK) => {}
        }
        shared.look(&mut looks).await;
    }
}

impl Shared {
    /// One look: the test clock, leases, what people asked for, and what is to be written.
    pub(super) async fn look(&self, looks: &mut WatchState) {
        self.follow_clock().await;
        match self.keep_leases(looks).await {
            Ok(()) => {
                if std::mem::take(&mut looks.has_failed) {
                    info!("the state of background jobs can be read and written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut looks.has_failed, true) {
                    warn!(
                        error = causes(&error),
                        "the state of background jobs cannot be read or written: jobs of this process continue"
                    );
                }
                return;
            }
        }
        let writes_dirty = has_passed(looks.written, WRITE_EVERY);
        let writes_stale = has_passed(looks.stale_written, STALE_WRITE_EVERY);
        if !writes_dirty {
            return;
        }
        looks.written = Some(Instant::now());
        if writes_stale {
            looks.stale_written = Some(Instant::now());
        }
        for slot in &self.slots {
            let is_to_be_written = slot.state().is_to_be_written(writes_stale);
            if is_to_be_written && let Err(error) = self.write(slot).await {
                debug!(
                    job = slot.name,
                    error = causes(error.as_ref()),
                    "a job's row was not written"
                );
            }
        }
    }

    /// Takes over what a test clock was set to.
    async fn follow_clock(&self) {
        let clock = &self.settings.clock;
        if !clock.is_test() {
            return;
        }
        let before = clock.now();
        match clock::stored(self.settings.database.pool()).await {
            // Behind is another process's old reading: the next look sees the same or later.
            Ok(Some(at)) if at > before => {
                if clock.set(at).is_ok() {
                    self.epoch.fetch_add(1, Ordering::SeqCst);
                    self.wake_all();
                }
            }
            Ok(_) => {}
            Err(error) => warn!(error = causes(&error), "the test clock cannot be read"),
        }
    }

    fn wake_all(&self) {
        for slot in &self.slots {
            slot.wake.notify_one();
        }
    }

    /// Whether this process has a job's lease and goes on from where the last owner was.
    pub(super) fn has_adopted(&self, slot: &Slot) -> bool {
        self.held().contains_key(&slot.lease)
    }

    /// The leases of its jobs, each once.
    fn lease_names(&self) -> BTreeMap<&str, bool> {
        let names = self.slots.iter().map(|slot| (slot.lease.as_str(), slot.is_local));
        names.collect()
    }

    pub(super) async fn keep_leases(&self, looks: &mut WatchState) -> Result<(), JobError> {
        let database = &self.settings.database;
        if !looks.is_registered {
            self.register().await?;
            looks.is_registered = true;
        }
        let now = Instant::now();
        let now_ms = clock::machine_now_ms();
        if has_passed(looks.renewed, RENEW_EVERY) {
            lease::renew(database, &self.owner, now_ms).await?;
            looks.renewed = Some(now);
            for until in self.held().values_mut() {
                *until = now + LOST_AFTER;
            }
        }
        let names = self.lease_names();
        for row in lease::leases(database.pool()).await? {
            let Some(&is_local) = names.get(row.name.as_str()) else {
                continue;
            };
            let is_known = self.held().contains_key(&row.name);
            if row.owner == self.owner.name {
                self.elsewhere().remove(&row.name);
                if !is_known {
                    self.adopt(&row.name, now).await?;
                }
                continue;
            }
            if is_known {
                self.held().remove(&row.name);
                if !is_local {
                    warn!(
                        lease = row.name,
                        owner = row.owner,
                        "another process has taken over jobs of this one"
                    );
                }
            }
            match row.owner.is_empty() {
                true => self.elsewhere().remove(&row.name),
                false => self.elsewhere().insert(row.name.clone()),
            };
            // Its own is no matter of taking turns: it says which process works on the folder.
            if (is_local || looks.leases.may_take(&row, now_ms, Instant::now())) && self.take(&row, now_ms).await? {
                self.announce(&row);
                self.adopt(&row.name, now).await?;
            }
        }
        for listed in store::list(database.pool()).await? {
            let slot = self.slots.iter().find(|slot| slot.name == listed.name);
            let Some(slot) = slot else { continue };
            let mut state = slot.state();
            if state.stored.instance == listed.instance && state.requested != listed.requested {
                state.requested = listed.requested;
                slot.wake.notify_one();
            }
        }
        Ok(())
    }

    /// Takes a lease; true where nobody was faster. From then on the list says which of its jobs this process has: those that it has
    /// not, or that are switched off in it, nobody waits for.
    async fn take(&self, row: &Lease, now_ms: i64) -> Result<bool, JobError> {
        let mut transaction = self.settings.database.begin_write().await?;
        if lease::take(&mut *transaction, row, &self.owner, now_ms)
            .await?
            .is_none()
        {
            return Ok(false);
        }
        for slot in self.slots.iter().filter(|slot| slot.lease == row.name) {
            let instance = slot.state().stored.instance.clone();
            store::announce(&mut transaction, slot.name, &instance, &self.owner.name).await?;
        }
        for off in self.off.iter().filter(|off| off.lease == row.name) {
            store::switch_off(&mut transaction, off.job.name(), off.why).await?;
        }
        transaction.commit().await?;
        Ok(true)
    }

    fn announce(&self, row: &Lease) {
        if row.owner.is_empty() {
            debug!(lease = row.name, "this process runs these jobs");
        } else if !self.slots.iter().any(|slot| slot.is_local && slot.lease == row.name) {
            info!(
                lease = row.name,
                before = row.owner,
                "jobs taken over from a process that does not answer"
            );
        }
    }

    /// Makes the jobs and their leases known.
    async fn register(&self) -> Result<(), JobError> {
        let now_ms = clock::machine_now_ms();
        let mut transaction = self.settings.database.begin_write().await?;
        for slot in &self.slots {
            lease::add(&mut *transaction, &slot.lease).await?;
            let (instance, schedule) = (slot.state().stored.instance.clone(), slot.job.schedule().words());
            let job = store::Registration {
                name: slot.name,
                instance: &instance,
                lease: &slot.lease,
                description: slot.job.description(),
                schedule: &schedule,
                waits_for: &slot.waits_for(),
            };
            store::register(&mut transaction, job, now_ms).await?;
        }
        let leases = lease::leases(&mut *transaction).await?;
        for off in &self.off {
            let (name, schedule) = (off.job.name(), off.job.schedule().words());
            let job = store::Registration {
                name,
                instance: "",
                lease: &off.lease,
                description: off.job.description(),
                schedule: &schedule,
                waits_for: &waits_for(off.job.as_ref()),
            };
            store::register(&mut transaction, job, now_ms).await?;
            // Who has the lease, or takes it, says whether it is on. One of its own is taken by nobody who has switched the job off.
            let is_held = leases
                .iter()
                .any(|lease| lease.name == off.lease && lease.is_held(now_ms));
            if !is_held && !self.slots.iter().any(|slot| slot.lease == off.lease) {
                store::switch_off(&mut transaction, name, off.why).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Goes on with the jobs of a lease that this process has taken.
    async fn adopt(&self, name: &str, since: Instant) -> Result<(), JobError> {
        let database = &self.settings.database;
        let listed = store::list(database.pool()).await?;
        let mut transaction = database.begin_write().await?;
        for slot in self.slots.iter().filter(|slot| slot.lease == name) {
            let instance = slot.state().stored.instance.clone();
            if let Some(row) = listed
                .iter()
                .find(|row| row.name == slot.name && row.instance == instance)
            {
                slot.take_over(row, &self.settings.clock);
            }
            let now_ms = clock::machine_now_ms();
            let abandoned = history::abandon(&mut transaction, slot.name, &instance, &self.owner.name, now_ms).await?;
            if abandoned > 0 {
                warn!(job = slot.name, runs = abandoned, "a process ended while it ran a job");
            }
        }
        transaction.commit().await?;
        self.held().insert(name.to_owned(), since + LOST_AFTER);
        for slot in self.slots.iter().filter(|slot| slot.lease == name) {
            slot.wake.notify_one();
        }
        Ok(())
    }

    /// Writes what is left and gives the leases back.
    pub(super) async fn leave(&self) {
        for slot in &self.slots {
            let is_to_be_written = slot.state().is_to_be_written(true);
            if is_to_be_written && let Err(error) = self.write(slot).await {
                warn!(
                    job = slot.name,
                    error = causes(error.as_ref()),
                    "the last of a job was not recorded"
                );
            }
        }
        self.held().clear();
        if let Err(error) = lease::release(&self.settings.database, &self.owner).await {
            warn!(%error, "leases were not released: others wait until they expire");
        }
    }
}
