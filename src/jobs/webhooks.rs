//! The webhook requests that are due, sent. Every process does: a delivery is claimed before it is made, so that two never make the same.

use std::sync::Arc;

use activity::job::{Context, Done, Job, RunError, Schedule, Scope};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::event::Run;

use super::books::Books;
use super::sent;

pub(super) struct Webhooks {
    books: Arc<Books>,
}

impl Webhooks {
    pub(super) fn new(books: &Arc<Books>) -> Webhooks {
        Webhooks {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for Webhooks {
    fn name(&self) -> &'static str {
        "webhooks"
    }

    fn description(&self) -> &'static str {
        "Sends the webhook requests that are due"
    }

    fn schedule(&self) -> Schedule {
        self.books.outbox_schedule()
    }

    fn scope(&self) -> Scope {
        Scope::Local
    }

    async fn run(&self, run: &Context) -> Result<Done, RunError> {
        let now_ms = || self.books.clock.now_ms();
        let is_stopping = || run.is_stopping();
        let delivery = Run {
            now_ms: &now_ms,
            is_stopping: &is_stopping,
        };
        let outbox = &self.books.outbox;
        let delivered = outbox.deliver_webhooks(&self.books.database, delivery).await;
        Ok(sent(delivered.context("events could not be told")?, "requests"))
    }
}
