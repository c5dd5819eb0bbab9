//! Usage as billing asks for it, answered by a store of flows.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::tz::TimeZone;
use schemas::address::Address;
use schemas::inventory::Service;
use schemas::metering::{MeterMode, MeteringConfig};
use schemas::usage::{CORRECTION_REACH_DAYS, MeasureGuards, UsageError, UsageQuery, UsageSource};
use schemas::window::DAY_MS;

use crate::store::{FlowStore, MeteredService, Meters, PeriodQuery, SeriesQuery, Step};
use crate::{Peer, PeriodUsage, SeriesPoint, WindowUsage};

/// An exporter that meters, and the site whose services it measures.
#[derive(Clone, PartialEq, Eq, Debug)]
struct MeteringExporter {
    /// `None`: every exporter of a network.
    address: Option<Address>,
    site: Option<String>,
}

/// Usage measured from flows. Cheap enough to clone.
#[derive(Clone, Debug)]
pub struct MeteredUsage {
    store: Arc<dyn FlowStore>,
    exporters: Vec<MeteringExporter>,
    guards: MeasureGuards,
    /// Configured not to meter.
    off: Vec<Address>,
    correction_reach_days: u32,
}

impl MeteredUsage {
    /// Usage as the configured exporters meter it; those with `meter = "off"` do not.
    pub fn new(store: impl Into<Arc<dyn FlowStore>>, metering: &MeteringConfig) -> MeteredUsage {
        let correction_reach_days = metering.correction_reach_days.unwrap_or(CORRECTION_REACH_DAYS);
        let (off, metering): (Vec<_>, Vec<_>) = metering
            .exporters
            .iter()
            .partition(|exporter| exporter.meter == MeterMode::Off);
        let exporters = metering.into_iter().map(|exporter| MeteringExporter {
            address: exporter.address.host(),
            site: exporter.site.clone(),
        });
        MeteredUsage {
            store: store.into(),
            exporters: exporters.collect(),
            guards: MeasureGuards::NONE,
            off: off.into_iter().filter_map(|exporter| exporter.address.host()).collect(),
            correction_reach_days,
        }
    }

    /// For who finalises by it: what was not measured is held.
    #[must_use]
    pub fn guarded(mut self, guards: MeasureGuards) -> MeteredUsage {
        self.guards = guards;
        self
    }

    /// A service with who meters it: the exporters of its site. Where it has no site, or none is configured at it, everybody
    /// does who is not off: also an exporter that the configuration does not list is metered, by addresses. So it is where a
    /// section for a network meters the service, because nobody knows which of its addresses are exporters.
    pub fn metered(&self, service: &Service) -> MeteredService {
        let at_site = |exporter: &&MeteringExporter| service.site.is_some() && exporter.site == service.site;
        let of_site: Option<Vec<Address>> = self
            .exporters
            .iter()
            .filter(at_site)
            .map(|exporter| exporter.address)
            .collect();
        MeteredService {
            service: service.id.number(),
            meters: match of_site {
                Some(of_site) if !of_site.is_empty() => Meters::Named(of_site),
                _ => Meters::AllBut(self.off.clone()),
            },
        }
    }
}

#[async_trait]
impl UsageSource for MeteredUsage {
    fn guards(&self) -> MeasureGuards {
        self.guards
    }

    async fn heard_until(&self) -> Result<Option<i64>, UsageError> {
        Ok(self.store.heard_until().await?)
    }

    async fn settle(&self) -> Result<(), UsageError> {
        Ok(self.store.settle().await?)
    }

    fn corrected_from_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::from(self.correction_reach_days) * DAY_MS)
    }

    async fn marks(&self, periods: &[(i64, i64)]) -> Result<Vec<Option<String>>, UsageError> {
        Ok(self.store.usage_marks(periods).await?)
    }

    async fn period_usage(&self, queries: &[UsageQuery], now_ms: i64) -> Result<Vec<PeriodUsage>, UsageError> {
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
        Ok(self.store.period_usage(&queries, now_ms).await?)
    }

    async fn windows_from_flows(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<WindowUsage>, UsageError> {
        Ok(self
            .store
            .windows_from_flows(service.id.number(), from_ms, to_ms)
            .await?)
    }

    async fn days(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        zone: &TimeZone,
    ) -> Result<Vec<SeriesPoint>, UsageError> {
        let query = SeriesQuery {
            services: &[self.metered(service)],
            from_ms,
            to_ms,
            step: Step::Day,
            zone,
            // Days are asked for of what was invoiced, which is over, whatever clock it went by.
            now_ms: i64::MAX,
        };
        Ok(self.store.usage_series(&query).await?)
    }

    async fn top_peers(
        &self,
        service: &Service,
        from_ms: i64,
        to_ms: i64,
        limit: usize,
    ) -> Result<Vec<Peer>, UsageError> {
        Ok(self.store.top_peers(service.id.number(), from_ms, to_ms, limit).await?)
    }
}

#[cfg(test)]
mod tests {
    use schemas::ids::{CustomerId, ServiceId};
    use schemas::inventory::ServiceStatus;
    use schemas::metering::ExporterConfig;

    use super::*;
    use crate::Analytics;

    fn service(site: Option<&str>) -> Service {
        Service {
            id: ServiceId(1),
            customer: CustomerId(1),
            name: "server".to_owned(),
            service_type: "dedicated".to_owned(),
            site: site.map(str::to_owned),
            status: ServiceStatus::Active,
            created_at_ms: 0,
            archived_at_ms: None,
            owned_from_ms: 0,
        }
    }

    #[test]
    fn a_service_is_metered_by_its_site_or_by_everybody_who_is_not_off() {
        let mut service = service(None);
        let exporter = |address: &str, site: Option<&str>, meter| ExporterConfig {
            site: site.map(str::to_owned),
            meter,
            ..ExporterConfig::unlisted(address.parse().unwrap())
        };
        let metering = MeteringConfig {
            exporters: vec![
                exporter("192.0.2.1", Some("A"), MeterMode::Addresses),
                exporter("192.0.2.2", Some("A"), MeterMode::Off),
                exporter("192.0.2.3", Some("B"), MeterMode::Addresses),
                exporter("192.0.2.4", None, MeterMode::Addresses),
            ],
            ..MeteringConfig::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let usage = MeteredUsage::new(Analytics::open(folder.path()).unwrap(), &metering);
        let at = |text: &str| text.parse::<Address>().unwrap();
        for (site, meters) in [
            (Some("A"), Meters::Named(vec![at("192.0.2.1")])),
            (Some("B"), Meters::Named(vec![at("192.0.2.3")])),
            (Some("C"), Meters::AllBut(vec![at("192.0.2.2")])),
            (None, Meters::AllBut(vec![at("192.0.2.2")])),
        ] {
            service.site = site.map(str::to_owned);
            assert_eq!(usage.metered(&service).meters, meters, "{site:?}");
        }
        assert_eq!(usage.corrected_from_ms(400 * DAY_MS), 0);
        let metering = MeteringConfig {
            correction_reach_days: Some(40),
            ..metering
        };
        let usage = MeteredUsage::new(usage.store, &metering);
        assert_eq!(usage.corrected_from_ms(400 * DAY_MS), 360 * DAY_MS);
    }

    #[test]
    fn any_exporter_measures_a_service_that_a_section_for_a_network_meters() {
        let dir = tempfile::tempdir().unwrap();
        let section = |net: &str, site: &str| ExporterConfig {
            address: net.parse().unwrap(),
            site: Some(site.to_owned()),
            ..ExporterConfig::unlisted(Address::UNSPECIFIED)
        };
        let metering = MeteringConfig {
            exporters: vec![
                section("192.0.2.1", "NYC1"),
                section("192.0.2.2", "FRA1"),
                section("198.51.100.0/24", "FRA1"),
            ],
            ..MeteringConfig::default()
        };
        let usage = MeteredUsage::new(Analytics::open(dir.path()).unwrap(), &metering);
        let at = |site: &str| usage.metered(&service(Some(site))).meters;
        assert_eq!(at("NYC1"), Meters::Named(vec!["192.0.2.1".parse().unwrap()]));
        assert_eq!(at("FRA1"), Meters::AllBut(Vec::new()), "whichever was heard");
    }
}
