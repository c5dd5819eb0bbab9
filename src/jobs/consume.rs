//! New events, handled by one consumer. It goes on while billing is stopped, and tells of that. A consumer that lags delays no
//! other: each has a job of its own.

use std::sync::Arc;

use activity::event::Consumer;
use activity::job::{Context, Job, RunError, RunReport, Schedule};
use anyhow::Context as _;
use async_trait::async_trait;

use super::books::Books;
use crate::output::count;

pub(super) struct Consume {
    books: Arc<Books>,
    consumer: &'static dyn Consumer,
}

impl Consume {
    pub(super) fn new(books: &Arc<Books>, consumer: &'static dyn Consumer) -> Consume {
        Consume {
            books: Arc::clone(books),
            consumer,
        }
    }
}

#[async_trait]
impl Job for Consume {
    fn name(&self) -> &'static str {
        self.consumer.name()
    }

    fn description(&self) -> &'static str {
        self.consumer.description()
    }

    fn schedule(&self) -> Schedule {
        self.books.outbox_schedule()
    }

    async fn run(&self, _run: &Context) -> Result<RunReport, RunError> {
        let (outbox, now_ms) = (&self.books.outbox, self.books.clock.now_ms());
        let handled = outbox
            .consume(&self.books.database, self.consumer, now_ms)
            .await
            .context("events could not be dispatched")?;
        Ok(RunReport::counted(handled.written, || {
            format!(
                "{} for {}",
                count(handled.written, self.consumer.noun()),
                count(handled.events, "event")
            )
        }))
    }
}
