//! The questions of [`FlowStore`], answered from the stored tables: how is beside the table that answers.

use async_trait::async_trait;
use schemas::usage::{Gap, Peer, PeriodUsage, SeriesPoint, WindowUsage};

use crate::Analytics;
use crate::store::{
    Attribution, CounterReconciliationRow, ExporterCount, FlowStore, Meters, Overview, OverviewQuery, PeriodQuery,
    SeriesQuery, StoreError, WindowCount, WindowVolume,
};

/// Each method of the trait is a method of the same name here, which has the engine's errors.
#[async_trait]
impl FlowStore for Analytics {
    async fn settle(&self) -> Result<(), StoreError> {
        self.refresh_usage(|_| {}).await?;
        Ok(())
    }

    async fn usage_windows(&self, service: u32, from_ms: i64, to_ms: i64) -> Result<Vec<WindowUsage>, StoreError> {
        Ok(self.usage_windows(service, from_ms, to_ms).await?)
    }

    async fn usage_series(&self, query: &SeriesQuery<'_>) -> Result<Vec<SeriesPoint>, StoreError> {
        Ok(self.usage_series(query).await?)
    }

    async fn period_usage(&self, queries: &[PeriodQuery], now_ms: i64) -> Result<Vec<PeriodUsage>, StoreError> {
        Ok(self.period_usage(queries, now_ms).await?)
    }

    async fn usage_marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, StoreError> {
        Ok(self.usage_marks(periods)?)
    }

    async fn gaps(&self, meters: &Meters, from_ms: i64, to_ms: i64) -> Result<Vec<Gap>, StoreError> {
        Ok(self.gaps(meters, from_ms, to_ms).await?)
    }

    async fn heard_until(&self) -> Result<Option<i64>, StoreError> {
        Ok(self.heard_until().await?)
    }

    async fn overview(&self, query: &OverviewQuery) -> Result<Overview, StoreError> {
        Ok(self.overview(query).await?)
    }

    async fn network_usage(&self, from_ms: i64, to_ms: i64) -> Result<Vec<WindowVolume>, StoreError> {
        Ok(self.network_usage(from_ms, to_ms).await?)
    }

    async fn attribution(&self, from_ms: i64, to_ms: i64) -> Result<Attribution, StoreError> {
        Ok(self.attribution(from_ms, to_ms).await?)
    }

    async fn flow_records(&self, from_ms: i64, to_ms: i64) -> Result<Vec<WindowCount>, StoreError> {
        Ok(self.flow_records(from_ms, to_ms).await?)
    }

    async fn flows_without_rate(&self, from_ms: i64, to_ms: i64) -> Result<Vec<ExporterCount>, StoreError> {
        Ok(self.flows_without_rate(from_ms, to_ms).await?)
    }

    async fn windows_from_flows(&self, service: u32, from_ms: i64, to_ms: i64) -> Result<Vec<WindowUsage>, StoreError> {
        Ok(self.windows_from_flows(service, from_ms, to_ms).await?)
    }

    async fn top_peers(&self, service: u32, from_ms: i64, to_ms: i64, limit: usize) -> Result<Vec<Peer>, StoreError> {
        Ok(self.top_peers(service, from_ms, to_ms, limit).await?)
    }

    async fn counter_reconciliation(
        &self,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<CounterReconciliationRow>, StoreError> {
        Ok(self.counter_reconciliation(from_ms, to_ms).await?)
    }

    async fn latest_counter_reconciliation(&self, now_ms: i64) -> Result<Vec<CounterReconciliationRow>, StoreError> {
        Ok(self.latest_counter_reconciliation(now_ms).await?)
    }
}
