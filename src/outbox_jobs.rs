//! What tells people and programs of events in the background, in `serve` and `demo`.
//!
//! ```text
//! every 5 s     events    new events          → their deliveries, and what the portal shows
//! every 5 s     mail      mail that is due    → the mail server
//! every 5 s     webhooks  requests that are due → endpoints
//! ```
//!
//! Each is a task of its own: no mail waits for an endpoint, and neither waits for billing. With a test clock, which stands
//! still, they look every second. What fails is logged and tried again. All of it goes on while billing is stopped, and tells
//! of that.

use std::time::Duration;

use activity::event::Run;
use schemas::clock::Clock;
use schemas::db::Database;
use schemas::job::JobBoard;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::outbox::Outbox;

/// How long a task waits before it looks again.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same with a test clock.
const TEST_INTERVAL: Duration = Duration::from_secs(1);

/// What the tasks work on. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct OutboxJobs {
    pub(crate) board: JobBoard,
    pub(crate) database: Database,
    pub(crate) clock: Clock,
    pub(crate) outbox: Outbox,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    Events,
    Mail,
    Webhooks,
}

impl Job {
    /// As the board and metrics name it, and its task.
    fn name(self) -> &'static str {
        match self {
            Job::Events => "events",
            Job::Mail => "mail",
            Job::Webhooks => "webhooks",
        }
    }
}

impl OutboxJobs {
    /// Runs until cancelled; then what is under way ends.
    pub(crate) async fn run(self, stop: CancellationToken) {
        for job in [Job::Events, Job::Mail, Job::Webhooks] {
            self.board.add(job.name(), job.name(), INTERVAL);
        }
        tokio::join!(
            self.repeat(Job::Events, &stop),
            self.repeat(Job::Mail, &stop),
            self.repeat(Job::Webhooks, &stop),
        );
    }

    async fn repeat(&self, job: Job, stop: &CancellationToken) {
        let interval = if self.clock.is_test() { TEST_INTERVAL } else { INTERVAL };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            self.board.run(job.name(), self.run_one(job, stop)).await;
        }
    }

    /// Does one thing once; true when it succeeded.
    async fn run_one(&self, job: Job, stop: &CancellationToken) -> bool {
        let now_ms = || self.clock.now_ms();
        let is_stopping = || stop.is_cancelled();
        let run = Run {
            now_ms: &now_ms,
            is_stopping: &is_stopping,
        };
        let result = match job {
            Job::Events => self.outbox.dispatch(&self.database, now_ms()).await,
            Job::Mail => self.outbox.deliver_mail(&self.database, run).await,
            Job::Webhooks => self.outbox.deliver_webhooks(&self.database, run).await,
        };
        if let Err(error) = &result {
            error!(
                job = job.name(),
                error = format!("{error:#}"),
                "events could not be told"
            );
        }
        result.is_ok()
    }
}
