//! What is due over a channel, sent. Every process does: a delivery is claimed before it is made, so that two never make the same.

use std::sync::Arc;

use activity::channel::{Channel, DeliveryRun, Sending};
use activity::job::{Context, Job, RunError, RunReport, Schedule, Scope};
use anyhow::Context as _;
use async_trait::async_trait;

use super::books::Books;

pub(super) struct SendDue {
    books: Arc<Books>,
    channel: &'static dyn Channel,
    sending: Sending,
}

impl SendDue {
    pub(super) fn new(books: &Arc<Books>, channel: &'static dyn Channel, sending: Sending) -> SendDue {
        SendDue {
            books: Arc::clone(books),
            channel,
            sending,
        }
    }
}

#[async_trait]
impl Job for SendDue {
    fn name(&self) -> &'static str {
        self.sending.job
    }

    fn description(&self) -> &'static str {
        match self.sending.job {
            "mail" => "Sends the mails that are due",
            "webhooks" => "Makes the webhook calls that are due",
            "discord" => "Sends the Discord posts that are due",
            _ => "Sends the deliveries of a channel that are due",
        }
    }

    fn schedule(&self) -> Schedule {
        self.books.outbox_schedule()
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    async fn run(&self, run: &Context) -> Result<RunReport, RunError> {
        let now_ms = || self.books.clock.now_ms();
        let is_stopping = || run.is_stopping();
        let delivery = DeliveryRun {
            now_ms: &now_ms,
            is_stopping: &is_stopping,
        };
        let outbox = &self.books.outbox;
        let delivered = outbox
            .deliver(&self.books.database, self.channel, delivery)
            .await
            .context("events could not be dispatched")?;
        let (sent, postponed, failed) = (delivered.sent, delivered.postponed, delivered.failed);
        Ok(RunReport::counted(sent + postponed + failed, || {
            format!("{sent} sent, {postponed} to retry, {failed} failed")
        }))
    }
}
