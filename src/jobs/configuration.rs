//! The configuration file, followed: when it changes, and on SIGHUP.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use activity::job::{Context, Done, Job, RunError, Schedule, Scope};
use anyhow::Context as _;
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::signal::unix::Signal;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::site::Site;
use crate::config::Config;
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(5);

/// Takes over what a changed file says of metering. A file that changed since the last look may be half written, and half a file
/// can be a valid one: it is read once it is as it was at the look before.
pub(super) struct Configuration {
    site: Arc<Site>,
    hangup: Mutex<Option<Signal>>,
    /// SIGHUP came: it is read whether it changed or not.
    is_asked_for: AtomicBool,
    seen: Mutex<Seen>,
}

/// When the file was changed.
struct Seen {
    taken: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Configuration {
    pub(super) fn new(site: &Arc<Site>, hangup: Option<Signal>) -> Configuration {
        let modified = modified(site);
        Configuration {
            site: Arc::clone(site),
            hangup: Mutex::new(hangup),
            is_asked_for: AtomicBool::new(false),
            seen: Mutex::new(Seen {
                taken: modified,
                last: modified,
            }),
        }
    }

    /// Takes the metering part of a changed file; a file with mistakes changes nothing.
    fn reload(&self) -> anyhow::Result<Done> {
        let Some(path) = &self.site.started.config_path else {
            return Ok(Done::Nothing);
        };
        let config = Config::read(path).context("the changed configuration is not used")?;
        self.say_what_needs_a_restart(&config);
        let exporters = config.exporters.len();
        let metering = {
            let mut current = self.site.metered.config();
            current.own_networks = config.own_networks;
            current.metering = config.metering;
            current.exporters = config.exporters;
            current.retention = config.retention;
            current.billing.correction_reach_days = config.billing.correction_reach_days;
            current.collector.allowed_exporters = config.collector.allowed_exporters;
            current.collector.default_sampling_rate = config.collector.default_sampling_rate;
            current.collector.v5_sampling_mode_bits = config.collector.v5_sampling_mode_bits;
            current.metering()
        };
        self.site.started.metering.send_replace(Arc::new(metering));
        self.site.note_reload();
        info!(path = %path.display(), exporters, "configuration reloaded");
        Ok(Done::Did(format!("reloaded, with {}", count(exporters, "exporter"))))
    }

    /// A changed setting that a running process cannot take over is named: otherwise it looks as if it were in force.
    fn say_what_needs_a_restart(&self, new: &Config) {
        let Some(started_with) = &self.site.started.config else {
            return;
        };
        for change in started_with.changes_that_need_a_restart(new) {
            warn!("{change}");
        }
    }
}

fn modified(site: &Site) -> Option<Timestamp> {
    let modified = std::fs::metadata(site.started.config_path.as_ref()?)
        .and_then(|metadata| metadata.modified())
        .ok()?;
    Timestamp::try_from(modified).ok()
}

#[async_trait]
impl Job for Configuration {
    fn name(&self) -> &'static str {
        "configuration"
    }

    fn description(&self) -> &'static str {
        "Reloads the configuration file when it changes, and on SIGHUP"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(PERIOD)
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    async fn woken(&self) {
        match self.hangup.lock().await.as_mut() {
            Some(signal) => {
                signal.recv().await;
                self.is_asked_for.store(true, Ordering::SeqCst);
            }
            None => std::future::pending().await,
        }
    }

    async fn run(&self, _run: &Context) -> Result<Done, RunError> {
        let mut seen = self.seen.lock().await;
        let modified = modified(&self.site);
        let is_settled = std::mem::replace(&mut seen.last, modified) == modified;
        let is_asked_for = self.is_asked_for.swap(false, Ordering::SeqCst);
        if !is_asked_for && (!is_settled || modified == seen.taken) {
            return Ok(Done::Nothing);
        }
        seen.taken = modified;
        Ok(self.reload()?)
    }
}
