//! What is known of a job is written: its row, its runs, and the alert that is due, in one transaction.

use schemas::clock;

use super::alert::{self, Notice};
use super::history::{self, NewRun};
use super::shared::Shared;
use super::slot::Slot;
use super::{Cause, RunError, store};

/// Runs that wait to be written, of one job, while the database takes nothing; older ones are forgotten.
const UNWRITTEN_MAX: usize = 100;

impl Shared {
    /// Writes what is known of a job and is not written yet.
    pub(super) async fn write(&self, slot: &Slot) -> Result<(), RunError> {
        let _writing = slot.writing.lock().await;
        let (stored, ended, begun) = {
            let mut state = slot.state();
            if let Some(run) = &state.run {
                let progress = run.progress();
                state.stored.progress = progress;
            }
            let unrecorded = state.run.as_ref().filter(|run| run.id.is_none() && run.is_long());
            let begun = unrecorded.map(|run| (run.cause, run.scheduled_ms, run.started_at_ms));
            state.is_dirty = false;
            state.is_stale = false;
            (state.stored.clone(), state.ended.clone(), begun)
        };
        let new = |(cause, scheduled_ms, started_at_ms): (Cause, i64, i64)| NewRun {
            job: slot.name,
            instance: &stored.instance,
            owner: &self.owner.name,
            cause,
            scheduled_ms,
            started_at_ms,
        };
        let written = async {
            let now_ms = clock::machine_now_ms();
            let mut transaction = self.settings.database.begin_write().await?;
            let is_ours = store::save(&mut transaction, &stored, &self.owner.name, now_ms).await?;
            for run in &ended {
                let id = match run.id {
                    Some(id) => id,
                    None => {
                        let run = new((run.cause, run.scheduled_ms, run.started_at_ms));
                        history::begin(&mut transaction, run).await?
                    }
                };
                history::end(&mut transaction, id, run.outcome, &run.text, run.ended_at_ms).await?;
            }
            let id = match begun {
                Some(begun) => Some(history::begin(&mut transaction, new(begun)).await?),
                None => None,
            };
            if is_ours && !ended.is_empty() {
                let kind = alert::due(&mut transaction, &stored, slot.job.failures_before_alert(), now_ms).await?;
                if let Some(kind) = kind {
                    let notice = Notice {
                        kind,
                        job: slot.name,
                        description: slot.job.description(),
                        instance: stored.instance.clone(),
                        failures_in_a_row: stored.failures_in_a_row,
                        last_success_at_ms: stored.last_success_at_ms,
                        error: match stored.failures_in_a_row {
                            0 => String::new(),
                            _ => stored.last_text.clone(),
                        },
                    };
                    let books_now_ms = self.settings.clock.now_ms();
                    self.settings
                        .alerts
                        .tell(&mut transaction, &notice, books_now_ms)
                        .await?;
                }
            }
            transaction.commit().await?;
            Ok::<_, RunError>(id)
        };
        let written = written.await;
        let mut state = slot.state();
        match written {
            Ok(id) => {
                state.ended.drain(..ended.len());
                let Some(id) = id else { return Ok(()) };
                // A run that ended while its row was written has it in what is to be written next.
                let started_at_ms = begun.map(|(_, _, started_at_ms)| started_at_ms);
                if let Some(run) = state
                    .run
                    .as_mut()
                    .filter(|run| Some(run.started_at_ms) == started_at_ms)
                {
                    run.id = Some(id);
                } else if let Some(run) = state
                    .ended
                    .iter_mut()
                    .find(|run| Some(run.started_at_ms) == started_at_ms)
                {
                    run.id = Some(id);
                }
                Ok(())
            }
            Err(error) => {
                state.is_dirty = true;
                let too_many = state.ended.len().saturating_sub(UNWRITTEN_MAX);
                state.ended.drain(..too_many);
                Err(error)
            }
        }
    }
}
