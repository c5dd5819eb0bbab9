//! Which sampling rate a flow is scaled by: [`choose`] is the only place that decides.
//!
//! A rate of `n` means that one packet in `n` was looked at; 0 means that nobody said. Most specific first:
//!
//! 1. the configured override of the exporter,
//! 2. what the record itself says (IE 34, 50, 305/306, 309/310; the sampling word of a v5 header),
//! 3. options data by (exporter, observation domain, sampler: IE 48 or 302),
//! 4. options data by (exporter, observation domain),
//! 5. options data by exporter: Juniper's options may come in another domain than its data,
//! 6. the configured default of the exporter, then of the collector,
//! 7. nothing: rate 0, kept and counted, never billed silently.
//!
//! Steps 4 and 5 answer only when there is one answer: samplers or domains that announce different rates leave the
//! choice to the next step, because a guess would be billed. A rate that is announced for one interface counts as a
//! sampler of its own there, and step 3 finds it for the flows of that interface: the input interface, or the output
//! interface of a flow that was observed on its way out.

use std::collections::BTreeMap;

use schemas::address::Address;
use schemas::flow::Flow;
use schemas::metering::MeteringConfig;
use serde::{Deserialize, Serialize};

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
}

/// Sampling as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SamplingConfig {
    pub exporters: BTreeMap<Address, ExporterSampling>,
    /// For exporters that neither say a rate nor have a default of their own.
    pub default_rate: Option<u32>,
    /// The upper two bits of the sampling word in a v5 header are a mode (Cisco); without it all 16 bits are the interval.
    pub v5_mode_bits: bool,
}

impl Default for SamplingConfig {
    fn default() -> SamplingConfig {
        SamplingConfig {
            exporters: BTreeMap::new(),
            default_rate: None,
            v5_mode_bits: true,
        }
    }
}

impl From<&MeteringConfig> for SamplingConfig {
    fn from(config: &MeteringConfig) -> SamplingConfig {
        let exporters = config.exporters.iter().map(|exporter| {
            (
                exporter.address,
                ExporterSampling {
                    override_rate: exporter.sampling_rate,
                    default_rate: exporter.default_sampling_rate,
                    v5_mode_bits: exporter.v5_sampling_mode_bits,
                },
            )
        });
        SamplingConfig {
            exporters: exporters.collect(),
            default_rate: config.decoding.default_sampling_rate,
            v5_mode_bits: config.decoding.v5_sampling_mode_bits,
        }
    }
}

impl SamplingConfig {
    /// What is configured for one exporter, with the collector's default filled in. A configured 0 says nothing.
    pub fn of(&self, exporter: Address) -> ExporterSampling {
        let own = self.exporters.get(&exporter).copied().unwrap_or_default();
        ExporterSampling {
            override_rate: known(own.override_rate),
            default_rate: known(own.default_rate).or(known(self.default_rate)),
            v5_mode_bits: own.v5_mode_bits.or(Some(self.v5_mode_bits)),
        }
    }

    /// Whether the configuration names this exporter.
    pub fn lists(&self, exporter: Address) -> bool {
        self.exporters.contains_key(&exporter)
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
    OptionsDomain,
    OptionsExporter,
    Default,
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
            SamplingSource::OptionsDomain => "options of the domain",
            SamplingSource::OptionsExporter => "options of the exporter",
            SamplingSource::Default => "configured default",
            SamplingSource::Unknown => "unknown",
        }
    }
}

/// A rate and who said it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ChosenRate {
    /// One packet in so many; 0 = not known.
    pub rate: u32,
    pub source: SamplingSource,
}

/// Chooses the sampling rate of a flow; the module describes the order.
///
/// `told_by_record` and `sampler` come from the record; 0 means that it did not say.
pub fn choose(
    config: ExporterSampling,
    told_by_record: u32,
    announced: &AnnouncedRates,
    domain: DomainKey,
    sampler: u64,
) -> ChosenRate {
    let chosen = |rate, source| ChosenRate { rate, source };
    if let Some(rate) = config.override_rate {
        return chosen(rate, SamplingSource::Override);
    }
    if told_by_record != 0 {
        return chosen(told_by_record, SamplingSource::PerRecord);
    }
    if let Some(rates) = announced.domains.get(&domain) {
        if let Some(&rate) = rates.samplers.get(&sampler) {
            let source = if sampler & INTERFACE_SAMPLER != 0 {
                SamplingSource::OptionsInterface
            } else {
                SamplingSource::OptionsSampler
            };
            return chosen(rate, source);
        }
        if let Some(rate) = rates.of_domain() {
            return chosen(rate, SamplingSource::OptionsDomain);
        }
    }
    if let Some(rate) = announced.of_exporter.and_then(RateRange::agreed) {
        return chosen(rate, SamplingSource::OptionsExporter);
    }
    match config.default_rate {
        Some(rate) => chosen(rate, SamplingSource::Default),
        None => ChosenRate::default(),
    }
}

fn known(rate: Option<u32>) -> Option<u32> {
    rate.filter(|rate| *rate != 0)
}

/// The bit that tells an interface from a sampler: above every id that a sampler can have in practice.
const INTERFACE_SAMPLER: u64 = 1 << 63;

/// Stands for the sampler of an interface whose options data names none.
pub fn interface_sampler(if_index: u64) -> u64 {
    INTERFACE_SAMPLER | if_index
}

/// The sampler of a flow that names none, in a domain that announces rates by interface: that of the interface it was
/// observed at; 0 where it tells none. A flow that does not say otherwise was observed where it came in.
pub fn sampler_of_flow(flow: &Flow) -> u64 {
    const EGRESS: u8 = 1;
    match if flow.direction == EGRESS {
        flow.out_if
    } else {
        flow.in_if
    } {
        0 => 0,
        if_index => interface_sampler(u64::from(if_index)),
    }
}

/// The rates that one exporter announced in options data.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AnnouncedRates {
    domains: BTreeMap<DomainKey, DomainRates>,
    /// Of all announcements.
    of_exporter: Option<RateRange>,
    /// In all domains.
    #[serde(default)]
    samplers: usize,
}

/// Samplers and interfaces that one exporter may announce rates for, in all its domains.
pub const MAX_SAMPLERS_PER_EXPORTER: usize = 8_192;

#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct DomainRates {
    /// Announced without a sampler.
    plain: Option<u32>,
    samplers: BTreeMap<u64, u32>,
    /// Of all samplers.
    of_samplers: Option<RateRange>,
}

impl DomainRates {
    fn of_domain(&self) -> Option<u32> {
        self.plain.or_else(|| self.of_samplers.and_then(RateRange::agreed))
    }
}

impl AnnouncedRates {
    /// Takes the announcements of one set of options data, (sampler, rate) each; sampler 0 speaks for the domain. Answers
    /// how many were refused because the domain already has `max_samplers` others, or the exporter
    /// [`MAX_SAMPLERS_PER_EXPORTER`].
    ///
    /// The cost is bounded by the announcements, the domain's samplers and the exporter's domains, added up: a hostile
    /// exporter cannot make it their product.
    pub fn announce(&mut self, domain: DomainKey, announcements: &[(u64, u32)], max_samplers: usize) -> u64 {
        let rates = self.domains.entry(domain).or_default();
        let (mut refused, mut changed) = (0, false);
        for &(sampler, rate) in announcements {
            if sampler == 0 {
                changed |= rates.plain != Some(rate);
                rates.plain = Some(rate);
            } else if let Some(known) = rates.samplers.get_mut(&sampler) {
                changed |= *known != rate;
                *known = rate;
            } else if rates.samplers.len() < max_samplers && self.samplers < MAX_SAMPLERS_PER_EXPORTER {
                rates.samplers.insert(sampler, rate);
                self.samplers += 1;
                changed = true;
            } else {
                refused += 1;
            }
        }
        if changed {
            rates.of_samplers = RateRange::of(rates.samplers.values().copied());
            let ranges = self
                .domains
                .values()
                .flat_map(|rates| rates.plain.map(RateRange::one).into_iter().chain(rates.of_samplers));
            self.of_exporter = ranges.reduce(RateRange::join);
        }
        refused
    }

    /// Whether a domain announced rates by interface.
    pub fn by_interface(&self, domain: DomainKey) -> bool {
        // Interfaces are numbered above all samplers.
        self.domains
            .get(&domain)
            .and_then(|rates| rates.samplers.last_key_value())
            .is_some_and(|(sampler, _)| sampler & INTERFACE_SAMPLER != 0)
    }

    /// How many samplers are known in all domains.
    pub fn samplers(&self) -> usize {
        self.samplers
    }
}

/// The lowest and the highest of some rates: they agree when both are one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct RateRange {
    lowest: u32,
    highest: u32,
}

impl RateRange {
    fn one(rate: u32) -> RateRange {
        RateRange {
            lowest: rate,
            highest: rate,
        }
    }

    fn join(self, other: RateRange) -> RateRange {
        RateRange {
            lowest: self.lowest.min(other.lowest),
            highest: self.highest.max(other.highest),
        }
    }

    fn of(rates: impl Iterator<Item = u32>) -> Option<RateRange> {
        rates.map(RateRange::one).reduce(RateRange::join)
    }

    fn agreed(self) -> Option<u32> {
        (self.lowest == self.highest).then_some(self.lowest)
    }
}

/// The elements that speak of sampling, as one record or options record carries them; 0 = absent.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct SamplingElements {
    /// IE 34 samplingInterval.
    pub interval: u64,
    /// IE 50 samplerRandomInterval.
    pub random_interval: u64,
    /// IE 305 samplingPacketInterval: packets taken in a row.
    pub packet_interval: u64,
    /// IE 306 samplingPacketSpace: packets left out between; `None` where the element is absent.
    pub packet_space: Option<u64>,
    /// IE 309 samplingSize, `n` of n-out-of-N.
    pub size: u64,
    /// IE 310 samplingPopulation, `N` of n-out-of-N.
    pub population: u64,
    /// IE 311 samplingProbability.
    pub probability: f64,
}

impl SamplingElements {
    /// The rate they give, 0 when they give none (RFC 5477 §8.2): `(interval + space) / interval`, else `N / n`, else
    /// `1 / probability`, else IE 50, else IE 34. IE 305 without 306 and without n-out-of-N is what several routers
    /// send for one packet in so many, and is read so.
    pub fn rate(&self) -> u32 {
        let rate = match self.packet_space {
            Some(space) if self.packet_interval != 0 => {
                rounded(self.packet_interval.saturating_add(space), self.packet_interval)
            }
            _ if self.population != 0 && self.size != 0 => rounded(self.population, self.size),
            _ if self.probability > 0.0 && self.probability <= 1.0 => (1.0 / self.probability).round() as u64,
            _ if self.random_interval != 0 => self.random_interval,
            _ if self.interval != 0 => self.interval,
            _ => self.packet_interval,
        };
        u32::try_from(rate).unwrap_or(u32::MAX)
    }
}

fn rounded(dividend: u64, divisor: u64) -> u64 {
    dividend.saturating_add(divisor / 2) / divisor
}

/// The rate in the sampling word of a v5 header; 0 says nothing.
pub fn v5_rate(word: u16, mode_bits: bool) -> u32 {
    u32::from(if mode_bits { word & 0x3fff } else { word })
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

    fn rate(config: ExporterSampling, record: u32, announced: &AnnouncedRates, sampler: u64) -> (u32, SamplingSource) {
        let chosen = choose(config, record, announced, DOMAIN, sampler);
        (chosen.rate, chosen.source)
    }

    #[test]
    fn the_most_specific_rate_is_chosen() {
        let mut config = ExporterSampling::default();
        let mut announced = AnnouncedRates::default();
        assert_eq!(rate(config, 0, &announced, 7), (0, SamplingSource::Unknown));
        config.default_rate = Some(10);
        assert_eq!(rate(config, 0, &announced, 7), (10, SamplingSource::Default));
        announced.announce(OTHER, &[(0, 20)], 9);
        assert_eq!(rate(config, 0, &announced, 7), (20, SamplingSource::OptionsExporter));
        announced.announce(DOMAIN, &[(0, 30)], 9);
        assert_eq!(rate(config, 0, &announced, 7), (30, SamplingSource::OptionsDomain));
        announced.announce(DOMAIN, &[(7, 40)], 9);
        assert_eq!(rate(config, 0, &announced, 7), (40, SamplingSource::OptionsSampler));
        assert_eq!(rate(config, 0, &announced, 8), (30, SamplingSource::OptionsDomain));
        assert_eq!(rate(config, 50, &announced, 7), (50, SamplingSource::PerRecord));
        config.override_rate = Some(60);
        assert_eq!(rate(config, 50, &announced, 7), (60, SamplingSource::Override));
    }

    #[test]
    fn announcements_that_disagree_decide_nothing_for_others() {
        let mut announced = AnnouncedRates::default();
        announced.announce(DOMAIN, &[(1, 100)], 9);
        assert_eq!(
            rate(ExporterSampling::default(), 0, &announced, 0),
            (100, SamplingSource::OptionsDomain),
            "one sampler speaks for records that name none"
        );
        announced.announce(DOMAIN, &[(2, 200)], 9);
        assert_eq!(
            rate(ExporterSampling::default(), 0, &announced, 0),
            (0, SamplingSource::Unknown)
        );
        assert_eq!(
            rate(ExporterSampling::default(), 0, &announced, 2),
            (200, SamplingSource::OptionsSampler)
        );
        assert_eq!(announced.announce(DOMAIN, &[(3, 1)], 2), 1, "the limit holds");
        assert_eq!(
            announced.announce(DOMAIN, &[(2, 100)], 2),
            0,
            "a known sampler may change"
        );
        assert_eq!(rate(ExporterSampling::default(), 0, &announced, 0).0, 100);
    }

    #[test]
    fn elements_give_their_rate() {
        let none = SamplingElements::default();
        assert_eq!(none.rate(), 0);
        let systematic = |packet_interval, packet_space| SamplingElements {
            packet_interval,
            packet_space,
            ..none
        };
        assert_eq!(systematic(1, Some(999)).rate(), 1000);
        assert_eq!(systematic(1, Some(0)).rate(), 1);
        assert_eq!(systematic(0, Some(999)).rate(), 0);
        assert_eq!(systematic(1000, None).rate(), 1000);
        let n_of_n = SamplingElements {
            size: 1,
            population: 256,
            packet_interval: 1,
            ..none
        };
        assert_eq!(n_of_n.rate(), 256, "IOS XR also sends packetInterval 1");
        let random = SamplingElements {
            random_interval: 512,
            interval: 7,
            ..none
        };
        assert_eq!(random.rate(), 512);
        let probability = SamplingElements {
            probability: 0.01,
            ..none
        };
        assert_eq!(probability.rate(), 100);
        assert_eq!(
            SamplingElements {
                interval: u64::MAX,
                ..none
            }
            .rate(),
            u32::MAX
        );
        assert_eq!(
            (v5_rate(0x43e8, true), v5_rate(0x43e8, false), v5_rate(0, true)),
            (1000, 0x43e8, 0)
        );
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
        config.exporters.insert(exporter, zero);
        assert_eq!(config.of(exporter).override_rate, None);
        assert_eq!(config.of(exporter).default_rate, Some(5));
    }
}
