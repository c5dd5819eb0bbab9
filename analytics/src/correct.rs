//! Stored flows read anew under other settings of their exporter ([`schemas::metering::correction`]).
//!
//! A rehearsal and the real thing are the same walk over the same files ([`crate::rewrite`]); the first writes nothing. What
//! either answers is what the corrected flows meant before and after, by service: volume is that of [`Flow::bytes_scaled`] of
//! metered flows, not spread over windows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemas::metering::correction::Correction;
use tables::correction;
use tables::flow::{Flow, Metered};
use tables::metering::Enricher;
use tables::table::retained_from_ms;

use crate::rewrite::{Edit, Rewrite, RewriteProgress, RewriteSummary};
use crate::{Analytics, AnalyticsError};

/// Scaled volume of the metered flows of one service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Volume {
    pub bytes_in: u64,
    pub bytes_out: u64,
}

/// What a correction changes.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct CorrectionEffect {
    #[serde(flatten)]
    pub summary: RewriteSummary,
    /// Flows of the exporter and time whose sampling rate was not known, and is not known.
    pub unknown_rate_before: u64,
    pub unknown_rate_after: u64,
    /// By service, 0 = not attributed; before and after.
    pub services: BTreeMap<u32, (Volume, Volume)>,
}

#[derive(Debug)]
struct Correct {
    correction: Correction,
    enricher: Arc<Enricher>,
    effect: Mutex<CorrectionEffect>,
}

impl Edit for Correct {
    fn edit(&self, flow: &mut Flow) -> bool {
        if !self.correction.covers(flow.exporter, flow.end_at_ms) {
            return false;
        }
        correction::apply(&self.correction.settings, flow);
        self.enricher.judge_again(flow);
        true
    }

    fn saw(&self, before: &Flow, after: &Flow) {
        let mut effect = self.effect.lock().unwrap_or_else(PoisonError::into_inner);
        effect.unknown_rate_before += u64::from(!before.sampling().is_known());
        effect.unknown_rate_after += u64::from(!after.sampling().is_known());
        if let Some((service, bytes_in, bytes_out)) = metered_volume(before) {
            let (volume, _) = effect.services.entry(service).or_default();
            volume.bytes_in = volume.bytes_in.saturating_add(bytes_in);
            volume.bytes_out = volume.bytes_out.saturating_add(bytes_out);
        }
        if let Some((service, bytes_in, bytes_out)) = metered_volume(after) {
            let (_, volume) = effect.services.entry(service).or_default();
            volume.bytes_in = volume.bytes_in.saturating_add(bytes_in);
            volume.bytes_out = volume.bytes_out.saturating_add(bytes_out);
        }
    }
}

/// The service that a flow counts for, and its scaled bytes in and out.
fn metered_volume(flow: &Flow) -> Option<(u32, u64, u64)> {
    match flow.metered {
        Metered::No => None,
        Metered::In => Some((flow.dst_service, flow.bytes_scaled(), 0)),
        Metered::Out => Some((flow.src_service, 0, flow.bytes_scaled())),
    }
}

impl Analytics {
    /// What a correction would change; nothing is written. `enricher` judges by all corrections, this one included.
    ///
    /// # Errors
    /// When a file cannot be read, or flows of the range were removed by retention.
    pub async fn rehearse_correction(
        &self,
        correction: &Correction,
        enricher: &Arc<Enricher>,
        progress: impl Fn(RewriteProgress) + Send + Sync,
    ) -> Result<CorrectionEffect, AnalyticsError> {
        self.correct_flows(correction, enricher, Rewrite::Rehearse, &progress)
            .await
    }

    /// Rewrites the files whose flows a correction changes. Call [`Analytics::refresh_usage`] afterwards.
    ///
    /// # Errors
    /// As [`Analytics::rehearse_correction`], and when a file cannot be written. Files rewritten before that stay so; call
    /// it again.
    pub async fn apply_correction(
        &self,
        correction: &Correction,
        enricher: &Arc<Enricher>,
        progress: impl Fn(RewriteProgress) + Send + Sync,
    ) -> Result<CorrectionEffect, AnalyticsError> {
        self.correct_flows(correction, enricher, Rewrite::Apply, &progress)
            .await
    }

    /// The first instant whose flows are all kept; `None` while nothing was removed.
    ///
    /// # Errors
    /// When the manifest cannot be read.
    pub fn flows_kept_from_ms(&self) -> Result<Option<i64>, AnalyticsError> {
        let kept_from_ms = retained_from_ms(&*self.store.flows.snapshot()?);
        Ok((kept_from_ms > i64::MIN).then_some(kept_from_ms))
    }

    async fn correct_flows(
        &self,
        correction: &Correction,
        enricher: &Arc<Enricher>,
        mode: Rewrite,
        progress: &(impl Fn(RewriteProgress) + Send + Sync),
    ) -> Result<CorrectionEffect, AnalyticsError> {
        let edit = Arc::new(Correct {
            correction: correction.clone(),
            enricher: enricher.clone(),
            effect: Mutex::default(),
        });
        let range = (correction.from_ms, correction.to_ms);
        let summary = self.rewrite_flows(edit.clone(), range, mode, progress).await?;
        let mut effect = edit.effect.lock().unwrap_or_else(PoisonError::into_inner).clone();
        effect.summary = summary;
        Ok(effect)
    }
}
