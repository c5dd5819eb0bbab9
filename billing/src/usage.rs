//! Where usage comes from. Billing asks through [`UsageSource`]; [`MeteredUsage`] answers from stored flows.

use std::future::Future;

use analytics::period::PeriodQuery;
use analytics::{
    Analytics, AnalyticsError, MeteredService, Peer, PeriodUsage, SeriesPoint, Step, UsageMode, WindowUsage,
};
use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::inventory::Service;
use schemas::metering::{MeterMode, MeteringConfig};

use crate::guard::MeasureGuards;

/// One question about usage: a service over `[from_ms, to_ms)`, by a mode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UsageQuery {
    pub service: Service,
    pub from_ms: i64,
    pub to_ms: i64,
    pub mode: UsageMode,
    /// Windows that start in one of these `[from, to)` are not billed.
    pub excluded: Vec<(i64, i64)>,
}

/// What billing needs to know about usage.
pub trait UsageSource: Send + Sync {
    /// Makes sure that every flow stored before this call is in what [`UsageSource::period_usage`] answers.
    fn settle(&self) -> impl Future<Output = Result<(), AnalyticsError>> + Send;

    /// How much of it must be measured before it is finalised without a person's word.
    fn guards(&self) -> MeasureGuards {
        MeasureGuards::NONE
    }

    /// End of the newest window in which any exporter was heard; `None` where none ever was.
    fn heard_until(&self) -> impl Future<Output = Result<Option<i64>, AnalyticsError>> + Send {
        async { Ok(None) }
    }

    /// What was used, as far as its windows were closed by `now_ms`: one answer per question, in their order.
    fn period_usage(
        &self,
        queries: &[UsageQuery],
        now_ms: i64,
    ) -> impl Future<Output = Result<Vec<PeriodUsage>, AnalyticsError>> + Send;

    /// The service's 5-minute windows over `[from_ms, to_ms)` counted anew from stored flows, ascending; windows without
    /// flows are absent.
    fn windows_from_flows(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
    ) -> impl Future<Output = Result<Vec<WindowUsage>, AnalyticsError>> + Send;

    /// The local days of `[from_ms, to_ms)`.
    fn days(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        zone: &TimeZone,
    ) -> impl Future<Output = Result<Vec<SeriesPoint>, AnalyticsError>> + Send;

    /// The remote addresses that the service exchanged most with.
    fn top_peers(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Peer>, AnalyticsError>> + Send;
}

/// An exporter that meters, and the site whose services it measures.
#[derive(Clone, PartialEq, Eq, Debug)]
struct MeteringExporter {
    address: Address,
    site: Option<String>,
}

/// Usage measured from flows. Cheap enough to clone.
#[derive(Clone, Debug)]
pub struct MeteredUsage {
    analytics: Analytics,
    exporters: Vec<MeteringExporter>,
    guards: MeasureGuards,
}

impl MeteredUsage {
    /// Usage as the configured exporters meter it; those with `meter = "off"` do not.
    pub fn new(analytics: Analytics, metering: &MeteringConfig) -> MeteredUsage {
        let metering = metering
            .exporters
            .iter()
            .filter(|exporter| exporter.meter != MeterMode::Off);
        let exporters = metering.map(|exporter| MeteringExporter {
            address: exporter.address,
            site: exporter.site.clone(),
        });
        MeteredUsage {
            analytics,
            exporters: exporters.collect(),
            guards: MeasureGuards::NONE,
        }
    }

    /// For who finalises by it: what was not measured is held.
    #[must_use]
    pub fn guarded(mut self, guards: MeasureGuards) -> MeteredUsage {
        self.guards = guards;
        self
    }

    pub fn analytics(&self) -> &Analytics {
        &self.analytics
    }

    /// A service with the exporters that meter it: those of its site, or all that meter where it has none. Without any
    /// (nothing is configured), every exporter that was heard counts.
    pub fn metered(&self, service: &Service) -> MeteredService {
        let at_site = |exporter: &&MeteringExporter| service.site.is_none() || exporter.site == service.site;
        MeteredService {
            service: service.id.number(),
            exporters: self
                .exporters
                .iter()
                .filter(at_site)
                .map(|exporter| exporter.address)
                .collect(),
        }
    }
}

impl UsageSource for MeteredUsage {
    fn guards(&self) -> MeasureGuards {
        self.guards
    }

    async fn heard_until(&self) -> Result<Option<i64>, AnalyticsError> {
        self.analytics.heard_until().await
    }

    async fn settle(&self) -> Result<(), AnalyticsError> {
        self.analytics.refresh_usage(|_| {}).await?;
        Ok(())
    }

    async fn period_usage(&self, queries: &[UsageQuery], now_ms: i64) -> Result<Vec<PeriodUsage>, AnalyticsError> {
        let queries: Vec<PeriodQuery> = queries
            .iter()
            .map(|query| PeriodQuery {
                service: self.metered(&query.service),
                from_ms: query.from_ms,
                to_ms: query.to_ms,
                mode: query.mode,
                excluded: query.excluded.clone(),
            })
            .collect();
        self.analytics.period_usage_batch(&queries, now_ms).await
    }

    async fn windows_from_flows(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, AnalyticsError> {
        self.analytics
            .explain_windows(service.id.number(), from_ms, to_ms)
            .await
    }

    async fn days(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        zone: &TimeZone,
    ) -> Result<Vec<SeriesPoint>, AnalyticsError> {
        let service = self.metered(service);
        self.analytics
            .usage_series(&[service], from_ms, to_ms, Step::Day, zone)
            .await
    }

    async fn top_peers(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Peer>, AnalyticsError> {
        self.analytics
            .top_peers(service.id.number(), from_ms, to_ms, limit)
            .await
    }
}
