//! The configuration file, followed: when it changes, and on SIGHUP.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use activity::job::{Context, Job, RunError, RunReport, Schedule, Scope};
use anyhow::Context as _;
use async_trait::async_trait;
use tokio::signal::unix::Signal;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::config_file::ConfigFile;
use super::site::Site;
use crate::config::Config;
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(5);

/// Takes over what a changed file says of metering. A file with mistakes changes nothing, and the job fails until it is mended.
pub(super) struct Configuration {
    site: Arc<Site>,
    hangup: Mutex<Option<Signal>>,
    /// SIGHUP came: it is read whether it changed or not.
    is_asked_for: AtomicBool,
    file: Mutex<ConfigFile>,
}

impl Configuration {
    pub(super) fn new(site: &Arc<Site>, hangup: Option<Signal>) -> Configuration {
        Configuration {
            site: Arc::clone(site),
            hangup: Mutex::new(hangup),
            is_asked_for: AtomicBool::new(false),
            file: Mutex::new(ConfigFile::new(site.started.config_path.clone())),
        }
    }

    /// Takes the metering part of a changed file.
    fn take(&self, config: Config) -> RunReport {
        self.log_settings_needing_restart(&config);
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
        let path = self.site.started.config_path.as_deref().unwrap_or(Path::new(""));
        info!(path = %path.display(), exporters, "configuration reloaded");
        RunReport::Summary(format!("reloaded, with {}", count(exporters, "exporter")))
    }

    /// A changed setting that a running process cannot take over is named: otherwise it looks as if it were in force.
    fn log_settings_needing_restart(&self, new: &Config) {
        let Some(started_with) = &self.site.started.config else {
            return;
        };
        for change in started_with.changes_that_need_a_restart(new) {
            warn!("{change}");
        }
    }
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

    async fn run(&self, _run: &Context) -> Result<RunReport, RunError> {
        let mut file = self.file.lock().await;
        let is_asked_for = self.is_asked_for.swap(false, Ordering::SeqCst);
        let Some(read) = file.read_changed(is_asked_for) else {
            return Ok(RunReport::Nothing);
        };
        let done = self.take(read.context("the changed configuration is not used")?);
        file.take();
        Ok(done)
    }
}
