//! What reacts to events and tells of them in the background, in `serve` and `demo`.
//!
//! ```text
//! every 5 s     dispatch_mail, dispatch_webhooks, …    new events            → what each consumer writes, such as deliveries
//! every 5 s     mail, webhooks, discord                deliveries that are due → the mail server, endpoints
//! ```
//!
//! Each is a task of its own: a consumer that lags delays no other, no mail waits for an endpoint, and none waits for billing.
//! With a test clock, which stands still, they look every second. What fails is logged and tried again. All of it goes on while
//! billing is stopped, and tells of that.

use std::time::Duration;

use activity::channel::{CHANNELS, Channel, Run};
use activity::event::Consumer;
use futures::future::join_all;
use schemas::clock::Clock;
use schemas::db::Database;
use schemas::job::JobBoard;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::outbox::{self, Outbox};

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

#[derive(Clone, Copy, Debug)]
enum Job {
    /// Has a consumer handle new events.
    Consume(&'static dyn Consumer),
    /// Sends what is due over a channel.
    Send(&'static dyn Channel, &'static str),
}

impl Job {
    fn all() -> Vec<Job> {
        let consuming = outbox::consumers().into_iter().map(Job::Consume);
        let sending = CHANNELS.into_iter().filter_map(|channel| {
            let sending = channel.sending()?;
            Some(Job::Send(channel, sending.job))
        });
        consuming.chain(sending).collect()
    }

    /// As the board and metrics name it, and its task.
    fn name(self) -> &'static str {
        match self {
            Job::Consume(consumer) => consumer.name(),
            Job::Send(_, name) => name,
        }
    }
}

impl OutboxJobs {
    /// Runs until cancelled; then what is under way ends.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let jobs = Job::all();
        for job in &jobs {
            self.board.add(job.name(), job.name(), INTERVAL);
        }
        join_all(jobs.into_iter().map(|job| self.repeat(job, &stop))).await;
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
            Job::Consume(consumer) => self.outbox.consume(&self.database, consumer, now_ms()).await,
            Job::Send(channel, _) => self.outbox.deliver(&self.database, channel, run).await,
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
