//! Which service an address or interface belongs to: handed to the collector when it changes, and applied to stored flows where it
//! was said of the past.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Job, RunError, RunReport, Schedule, Scope};
use analytics::Analytics;
use analytics::rewrite::{RewriteProgress, RewriteSummary};
use anyhow::Context as _;
use async_trait::async_trait;
use schemas::address::Address;
use schemas::db::Database;
use schemas::interfaces::KnownInterfaces;
use schemas::inventory::{self, CorrectionRow};
use schemas::metering::{ExporterConfig, MeteringConfig};
use schemas::window::DAY_MS;
use tables::metering::Enricher;
use tokio::sync::{Mutex, watch};
use tracing::{error, info};

use super::site::Site;
use crate::options::{load_assignments, load_metering, now_ms};

const PERIOD: Duration = Duration::from_secs(5);
/// How far back flows are judged again when the interfaces they crossed get their first names.
const UNNAMED_LOOKBACK_MS: i64 = 7 * DAY_MS;

/// What the collector attributes by: a revision of the assignments, and how often the configuration had been reloaded.
type AttributionVersion = (i64, u64);

pub(super) struct Assignments {
    site: Arc<Site>,
    state: Mutex<State>,
}

struct State {
    known: Option<AttributionVersion>,
    interfaces: watch::Receiver<Arc<KnownInterfaces>>,
}

impl Assignments {
    pub(super) fn new(site: &Arc<Site>) -> Assignments {
        Assignments {
            state: Mutex::new(State {
                known: Some((site.started.assignments_revision, site.reloads())),
                interfaces: site.started.interfaces.clone(),
            }),
            site: Arc::clone(site),
        }
    }

    /// Takes over what the exporters now say of their interfaces. Flows that came before an exporter's interfaces had names were
    /// on neither side of its boundary and not metered: where the boundary is told by name they are judged again.
    async fn follow_interfaces(&self, state: &mut State) -> anyhow::Result<()> {
        let site = &self.site;
        let interfaces = state.interfaces.borrow_and_update().clone();
        let (before, config) = {
            let mut config = site.metered.config();
            let before = std::mem::replace(&mut config.interfaces, interfaces);
            (before, config.clone())
        };
        let metering = load_metering(&config, &site.database).await?;
        site.started.metering.send_replace(Arc::new(metering.clone()));
        state.known = None;
        let became_known: HashSet<Address> = metering
            .interfaces
            .iter()
            .filter(|(exporter, port, interfaces)| {
                let by_name = metering
                    .exporter(*exporter, *port)
                    .is_some_and(ExporterConfig::judges_by_name);
                let old = before.of(*exporter, *port);
                by_name
                    && interfaces
                        .keys()
                        .any(|if_index| !old.is_some_and(|old| old.contains_key(if_index)))
            })
            .map(|(exporter, _, _)| exporter)
            .collect();
        if !became_known.is_empty() {
            let now_ms = schemas::clock::machine_now_ms();
            let enricher = Arc::new(Enricher::new(&metering, load_assignments(&site.database).await?));
            let summary = site
                .metered
                .analytics
                .judge_unknown_sides(&enricher, became_known, now_ms - UNNAMED_LOOKBACK_MS)
                .await?;
            info!(
                flows = summary.flows_changed,
                "interfaces have names now: flows that waited for them were judged again"
            );
        }
        Ok(())
    }

    /// Hands changed assignments to the collector and applies backdated ones to stored flows.
    async fn follow(&self, state: &mut State) -> anyhow::Result<RunReport> {
        let site = &self.site;
        // Asked before the rows: what changes between the two is read again at the next look.
        let revision = inventory::assignments_revision(site.database.pool()).await?;
        let wanted = (revision, site.reloads());
        let config = site.metered.config().clone();
        let metering = load_metering(&config, &site.database).await?;
        let is_new = state.known != Some(wanted);
        if is_new {
            let assignments = load_assignments(&site.database).await?;
            site.collector.set_metering(metering.clone(), assignments);
            state.known = Some(wanted);
        }
        let applied = apply_backdated(&site.database, &site.metered.analytics, &metering).await?;
        Ok(match (is_new, applied) {
            (false, 0) => RunReport::Nothing,
            (_, 0) => RunReport::Summary("the collector attributes by the current assignments".to_owned()),
            (_, applied) => RunReport::Summary(format!("{applied} changes of the past applied to stored flows")),
        })
    }
}

#[async_trait]
impl Job for Assignments {
    fn name(&self) -> &'static str {
        "assignments"
    }

    fn description(&self) -> &'static str {
        "Hands changed assignments to the collector and applies backdated ones and corrections to stored flows"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(PERIOD)
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    async fn woken(&self) {
        self.site.reloaded.notified().await;
    }

    async fn run(&self, _run: &Context) -> Result<RunReport, RunError> {
        let mut state = self.state.lock().await;
        let named = match state.interfaces.has_changed().unwrap_or(false) {
            true => self.follow_interfaces(&mut state).await,
            false => Ok(()),
        };
        // What they say now is in force either way; assignments are not kept waiting.
        if let Err(error) = named {
            error!(
                error = format!("{error:#}"),
                "stored flows could not be judged by the names of their interfaces"
            );
        }
        Ok(self
            .follow(&mut state)
            .await
            .context("assignments could not be applied")?)
    }
}

/// Brings stored flows up to what was said about the past: corrections of exporters that were not finished, and every
/// assignment that was changed in the past; the answer is how many of these there were. `metering` holds all corrections.
pub(crate) async fn apply_backdated(
    database: &Database,
    analytics: &Analytics,
    metering: &MeteringConfig,
) -> anyhow::Result<u64> {
    let mut applied = 0;
    for row in inventory::pending_corrections(database.pool()).await? {
        let summary = apply_correction(database, analytics, metering, &row, |_| {}).await?;
        applied += 1;
        info!(
            correction = %row.id,
            exporter = %row.correction.exporter,
            files = summary.files_rewritten,
            flows = summary.flows_changed,
            "stored flows corrected"
        );
    }
    let pending = inventory::pending_attribution_changes(database.pool()).await?;
    if pending.is_empty() {
        return Ok(applied);
    }
    // Asked before the rows.
    let revision = inventory::assignments_revision(database.pool()).await?;
    let enricher = Arc::new(Enricher::new(metering, load_assignments(database).await?));
    for change in pending {
        let to_ms = change.to_ms.unwrap_or(i64::MAX);
        let summary = analytics.reattribute(&enricher, change.from_ms, to_ms).await?;
        // Another process may have applied what was said meanwhile, and this one has now written over it by what held before:
        // the change stays pending, and the next look applies it by everything that was said.
        if !is_all_that_was_said(database, revision, metering).await? {
            info!("assignments were changed while stored flows were re-attributed: they are re-attributed again");
            return Ok(applied);
        }
        let now_ms = now_ms(database).await?;
        inventory::mark_attribution_change_applied(database.pool(), change.id, now_ms).await?;
        applied += 1;
        info!(
            from_ms = change.from_ms,
            files = summary.files_rewritten,
            "stored flows re-attributed"
        );
    }
    Ok(applied)
}

/// Whether assignments and corrections are what they were when the flows were judged by them.
async fn is_all_that_was_said(database: &Database, revision: i64, metering: &MeteringConfig) -> anyhow::Result<bool> {
    let corrections = inventory::corrections(database.pool()).await?;
    let found = inventory::assignments_revision(database.pool()).await?;
    Ok(found == revision && corrections.len() == metering.corrections.len())
}

/// Writes a correction into the stored flows and notes that they show it.
pub(crate) async fn apply_correction(
    database: &Database,
    analytics: &Analytics,
    metering: &MeteringConfig,
    row: &CorrectionRow,
    progress: impl Fn(RewriteProgress) + Send + Sync,
) -> anyhow::Result<RewriteSummary> {
    let enricher = Arc::new(Enricher::new(metering, load_assignments(database).await?));
    let effect = analytics.apply_correction(&row.correction, &enricher, progress).await?;
    let written = (effect.summary.files_rewritten, effect.summary.flows_changed);
    inventory::mark_correction_applied(database.pool(), row.id, written, schemas::clock::machine_now_ms()).await?;
    Ok(effect.summary)
}
