//! Deliveries of new events, and what the portal shows of them. It goes on while billing is stopped, and tells of that.

use std::sync::Arc;

use activity::job::{Context, Done, Job, RunError, Schedule};
use anyhow::Context as _;
use async_trait::async_trait;

use super::books::Books;

pub(super) struct Events {
    books: Arc<Books>,
}

impl Events {
    pub(super) fn new(books: &Arc<Books>) -> Events {
        Events {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for Events {
    fn name(&self) -> &'static str {
        "events"
    }

    fn description(&self) -> &'static str {
        "Makes deliveries and notifications of new events"
    }

    fn schedule(&self) -> Schedule {
        self.books.outbox_schedule()
    }

    async fn run(&self, _run: &Context) -> Result<Done, RunError> {
        let dispatched = self
            .books
            .outbox
            .dispatch(&self.books.database, self.books.clock.now_ms())
            .await
            .context("events could not be told")?;
        Ok(Done::counted(dispatched.events, || {
            format!(
                "{} events: {} mails, {} webhooks, {} notifications",
                dispatched.events, dispatched.mails, dispatched.webhooks, dispatched.notifications
            )
        }))
    }
}
