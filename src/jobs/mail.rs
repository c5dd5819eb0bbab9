//! The mail that is due, sent. Every process does: a delivery is claimed before it is made, so that two never make the same.

use std::sync::Arc;

use activity::job::{Context, Done, Job, RunError, Schedule, Scope};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::event::Run;

use super::books::Books;
use super::sent;

pub(super) struct Mail {
    books: Arc<Books>,
}

impl Mail {
    pub(super) fn new(books: &Arc<Books>) -> Mail {
        Mail {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for Mail {
    fn name(&self) -> &'static str {
        "mail"
    }

    fn description(&self) -> &'static str {
        "Sends the mail that is due"
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
        let delivered = outbox.deliver_mail(&self.books.database, delivery).await;
        Ok(sent(delivered.context("events could not be told")?, "mails"))
    }
}
