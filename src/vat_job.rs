//! Asks VIES for customers' VAT numbers in the background, beside the billing task: an answer may take long.

use std::sync::Arc;
use std::time::Duration;

use billing::vat::{self, VatRegister};
use schemas::clock::Clock;
use schemas::db::Database;
use schemas::job::JobBoard;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// How often it looks for numbers that are due.
const INTERVAL: Duration = Duration::from_secs(30);
/// The same with a test clock, which may be set at any time.
const TEST_INTERVAL: Duration = Duration::from_secs(1);

pub(crate) struct VatJob {
    pub(crate) database: Database,
    pub(crate) register: Arc<dyn VatRegister>,
    pub(crate) clock: Clock,
    pub(crate) board: JobBoard,
}

/// As the board names it; it is a task of its own.
const JOB: &str = "vat_numbers";

impl VatJob {
    /// Runs until cancelled; what is asked for at that moment is asked for again after the next start.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let interval = if self.clock.is_test() { TEST_INTERVAL } else { INTERVAL };
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.board.add(JOB, JOB, interval);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let ask = async {
                match vat::ask_due(&self.database, self.register.as_ref(), self.clock.now_ms()).await {
                    Ok(0) => true,
                    Ok(answered) => {
                        info!(answered, "VAT numbers asked for");
                        true
                    }
                    Err(error) => {
                        error!(
                            error = format!("{:#}", anyhow::Error::from(error)),
                            "VAT numbers could not be asked for"
                        );
                        false
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                _ = self.board.run(JOB, ask) => {}
            }
        }
    }
}
