//! What a fleet is made of: kinds of services, plans and exporters.

use schemas::metering::ExporterConfig;

use super::encode::{SimExporterConfig, SimProtocol};

/// External interfaces of the routers and uplinks of the switches.
pub const ROUTER_EXTERNAL_IFS: [u32; 2] = [513, 514];
pub const SWITCH_UPLINK_IFS: [u32; 2] = [501, 502];

/// What a service is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ServiceKind {
    Vps,
    Dedicated,
    Web,
    Game,
    Mysql,
    Workspace,
}

impl ServiceKind {
    pub const ALL: [ServiceKind; 6] = [
        ServiceKind::Vps,
        ServiceKind::Dedicated,
        ServiceKind::Web,
        ServiceKind::Game,
        ServiceKind::Mysql,
        ServiceKind::Workspace,
    ];

    pub fn name(self) -> &'static str {
        match self {
            ServiceKind::Vps => "vps",
            ServiceKind::Dedicated => "dedicated",
            ServiceKind::Web => "web",
            ServiceKind::Game => "game",
            ServiceKind::Mysql => "mysql",
            ServiceKind::Workspace => "workspace",
        }
    }
}

/// How traffic of a service is billed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FleetBilling {
    /// The price is all.
    Flat,
    /// Transfer over the included one is billed per GiB.
    Transfer { included_gib: u64 },
    /// The 95th percentile over the commit is billed per Mbps.
    Percentile95 { commit_mbps: u64 },
}

/// A plan that services of the fleet are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FleetPlan {
    pub name: &'static str,
    pub kind: ServiceKind,
    pub billing: FleetBilling,
    /// Per month, in minor units, the same number in each currency.
    pub price_minor: i64,
}

/// An exporter: how it is configured at the collector and what it speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FleetExporter {
    pub config: ExporterConfig,
    pub protocol: SimProtocol,
    pub sampling_rate: u32,
    pub observation_domain: u32,
}

impl FleetExporter {
    /// For encoding what this exporter reports.
    pub fn sim_config(&self, boot_at_ms: i64) -> SimExporterConfig {
        SimExporterConfig::new(
            self.config.address.first(),
            self.observation_domain,
            self.protocol,
            self.sampling_rate,
            boot_at_ms,
        )
    }

    pub fn name(&self) -> &str {
        self.config.name.as_deref().unwrap_or_default()
    }

    pub fn site(&self) -> &str {
        self.config.site.as_deref().unwrap_or_default()
    }
}
