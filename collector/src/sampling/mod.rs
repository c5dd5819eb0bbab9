//! Which sampling rate a flow is scaled by: [`choose`] is the only place that decides.
//!
//! A rate of `n` means that one packet in `n` was looked at, a fraction where an exporter says one; 0 means that nobody said. Most
//! specific first:
//!
//! 1. the configured override of the exporter,
//! 2. what the record itself says (IE 34, 50, 305/306, 309/310, 311; the sampling word of a v5 header),
//! 3. options data of the same transport session and domain that hold for what the flow names: its sampler (IE 48 or 302), interface,
//!    direction, template, or several of them together; more together are more specific. A sampler's may come in another domain,
//! 4. options data of its domain,
//! 5. options data of the whole exporter (IE 149 = 0), then of the session's other domains where they agree, where nothing was said of
//!    its own: Juniper's options may come in another domain than its data,
//! 6. the configured default of the exporter, then of the collector,
//! 7. nothing: rate 0, stored and counted, never billed silently.
//!
//! A guess would be billed, so that there is none. Options of which several hold and differ, or which hold for parts of a domain that
//! are not understood (a line card), or for other interfaces or templates than the flow's, are *ambiguous*; a sampler that the
//! flow names and its exporter did not announce among others has no rate. In both cases the rate is 0, whatever default is
//! configured, and the flow is marked and counted. A rate that no exporter samples at, or that is orders of magnitude from what was
//! announced before, is used, marked and counted.

mod announced;
mod elements;

use schemas::address::Address;
use schemas::metering::{ExporterTable, MeteringConfig, SessionScope, TunnelMode};
use schemas::sampling::SamplingRate;
use serde::{Deserialize, Serialize};
use tables::flow::marks;

use crate::reading::DecodeSettings;

pub use announced::{
    AnnouncedRates, Announcement, AnnouncementCapacity, FlowScope, MAX_RATE_DOMAINS, MAX_SAMPLERS_PER_EXPORTER,
    OptionsTemplate, Selector, WHOLE_DOMAIN,
};
use announced::{RateLookup, jumps};
pub use elements::{SamplingElements, StatedRate, v5_rate};

/// An observation domain of one exporter in one protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DomainKey {
    /// As in the `flows` table: 5, 7, 9, 10.
    pub protocol_version: u8,
    /// IPFIX observation domain, v9 source id, v5 engine.
    pub observation_domain: u32,
}

/// The text of a [`DomainKey`] is `protocol/domain`.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no observation domain; expected protocol/domain")]
pub struct DomainKeyError {
    text: String,
}

impl From<DomainKey> for String {
    fn from(key: DomainKey) -> String {
        format!("{}/{}", key.protocol_version, key.observation_domain)
    }
}

impl TryFrom<String> for DomainKey {
    type Error = DomainKeyError;

    fn try_from(text: String) -> Result<DomainKey, DomainKeyError> {
        let parsed = text
            .split_once('/')
            .and_then(|(protocol, domain)| Some((protocol.parse().ok()?, domain.parse().ok()?)));
        match parsed {
            Some((protocol_version, observation_domain)) => Ok(DomainKey {
                protocol_version,
                observation_domain,
            }),
            None => Err(DomainKeyError { text }),
        }
    }
}

/// What the configuration says about one exporter's sampling.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ExporterSampling {
    /// Replaces whatever the exporter says.
    pub override_rate: Option<u32>,
    /// Used when the exporter says nothing.
    pub default_rate: Option<u32>,
    /// Says whether the sampling word of its v5 headers has mode bits, where it differs from the others.
    pub v5_mode_bits: Option<bool>,
    /// All UDP ports of it are one transport session.
    pub joins_ports: bool,
    /// What its records mean.
    pub reading: DecodeSettings,
    /// Which packet of a sampled tunnel is the flow.
    pub tunnels: TunnelMode,
}

/// Sampling as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SamplingConfig {
    pub exporters: ExporterTable<ExporterSampling>,
    /// For exporters that neither say a rate nor have a default of their own.
    pub default_rate: Option<u32>,
    /// The upper two bits of the sampling word in a v5 header are a mode (Cisco); without it all 16 bits are the interval.
    pub v5_mode_bits: bool,
}

impl Default for SamplingConfig {
    fn default() -> SamplingConfig {
        SamplingConfig {
            exporters: ExporterTable::default(),
            default_rate: None,
            v5_mode_bits: true,
        }
    }
}

impl From<&MeteringConfig> for SamplingConfig {
    fn from(config: &MeteringConfig) -> SamplingConfig {
        let exporters = ExporterTable::of(config, |exporter| ExporterSampling {
            override_rate: exporter.sampling_rate,
            default_rate: exporter.default_sampling_rate,
            v5_mode_bits: exporter.v5_sampling_mode_bits,
            joins_ports: exporter.sessions == SessionScope::Address,
            reading: DecodeSettings::from(exporter),
            tunnels: exporter.tunnels,
        });
        SamplingConfig {
            exporters,
            default_rate: config.decoding.default_sampling_rate,
            v5_mode_bits: config.decoding.v5_sampling_mode_bits,
        }
    }
}

impl SamplingConfig {
    /// What is configured for one exporter, with the collector's default filled in. A configured 0 says nothing.
    pub fn of(&self, exporter: Address) -> ExporterSampling {
        self.of_session(exporter, 0)
    }

    /// The same of one transport session: the section of its UDP port where there is one; 0 = the port is not known.
    pub fn of_session(&self, exporter: Address, port: u16) -> ExporterSampling {
        let own = self.exporters.get(exporter, port).copied().unwrap_or_default();
        ExporterSampling {
            override_rate: known(own.override_rate),
            default_rate: known(own.default_rate).or(known(self.default_rate)),
            v5_mode_bits: own.v5_mode_bits.or(Some(self.v5_mode_bits)),
            joins_ports: own.joins_ports,
            reading: own.reading,
            tunnels: own.tunnels,
        }
    }

    /// Whether the configuration names this exporter.
    pub fn lists(&self, exporter: Address) -> bool {
        self.exporters.lists(exporter)
    }
}

/// Where a rate came from, for the exporters page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplingSource {
    Override,
    PerRecord,
    OptionsSampler,
    OptionsInterface,
    OptionsDirection,
    OptionsTemplate,
    OptionsDomain,
    OptionsExporter,
    Default,
    /// Several options hold for the flow and differ, or what they hold for is not understood.
    Ambiguous,
    /// The flow names a sampler that its exporter did not announce.
    SamplerNotAnnounced,
    #[default]
    Unknown,
}

impl SamplingSource {
    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            SamplingSource::Override => "configured override",
            SamplingSource::PerRecord => "the records themselves",
            SamplingSource::OptionsSampler => "options of the sampler",
            SamplingSource::OptionsInterface => "options of the interface",
            SamplingSource::OptionsDirection => "options of the direction",
            SamplingSource::OptionsTemplate => "options of the template",
            SamplingSource::OptionsDomain => "options of the domain",
            SamplingSource::OptionsExporter => "options of the exporter",
            SamplingSource::Default => "configured default",
            SamplingSource::Ambiguous => "ambiguous: options that differ, or of a scope that is not understood",
            SamplingSource::SamplerNotAnnounced => "unknown: its sampler was not announced",
            SamplingSource::Unknown => "unknown",
        }
    }
}

/// A rate and who said it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChosenRate {
    /// One packet in so many; 0 = not known.
    pub rate: u32,
    /// What `rate` is divided by.
    #[serde(default = "one")]
    pub divisor: u32,
    pub source: SamplingSource,
    /// No exporter samples so, or it is orders of magnitude from what it was.
    #[serde(default)]
    pub implausible: bool,
}

fn one() -> u32 {
    1
}

impl Default for ChosenRate {
    fn default() -> ChosenRate {
        ChosenRate::new(SamplingRate::UNKNOWN, SamplingSource::Unknown)
    }
}

impl ChosenRate {
    fn new(rate: SamplingRate, source: SamplingSource) -> ChosenRate {
        ChosenRate {
            rate: rate.rate(),
            divisor: rate.divisor(),
            source,
            implausible: false,
        }
    }

    /// The marks of a flow that is scaled by it.
    pub fn marks(self) -> u16 {
        let of_source = match self.source {
            SamplingSource::Ambiguous => marks::RATE_AMBIGUOUS,
            SamplingSource::SamplerNotAnnounced => marks::SAMPLER_NOT_ANNOUNCED,
            _ => 0,
        };
        of_source | if self.implausible { marks::RATE_IMPLAUSIBLE } else { 0 }
    }

    /// Whether this rate is orders of magnitude from another one of the same kind of source.
    pub fn jumps_from(self, before: ChosenRate) -> bool {
        self.source == before.source
            && jumps(
                SamplingRate::of(self.rate.into(), self.divisor.into()),
                SamplingRate::of(before.rate.into(), before.divisor.into()),
            )
    }
}

/// Chooses the sampling rate of a flow; the module describes the order. `told` is what its record says.
pub fn choose(
    config: ExporterSampling,
    told: StatedRate,
    announced: &AnnouncedRates,
    domain: DomainKey,
    named: FlowScope,
) -> ChosenRate {
    if let Some(rate) = config.override_rate {
        return ChosenRate::new(SamplingRate::whole(rate), SamplingSource::Override);
    }
    if told.rate.is_known() {
        return ChosenRate {
            implausible: told.implausible,
            ..ChosenRate::new(told.rate, SamplingSource::PerRecord)
        };
    }
    let without_rate = |source| ChosenRate::new(SamplingRate::UNKNOWN, source);
    match (announced.find(domain, named), config.default_rate) {
        (RateLookup::Rate { rate, source, doubtful }, _) => ChosenRate {
            implausible: doubtful,
            ..ChosenRate::new(rate, source)
        },
        (RateLookup::Ambiguous, _) => without_rate(SamplingSource::Ambiguous),
        (RateLookup::SamplerNotAnnounced, _) => without_rate(SamplingSource::SamplerNotAnnounced),
        (RateLookup::Nothing, Some(rate)) => ChosenRate::new(SamplingRate::whole(rate), SamplingSource::Default),
        (RateLookup::Nothing, None) => ChosenRate::default(),
    }
}

fn known(rate: Option<u32>) -> Option<u32> {
    rate.filter(|rate| *rate != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: DomainKey = DomainKey {
        protocol_version: 10,
        observation_domain: 1,
    };
    const OTHER: DomainKey = DomainKey {
        protocol_version: 10,
        observation_domain: 2,
    };
    const NOW_MS: i64 = 1_767_225_600_000;
    const DAY_MS: i64 = 86_400_000;
    const ROOM: AnnouncementCapacity = AnnouncementCapacity {
        of_domain: 9,
        elsewhere: 0,
        of_session: usize::MAX,
    };

    fn told(rate: u32) -> StatedRate {
        StatedRate {
            rate: SamplingRate::whole(rate),
            implausible: false,
        }
    }

    fn sampler(sampler: u64) -> FlowScope {
        FlowScope {
            sampler,
            ..FlowScope::template(256)
        }
    }

    fn of_sampler(sampler: u64) -> Selector {
        Selector {
            sampler,
            ..WHOLE_DOMAIN
        }
    }

    fn of_interface(interface: u32) -> Selector {
        Selector {
            interface,
            ..WHOLE_DOMAIN
        }
    }

    fn of_template(template: u16) -> Selector {
        Selector {
            template,
            ..WHOLE_DOMAIN
        }
    }

    /// Of a line card, say.
    fn of_other(other: u64) -> Selector {
        Selector { other, ..WHOLE_DOMAIN }
    }

    fn says(selector: Selector, rate: u32) -> Announcement {
        Announcement {
            domain: None,
            selector,
            told: told(rate),
        }
    }

    fn template(domain: DomainKey, id: u16) -> OptionsTemplate {
        OptionsTemplate { domain, id }
    }

    fn announce(announced: &mut AnnouncedRates, domain: DomainKey, rates: &[(Selector, u32)]) -> u64 {
        let rates: Vec<Announcement> = rates.iter().map(|(selector, rate)| says(*selector, *rate)).collect();
        announced.announce(template(domain, 512), &rates, ROOM, NOW_MS)
    }

    fn announced(rates: &[(Selector, u32)]) -> AnnouncedRates {
        let mut announced = AnnouncedRates::default();
        announce(&mut announced, DOMAIN, rates);
        announced
    }

    fn rate(
        config: ExporterSampling,
        record: u32,
        announced: &AnnouncedRates,
        named: FlowScope,
    ) -> (u32, SamplingSource) {
        let chosen = choose(config, told(record), announced, DOMAIN, named);
        (chosen.rate, chosen.source)
    }

    fn plain_rate(announced: &AnnouncedRates, named: FlowScope) -> (u32, SamplingSource) {
        rate(ExporterSampling::default(), 0, announced, named)
    }

    #[test]
    fn the_most_specific_rate_is_chosen() {
        let mut config = ExporterSampling::default();
        let mut announced = AnnouncedRates::default();
        let rate = |config, record, announced: &AnnouncedRates, named| rate(config, record, announced, sampler(named));
        assert_eq!(rate(config, 0, &announced, 7), (0, SamplingSource::Unknown));
        config.default_rate = Some(10);
        assert_eq!(rate(config, 0, &announced, 7), (10, SamplingSource::Default));
        announce(&mut announced, OTHER, &[(WHOLE_DOMAIN, 20)]);
        assert_eq!(rate(config, 0, &announced, 7), (20, SamplingSource::OptionsExporter));
        announce(&mut announced, DOMAIN, &[(WHOLE_DOMAIN, 30)]);
        assert_eq!(rate(config, 0, &announced, 7), (30, SamplingSource::OptionsDomain));
        announce(&mut announced, DOMAIN, &[(of_sampler(7), 40)]);
        assert_eq!(rate(config, 0, &announced, 7), (40, SamplingSource::OptionsSampler));
        assert_eq!(rate(config, 0, &announced, 0), (30, SamplingSource::OptionsDomain));
        assert_eq!(rate(config, 0, &announced, 8), (0, SamplingSource::SamplerNotAnnounced));
        assert_eq!(rate(config, 50, &announced, 7), (50, SamplingSource::PerRecord));
        config.override_rate = Some(60);
        assert_eq!(rate(config, 50, &announced, 7), (60, SamplingSource::Override));
    }

    #[test]
    fn announcements_that_disagree_decide_nothing_for_others() {
        let mut announced = announced(&[(of_sampler(1), 100)]);
        assert_eq!(
            plain_rate(&announced, sampler(0)),
            (100, SamplingSource::OptionsDomain),
            "one sampler speaks for records that name none"
        );
        announce(&mut announced, DOMAIN, &[(of_sampler(2), 200)]);
        assert_eq!(plain_rate(&announced, sampler(0)), (0, SamplingSource::Ambiguous));
        assert_eq!(
            plain_rate(&announced, sampler(2)),
            (200, SamplingSource::OptionsSampler)
        );
        let beyond = [says(of_sampler(3), 1)];
        let by = template(DOMAIN, 512);
        assert_eq!(
            announced.announce(by, &beyond, AnnouncementCapacity { of_domain: 2, ..ROOM }, NOW_MS),
            1,
            "the limit holds"
        );
        assert_eq!(
            announced.announce(
                by,
                &beyond,
                AnnouncementCapacity {
                    elsewhere: MAX_SAMPLERS_PER_EXPORTER,
                    ..ROOM
                },
                NOW_MS
            ),
            1
        );
        let full = AnnouncementCapacity { of_session: 2, ..ROOM };
        let of_others = [says(of_sampler(3), 1), says(WHOLE_DOMAIN, 1)];
        assert_eq!(
            announced.announce(by, &of_others, full, NOW_MS),
            2,
            "of the session, whatever it is"
        );
        assert_eq!(announced.announce(template(OTHER, 512), &of_others, full, NOW_MS), 2);
        let kept = serde_json::to_value(&announced).unwrap();
        let domains = kept["domains"].as_object().unwrap();
        assert_eq!(domains.len(), 1, "nothing is kept of a domain without any");
        assert_eq!(
            announce(&mut announced, DOMAIN, &[(of_sampler(2), 100)]),
            0,
            "a known sampler may change"
        );
        assert_eq!(plain_rate(&announced, sampler(0)).0, 100);
    }

    #[test]
    fn case_08e_a_sampler_that_was_not_announced_has_no_rate() {
        let mut announced = announced(&[(of_sampler(1), 1000)]);
        assert_eq!(
            plain_rate(&announced, sampler(1)),
            (1000, SamplingSource::OptionsSampler)
        );
        let with_default = ExporterSampling {
            default_rate: Some(10),
            ..ExporterSampling::default()
        };
        for config in [ExporterSampling::default(), with_default] {
            let chosen = choose(config, StatedRate::default(), &announced, DOMAIN, sampler(7));
            assert_eq!((chosen.rate, chosen.source), (0, SamplingSource::SamplerNotAnnounced));
            assert_eq!(chosen.marks(), marks::SAMPLER_NOT_ANNOUNCED);
        }
        // Announced in another domain, it has one.
        announce(&mut announced, OTHER, &[(of_sampler(7), 500)]);
        assert_eq!(
            plain_rate(&announced, sampler(7)),
            (500, SamplingSource::OptionsSampler)
        );
    }

    #[test]
    fn case_08a_a_rate_of_a_template_is_not_the_domains() {
        let announced = announced(&[(of_template(1910), 1000), (of_template(1911), 10_000)]);
        let rate = |template| plain_rate(&announced, FlowScope::template(template));
        assert_eq!(rate(1910), (1000, SamplingSource::OptionsTemplate));
        assert_eq!(rate(1911), (10_000, SamplingSource::OptionsTemplate));
        assert_eq!(rate(1912), (0, SamplingSource::Ambiguous));
    }

    #[test]
    fn a_scope_that_is_not_understood_never_becomes_the_domains() {
        let with_default = ExporterSampling {
            default_rate: Some(10),
            ..ExporterSampling::default()
        };
        let named = FlowScope::template(256);
        let one = announced(&[(of_other(77), 1000)]);
        assert_eq!(
            plain_rate(&one, named),
            (0, SamplingSource::Ambiguous),
            "of one line card"
        );
        assert_eq!(rate(with_default, 0, &one, named).0, 0, "nor does the default stand in");
        let chosen = choose(with_default, StatedRate::default(), &one, DOMAIN, named);
        assert_eq!(chosen.marks(), marks::RATE_AMBIGUOUS);
        let beside = announced(&[(WHOLE_DOMAIN, 1000), (of_other(77), 1000)]);
        assert_eq!(
            plain_rate(&beside, named).0,
            1000,
            "the domain's own, which they agree on"
        );
        let against = announced(&[(WHOLE_DOMAIN, 1000), (of_other(77), 10)]);
        assert_eq!(plain_rate(&against, named).0, 0);
        let of_card = |other, rate| (Selector { other, ..of_sampler(1) }, rate);
        let agreeing = announced(&[of_card(1, 100), of_card(2, 100)]);
        assert_eq!(
            plain_rate(&agreeing, sampler(1)).0,
            100,
            "what they name otherwise holds"
        );
        let differing = announced(&[of_card(1, 100), of_card(2, 200)]);
        assert_eq!(plain_rate(&differing, sampler(1)), (0, SamplingSource::Ambiguous));
        let elsewhere = {
            let mut rates = AnnouncedRates::default();
            announce(&mut rates, OTHER, &[(of_other(77), 1000)]);
            rates
        };
        assert_eq!(plain_rate(&elsewhere, named), (0, SamplingSource::Unknown));
    }

    #[test]
    fn case_08b_rates_of_interfaces_hold_where_a_flow_was_observed() {
        let announced = announced(&[(of_interface(513), 100), (of_interface(514), 10_000)]);
        let rate = |in_if, out_if, direction| {
            let named = FlowScope {
                in_if,
                out_if,
                direction,
                ..FlowScope::template(256)
            };
            plain_rate(&announced, named)
        };
        assert_eq!(rate(513, 600, 255), (100, SamplingSource::OptionsInterface));
        assert_eq!(
            rate(514, 513, 255),
            (10_000, SamplingSource::OptionsInterface),
            "where it came in"
        );
        assert_eq!(rate(514, 513, 1).0, 100, "it says that it was observed on its way out");
        assert_eq!(rate(600, 513, 255).0, 100, "only its way out has a rate");
        assert_eq!(
            rate(600, 513, 0),
            (0, SamplingSource::Ambiguous),
            "it says that it was not"
        );
        assert_eq!(rate(600, 601, 255), (0, SamplingSource::Ambiguous));
        assert_eq!(rate(0, 0, 255), (0, SamplingSource::Ambiguous));
    }

    #[test]
    fn more_that_is_named_is_more_specific_and_equals_must_agree() {
        let both = Selector {
            interface: 513,
            direction: 1,
            ..WHOLE_DOMAIN
        };
        let named = |direction| FlowScope {
            in_if: 513,
            out_if: 513,
            direction,
            ..sampler(1)
        };
        let rates = announced(&[(of_interface(513), 100), (both, 200)]);
        assert_eq!(plain_rate(&rates, named(1)).0, 200);
        assert_eq!(plain_rate(&rates, named(0)).0, 100);
        let at = |interface, direction, rate| {
            let selector = Selector {
                interface,
                direction,
                ..WHOLE_DOMAIN
            };
            (selector, rate)
        };
        let rates = announced(&[at(513, 0, 100), at(513, 1, 200), at(514, 1, 300)]);
        let crossing = |in_if, out_if| FlowScope {
            in_if,
            out_if,
            ..FlowScope::template(256)
        };
        assert_eq!(
            plain_rate(&rates, crossing(513, 514)).0,
            100,
            "where it came in, for want of a direction"
        );
        assert_eq!(plain_rate(&rates, crossing(600, 514)).0, 300);
        let rates = announced(&[(of_interface(513), 100), (of_sampler(1), 200)]);
        assert_eq!(plain_rate(&rates, named(1)), (0, SamplingSource::Ambiguous));
        let rates = announced(&[(of_interface(513), 100), (of_sampler(1), 100)]);
        assert_eq!(plain_rate(&rates, named(1)).0, 100);
        let direction = |direction| Selector {
            direction,
            ..WHOLE_DOMAIN
        };
        let rates = announced(&[(direction(0), 100), (direction(1), 200)]);
        assert_eq!(plain_rate(&rates, named(1)), (200, SamplingSource::OptionsDirection));
        assert_eq!(plain_rate(&rates, named(255)), (0, SamplingSource::Ambiguous));
    }

    #[test]
    fn case_26_a_rate_orders_of_magnitude_from_its_history_is_marked() {
        let mut rates = announced(&[(WHOLE_DOMAIN, 1000)]);
        let mut marked = |rate: u32, at_ms: i64| {
            rates.announce(template(DOMAIN, 512), &[says(WHOLE_DOMAIN, rate)], ROOM, at_ms);
            let chosen = choose(
                ExporterSampling::default(),
                StatedRate::default(),
                &rates,
                DOMAIN,
                sampler(0),
            );
            assert_eq!(chosen.rate, rate, "it is used");
            chosen.marks() == marks::RATE_IMPLAUSIBLE
        };
        assert!(!marked(1000, NOW_MS));
        assert!(!marked(4096, NOW_MS + 1), "a change that people make");
        assert!(marked(1, NOW_MS + 2));
        assert!(marked(1, NOW_MS + 3));
        assert!(!marked(4096, NOW_MS + 4), "it was an error, and is over");
        assert!(marked(10, NOW_MS + 5));
        assert!(!marked(10, NOW_MS + 5 + DAY_MS), "who says so for a day means it");
        let told = SamplingElements {
            packet_interval: 0x0100_0000,
            packet_space: Some(0xe803_0000),
            ..SamplingElements::default()
        }
        .told();
        let per_record = choose(ExporterSampling::default(), told, &rates, DOMAIN, sampler(0));
        assert_eq!(per_record.marks(), marks::RATE_IMPLAUSIBLE);
        let repaired = ExporterSampling {
            override_rate: Some(1001),
            ..ExporterSampling::default()
        };
        let chosen = choose(repaired, told, &rates, DOMAIN, sampler(0));
        assert_eq!((chosen.rate, chosen.marks()), (1001, 0));
    }

    #[test]
    fn announced_rates_survive_a_checkpoint_and_those_of_version_1_0_are_read() {
        let mut rates = announced(&[
            (WHOLE_DOMAIN, 7),
            (of_sampler(3), 9),
            (of_other(5), 9),
            (of_template(300), 1),
        ]);
        let implausible = Announcement {
            domain: Some(0),
            selector: of_interface(8),
            told: StatedRate {
                implausible: true,
                ..told(5)
            },
        };
        rates.announce(template(OTHER, 512), &[implausible], ROOM, NOW_MS);
        let json = serde_json::to_string(&rates).unwrap();
        assert_eq!(serde_json::from_str::<AnnouncedRates>(&json).unwrap(), rates);
        let stored = serde_json::json!({
            "domains": { "10/1": {
                "plain": 30, "samplers": { "7": 40, "9223372036854776321": 50 },
                "of_samplers": { "lowest": 40, "highest": 50 },
            } },
            "of_exporter": { "lowest": 30, "highest": 50 }, "samplers": 2,
        });
        let rates: AnnouncedRates = serde_json::from_value(stored).unwrap();
        let interface = FlowScope {
            in_if: 513,
            ..FlowScope::template(256)
        };
        let found = [sampler(7), interface, sampler(0)].map(|named| plain_rate(&rates, named).0);
        assert_eq!((found, rates.samplers()), ([40, 50, 30], 3));
    }

    #[test]
    fn a_rate_ends_with_its_options_template() {
        let mut rates = AnnouncedRates::default();
        rates.announce(template(DOMAIN, 300), &[says(of_interface(1), 1000)], ROOM, NOW_MS);
        rates.announce(template(DOMAIN, 301), &[says(WHOLE_DOMAIN, 100)], ROOM, NOW_MS);
        let named = FlowScope {
            in_if: 1,
            ..FlowScope::template(256)
        };
        assert_eq!(plain_rate(&rates, named), (1000, SamplingSource::OptionsInterface));
        assert_eq!(rates.end_of_template(template(OTHER, 300)), 0, "of another domain");
        assert_eq!(rates.end_of_template(template(DOMAIN, 300)), 1);
        assert_eq!(plain_rate(&rates, named), (100, SamplingSource::OptionsDomain));
        assert_eq!((rates.ended(), rates.samplers()), (1, 1));
    }

    #[test]
    fn a_rate_that_is_not_repeated_while_others_are_ends() {
        const HALF_HOUR_MS: i64 = 1_800_000;
        let named = FlowScope {
            in_if: 1,
            ..FlowScope::template(256)
        };
        // The collector hears nothing for three days, then the domain's rate first.
        let mut rates = AnnouncedRates::default();
        let announce = |rates: &mut AnnouncedRates, selector, rate, at_ms: i64| {
            rates.announce(template(DOMAIN, 300), &[says(selector, rate)], ROOM, NOW_MS + at_ms);
            rates.end_silent(NOW_MS + at_ms)
        };
        for round in 0..4 {
            announce(&mut rates, WHOLE_DOMAIN, 100, round * HALF_HOUR_MS);
            announce(&mut rates, of_interface(1), 1000, round * HALF_HOUR_MS + 1);
        }
        assert_eq!(announce(&mut rates, WHOLE_DOMAIN, 100, 3 * DAY_MS), 0);
        assert_eq!(plain_rate(&rates, named).0, 1000);
        // Announced twice, half an hour apart, then left out while others are.
        let mut rates = AnnouncedRates::default();
        for round in 0..2 {
            announce(&mut rates, of_interface(1), 1000, round * HALF_HOUR_MS);
        }
        let ended: Vec<u64> = (2..8_i64)
            .map(|round| announce(&mut rates, WHOLE_DOMAIN, 100, round * HALF_HOUR_MS))
            .collect();
        assert_eq!(ended.iter().sum::<u64>(), 1, "{ended:?}");
        assert_eq!(ended[..3], [0, 0, 0], "at least three intervals");
        assert_eq!(plain_rate(&rates, named), (100, SamplingSource::OptionsDomain));
        // What was announced once has two days.
        let mut rates = AnnouncedRates::default();
        announce(&mut rates, of_interface(1), 1000, 0);
        let ended_after = (1..200_i64).find(|round| announce(&mut rates, WHOLE_DOMAIN, 100, *round * HALF_HOUR_MS) > 0);
        assert_eq!(ended_after, Some(97));
    }

    #[test]
    fn a_domain_that_a_record_names_is_the_one_it_holds_for() {
        let mut rates = AnnouncedRates::default();
        let of_domain = |domain, rate| Announcement {
            domain: Some(domain),
            ..says(WHOLE_DOMAIN, rate)
        };
        let key = |observation_domain| DomainKey {
            observation_domain,
            ..DOMAIN
        };
        let told = [of_domain(5, 100), of_domain(6, 400)];
        rates.announce(template(key(0), 300), &told, ROOM, NOW_MS);
        let found = |rates: &AnnouncedRates, domain| {
            let chosen = choose(
                ExporterSampling::default(),
                StatedRate::default(),
                rates,
                key(domain),
                FlowScope::template(256),
            );
            (chosen.rate, chosen.source)
        };
        assert_eq!(found(&rates, 5), (100, SamplingSource::OptionsDomain));
        assert_eq!(found(&rates, 6), (400, SamplingSource::OptionsDomain));
        assert_eq!(found(&rates, 7), (0, SamplingSource::Unknown), "nothing was said of it");
        rates.announce(template(key(0), 301), &[of_domain(0, 1000)], ROOM, NOW_MS);
        assert_eq!(
            found(&rates, 7),
            (1000, SamplingSource::OptionsExporter),
            "0 is the whole exporter"
        );
        assert_eq!(found(&rates, 5).0, 100);
        // Each line card says 0 and means itself: its own holds, and for others they contradict each other.
        rates.announce(template(key(8), 301), &[of_domain(0, 10)], ROOM, NOW_MS);
        assert_eq!((found(&rates, 8).0, found(&rates, 0).0), (10, 1000));
        assert_eq!(found(&rates, 7), (0, SamplingSource::Ambiguous));
        // Domains that are named are bounded.
        let many: Vec<Announcement> = (0..1_000).map(|domain| of_domain(10 + domain, 1)).collect();
        let refused = rates.announce(template(key(0), 302), &many, ROOM, NOW_MS);
        assert_eq!(refused, 1_000 - (MAX_RATE_DOMAINS as u64 - 4));
    }

    #[test]
    fn a_configured_rate_of_zero_says_nothing() {
        let mut config = SamplingConfig {
            default_rate: Some(5),
            ..SamplingConfig::default()
        };
        let exporter: Address = "192.0.2.1".parse().unwrap();
        let zero = ExporterSampling {
            override_rate: Some(0),
            default_rate: Some(0),
            ..ExporterSampling::default()
        };
        config.exporters.insert(exporter, None, zero);
        assert_eq!(config.of(exporter).override_rate, None);
        assert_eq!(config.of(exporter).default_rate, Some(5));
    }
}
