//! Stored flows after a backdated change of assignments, own networks or metering points.
//!
//! The flows that ended in the range are judged again ([`Enricher::enrich`] is a function of the flow, the configuration
//! and the assignments) and the files whose rows change are replaced, as [`crate::rewrite`] says. A file without changed
//! rows is left alone, so doing it again changes nothing.

use std::sync::Arc;

use tables::flow::Flow;
use tables::metering::Enricher;

use crate::rewrite::{Edit, Rewrite, RewriteSummary};
use crate::{Analytics, AnalyticsError};

struct Judge {
    enricher: Arc<Enricher>,
    from_ms: i64,
    to_ms: i64,
}

impl Edit for Judge {
    fn edit(&self, flow: &mut Flow) -> bool {
        let is_in_range = flow.end_at_ms >= self.from_ms && flow.end_at_ms < self.to_ms;
        if is_in_range {
            self.enricher.enrich(flow);
        }
        is_in_range
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
        let judge = Judge {
            enricher: enricher.clone(),
            from_ms,
            to_ms,
        };
        self.rewrite_flows(Arc::new(judge), (from_ms, to_ms), Rewrite::Apply, &|_| {})
            .await
    }
}
