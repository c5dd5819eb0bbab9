//! What exporters say of their interfaces in options data, handed over to whoever keeps it.

use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Job, RunError, RunReport, Schedule, Scope};
use async_trait::async_trait;

use super::site::Site;

const PERIOD: Duration = Duration::from_secs(5);

pub(super) struct InterfaceNames {
    site: Arc<Site>,
}

impl InterfaceNames {
    pub(super) fn new(site: &Arc<Site>) -> InterfaceNames {
        InterfaceNames { site: Arc::clone(site) }
    }
}

#[async_trait]
impl Job for InterfaceNames {
    fn name(&self) -> &'static str {
        "interface_names"
    }

    fn description(&self) -> &'static str {
        "Keeps the names of interfaces that exporters send with their flows"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(PERIOD)
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    async fn run(&self, _run: &Context) -> Result<RunReport, RunError> {
        let told = self.site.collector.take_interfaces();
        let interfaces = told.len();
        if interfaces > 0 && self.site.started.told.try_send(told).is_err() {
            return Err("names of interfaces in options data are not kept now: exporters will repeat them".into());
        }
        // Exporters repeat them: that they were heard again is no news.
        Ok(RunReport::Nothing)
    }
}
