//! Customers' VAT numbers, asked for at VIES: an answer may take long.

use std::sync::Arc;
use std::time::Duration;

use activity::job::{Context, Job, OnStop, RunError, RunReport, Schedule};
use anyhow::Context as _;
use async_trait::async_trait;
use billing::vat;

use super::TEST_PERIOD;
use super::books::Books;
use crate::output::count;

const PERIOD: Duration = Duration::from_secs(30);

pub(super) struct VatNumbers {
    books: Arc<Books>,
}

impl VatNumbers {
    pub(super) fn new(books: &Arc<Books>) -> VatNumbers {
        VatNumbers {
            books: Arc::clone(books),
        }
    }
}

#[async_trait]
impl Job for VatNumbers {
    fn name(&self) -> &'static str {
        "vat_numbers"
    }

    fn description(&self) -> &'static str {
        "Asks VIES whether customers' VAT numbers were given out"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(match self.books.clock.is_test() {
            true => TEST_PERIOD,
            false => PERIOD,
        })
    }

    fn switched_off(&self) -> Option<&'static str> {
        let is_off = self.books.register.is_none();
        is_off.then_some("[vies] enabled = false; with enabled = true VIES is asked")
    }

    /// What is asked for at that moment is asked for again after the next start.
    fn on_stop(&self) -> OnStop {
        OnStop::GiveUp
    }

    async fn run(&self, _run: &Context) -> Result<RunReport, RunError> {
        let now_ms = self.books.clock.now_ms();
        let Some(register) = &self.books.register else {
            return Ok(RunReport::Nothing);
        };
        let answered = vat::ask_due(&self.books.database, register.as_ref(), now_ms)
            .await
            .context("VAT numbers could not be checked")?;
        Ok(RunReport::counted(answered, || {
            format!("{} checked", count(answered, "VAT number"))
        }))
    }
}
