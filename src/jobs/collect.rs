//! What is owed, collected; credit, topped up.

use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Hold, Job, JobDependency, RunError, RunReport, Schedule, Scope, Timing};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::{dunning, top_up};
use tokio::sync::Mutex;
use tracing::error;

use super::books::{Books, LEASE, log_failed};
use super::config_file::ConfigFile;
use crate::commands::serve::store_terms;

const PERIOD: Duration = Duration::from_secs(60);
/// An invoice that is being made is collected a minute later.
const AFTER: [JobDependency; 1] = [JobDependency::at_most("close", Duration::from_secs(60))];

pub(super) struct Collect {
    books: Arc<Books>,
    /// Its terms of collection hold from when it is seen to have changed.
    terms: Mutex<ConfigFile>,
}

impl Collect {
    pub(super) fn new(books: &Arc<Books>) -> Collect {
        Collect {
            terms: Mutex::new(ConfigFile::new(books.config_path.clone())),
            books: Arc::clone(books),
        }
    }

    /// Takes over the terms of collection, and how long records are kept, of a configuration that has changed.
    async fn follow_terms(&self, now_ms: i64) {
        let mut file = self.terms.lock().await;
        let taken = match file.read_changed(false) {
            None => return,
            Some(Ok(config)) => {
                self.books.set_keep(config.retention.records);
                store_terms(&config, &self.books.database, now_ms).await
            }
            Some(Err(error)) => Err(error),
        };
        match taken {
            Ok(()) => file.take(),
            Err(error) => error!(
                error = format!("{error:#}"),
                "the terms of collection of the changed configuration are not used"
            ),
        }
    }

    /// Collects unpaid invoices; the answer is what it did.
    async fn collect(&self, now_ms: i64) -> anyhow::Result<Vec<String>> {
        let charger = self.books.charger();
        let collected = dunning::run(&self.books.database, &charger, now_ms)
            .await
            .context("unpaid invoices could not be collected")?;
        let failed = log_failed(collected.failed, "an invoice could not be collected")
            + log_failed(collected.claims_failed, "negative credit could not be collected")
            + log_failed(collected.stuck, "a subscription does not follow its invoices");
        Ok(counts([
            (collected.charged.len() as u64, "charged"),
            (collected.from_credit.len() as u64, "paid from credit"),
            (collected.overdue.len() as u64, "overdue"),
            (collected.suspended.len() as u64, "suspended"),
            (collected.terminated.len() as u64, "ended for unpaid invoices"),
            (collected.recovered.len() as u64, "recovered"),
            (collected.reminders, "reminders"),
            (failed, "errors"),
        ]))
    }

    /// Tops credit up; the answer is what it did.
    async fn top_up(&self, now_ms: i64) -> anyhow::Result<Vec<String>> {
        let charger = self.books.charger();
        let checked = top_up::check_all(&self.books.database, &charger, now_ms)
            .await
            .context("credit could not be topped up")?;
        let failed = log_failed(checked.failed, "credit could not be topped up");
        Ok(counts([
            (checked.charged.len() as u64, "top-ups"),
            (failed, "errors in top-ups"),
        ]))
    }
}

/// Those that are not zero, in words.
fn counts<const N: usize>(counts: [(u64, &str); N]) -> Vec<String> {
    let some = counts.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, what)| format!("{count} {what}")).collect()
}

#[async_trait]
impl Job for Collect {
    fn name(&self) -> &'static str {
        "collect"
    }

    fn description(&self) -> &'static str {
        "Charges unpaid invoices, marks them overdue, suspends and recovers services; tops credit up"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(PERIOD).first_after(self.books.first_delay())
    }

    fn scope(&self) -> Scope {
        Scope::Group(LEASE)
    }

    fn timing(&self) -> Timing {
        Timing::Books
    }

    fn after(&self) -> &'static [JobDependency] {
        &AFTER
    }

    async fn hold(&self, now_ms: i64) -> Hold {
        self.books.hold(now_ms).await
    }

    async fn run(&self, run: &Context) -> Result<RunReport, RunError> {
        self.follow_terms(run.now_ms).await;
        // Credit is topped up whatever became of the invoices.
        let collected = self.collect(run.now_ms).await;
        let topped_up = self.top_up(run.now_ms).await;
        let done = [collected?, topped_up?].concat();
        Ok(RunReport::counted(done.len() as u64, || done.join(", ")))
    }
}
