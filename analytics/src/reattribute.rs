//! Stored flows after a backdated change of assignments, and after interfaces got their first names.
//!
//! The flows that ended in the range are judged again ([`Enricher::judge_again`]: whose they were, and what follows from it) and the
//! files whose rows change are replaced, as [`crate::rewrite`] says. A file without changed rows is left alone, so doing it
//! again changes nothing.

use std::collections::HashSet;
use std::sync::Arc;

use schemas::address::Address;
use tables::flow::Flow;
use tables::metering::Enricher;

use crate::rewrite::{Edit, Rewrite, RewriteSummary};
use crate::{Analytics, AnalyticsError};

struct Reattribution {
    enricher: Arc<Enricher>,
    from_ms: i64,
    to_ms: i64,
}

impl Edit for Reattribution {
    fn edit(&self, flow: &mut Flow) -> bool {
        let is_in_range = flow.end_at_ms >= self.from_ms && flow.end_at_ms < self.to_ms;
        if is_in_range {
            self.enricher.judge_again(flow);
        }
        is_in_range
    }
}

struct UnknownSideReattribution {
    enricher: Arc<Enricher>,
    exporters: HashSet<Address>,
    from_ms: i64,
}

impl Edit for UnknownSideReattribution {
    fn edit(&self, flow: &mut Flow) -> bool {
        let is_meant = flow.end_at_ms >= self.from_ms && self.exporters.contains(&flow.exporter);
        if is_meant {
            self.enricher.judge_unknown_sides(flow);
        }
        is_meant
    }
}

impl Analytics {
    /// Judges the stored flows that ended in `[from_ms, to_ms)` again and rewrites the files whose rows change. Call
    /// [`Analytics::refresh_usage`] afterwards.
    ///
    /// # Errors
    /// When a file cannot be read or written. Files rewritten before that stay so; call it again.
    pub async fn reattribute(
        &self,
        enricher: &Arc<Enricher>,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<RewriteSummary, AnalyticsError> {
        let judge = Reattribution {
            enricher: enricher.clone(),
            from_ms,
            to_ms,
        };
        self.rewrite_flows(Arc::new(judge), (from_ms, to_ms), Rewrite::Apply, &|_| {})
            .await
    }

    /// Judges the sides of stored flows of `exporters` that ended since `from_ms` and crossed an interface of which nothing was known, by what `enricher` knows of it. Call
    /// [`Analytics::refresh_usage`] afterwards.
    ///
    /// # Errors
    /// As [`Analytics::reattribute`].
    pub async fn judge_unknown_sides(
        &self,
        enricher: &Arc<Enricher>,
        exporters: HashSet<Address>,
        from_ms: i64,
    ) -> Result<RewriteSummary, AnalyticsError> {
        let judge = UnknownSideReattribution {
            enricher: enricher.clone(),
            exporters,
            from_ms,
        };
        self.rewrite_flows(Arc::new(judge), (from_ms, i64::MAX), Rewrite::Apply, &|_| {})
            .await
    }
}
