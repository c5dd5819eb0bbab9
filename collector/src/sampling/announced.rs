//! Rates that an exporter announced in options data, and what they hold for.
//!
//! An announcement holds for what its record names, in its scope or beside it: a sampler, an interface, a direction, a template, or
//! several of these together ([`Selector`]); for its whole domain where it names nothing. Exporters scope rates by other things,
//! too (a line card, an observation point, a name): what such a thing covers is not known, so that the rate is kept for what the
//! record names otherwise, and never becomes the domain's. What only the name of an interface narrows is the domain's as long as
//! all such announcements agree: software probes name the one interface they listen on, and their flows give no index.
//!
//! Its domain is that of its message, unless its record names another one (IE 149); domain 0 names the whole exporter (RFC 7011 §3.1): such a
//! rate holds for domains of which nothing else was said.
//!
//! A rate ends when its options template is withdrawn or gets another layout, and when it was not announced again while the session
//! announced others for long: a router that samples otherwise now says so in another way, and what it said before would outrank
//! that for ever.

use std::collections::{BTreeMap, BTreeSet};

use schemas::sampling::SamplingRate;
use serde::{Deserialize, Serialize};
use tables::flow::DIRECTION_UNKNOWN;

use super::{DomainKey, SamplingSource, StatedRate};

/// Announcements that one exporter may make, in all its domains.
pub const MAX_SAMPLERS_PER_EXPORTER: usize = 8_192;
/// A rate that changes by this factor is not believed at once.
const JUMP: u64 = 100;
/// What is announced for so long is meant.
const JUMP_BELIEVED_AFTER_MS: i64 = 24 * 60 * 60 * 1000;
/// Domains that one session may name in its announcements.
pub const MAX_RATE_DOMAINS: usize = 256;
/// A rate that is repeated ends when it was not for so many of its intervals, and at least for an hour.
const INTERVALS_TO_SILENCE: i64 = 3;
const SILENCE_MIN_MS: i64 = 60 * 60 * 1000;
/// One that was announced once: some routers announce once a day.
const SILENCE_OF_ONE_MS: i64 = 48 * 60 * 60 * 1000;
/// And the session must have announced others so often since: a collector that was down has heard nobody.
const ROUNDS_TO_SILENCE: u64 = 3;
/// Announcements that follow sooner are of one round.
const ROUND_MIN_MS: i64 = 60 * 1000;
/// The bit by which version 1.0 told interfaces from samplers.
const INTERFACE_SAMPLER_1_0: u64 = 1 << 63;

/// What an announced rate holds for; what is not named is any.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Selector {
    /// IE 302 or 48; 0 = any.
    pub sampler: u64,
    /// SNMP index; 0 = any.
    pub interface: u32,
    /// As in the `flows` table; 255 = any.
    pub direction: u8,
    /// 0 = any.
    pub template: u16,
    /// Stands for the values of what is not understood; 0 = there is nothing of the kind.
    pub other: u64,
}

/// The whole domain.
pub const WHOLE_DOMAIN: Selector = Selector {
    sampler: 0,
    interface: 0,
    direction: DIRECTION_UNKNOWN,
    template: 0,
    other: 0,
};

/// What a flow names that a rate may be announced for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowScope {
    pub sampler: u64,
    pub in_if: u32,
    pub out_if: u32,
    pub direction: u8,
    pub template: u16,
}

impl FlowScope {
    /// A flow of a template that names nothing else.
    pub fn template(template: u16) -> FlowScope {
        FlowScope {
            sampler: 0,
            in_if: 0,
            out_if: 0,
            direction: DIRECTION_UNKNOWN,
            template,
        }
    }

    /// The interfaces it may have been observed at, and in which direction there; the likeliest first. A flow that does not say
    /// otherwise was observed where it came in, unless a rate is announced for its way out only.
    fn observed_at(self) -> [(u32, u8); 2] {
        const INGRESS: u8 = 0;
        const EGRESS: u8 = 1;
        match self.direction {
            INGRESS => [(self.in_if, INGRESS), (0, INGRESS)],
            EGRESS => [(self.out_if, EGRESS), (0, EGRESS)],
            _ => [(self.in_if, INGRESS), (self.out_if, EGRESS)],
        }
    }
}

/// Which of sampler, interface, direction and template some selectors name.
type Shape = u8;
const SAMPLER: Shape = 1;
const INTERFACE: Shape = 2;
const DIRECTION: Shape = 4;
const TEMPLATE: Shape = 8;

/// The bit of `other` that says that nothing but names of interfaces is not understood.
const ONLY_NAMES: u64 = 1 << 63;

impl Selector {
    /// Stands for the values of what is not understood, and of names of interfaces; 0 where there are neither.
    pub fn other_of(not_understood: u64, names: u64) -> u64 {
        match (not_understood, names) {
            (0, 0) => 0,
            (0, names) => names | ONLY_NAMES,
            (not_understood, names) => ((not_understood ^ names.rotate_left(1)) & !ONLY_NAMES).max(1),
        }
    }

    /// Beside what is understood it only names interfaces, as software probes do that have one and whose flows give no index.
    fn only_names(self) -> bool {
        self.other & ONLY_NAMES != 0
    }

    fn shape(self) -> Shape {
        let named = |is_named: bool, shape| if is_named { shape } else { 0 };
        named(self.sampler != 0, SAMPLER)
            | named(self.interface != 0, INTERFACE)
            | named(self.direction != DIRECTION_UNKNOWN, DIRECTION)
            | named(self.template != 0, TEMPLATE)
    }

    /// Without what is not understood.
    fn understood(self) -> Selector {
        Selector { other: 0, ..self }
    }
}

/// An options template: what its data announced ends with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OptionsTemplate {
    pub domain: DomainKey,
    pub id: u16,
}

/// What one record of options data says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announcement {
    /// The observation domain that it names, 0 = the whole exporter; `None` where it names none.
    pub domain: Option<u32>,
    pub selector: Selector,
    pub told: StatedRate,
}

/// An announced rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
struct StoredAnnouncement {
    rate: SamplingRate,
    implausible: bool,
    /// When it changed to this by so much that it is not believed yet; 0 otherwise.
    jumped_at_ms: i64,
    /// The options template that announced it; 0 = not known, of earlier checkpoints.
    #[serde(default)]
    template: u16,
    /// The observation domain of that.
    #[serde(default)]
    told_in: u32,
    /// It names domain 0, the whole exporter.
    #[serde(default)]
    of_exporter: bool,
    /// When it was last announced; 0 = not known.
    #[serde(default)]
    last_ms: i64,
    /// After which time it is announced again; 0 = it was announced once.
    #[serde(default)]
    interval_ms: i64,
    /// The round of the session's announcements that it was last in.
    #[serde(default)]
    round: u64,
}

impl StoredAnnouncement {
    fn is_doubtful(self) -> bool {
        self.implausible || self.jumped_at_ms != 0
    }

    /// All but when it was announced.
    fn content(self) -> StoredAnnouncement {
        StoredAnnouncement {
            last_ms: 0,
            interval_ms: 0,
            round: 0,
            ..self
        }
    }

    /// Whether it was not announced again for long, while the session announced others up to `round`.
    fn is_silent(self, round: u64, now_ms: i64) -> bool {
        let silence_ms = match self.interval_ms {
            0 => SILENCE_OF_ONE_MS,
            interval_ms => SILENCE_MIN_MS.max(interval_ms.saturating_mul(INTERVALS_TO_SILENCE)),
        };
        round.saturating_sub(self.round) >= ROUNDS_TO_SILENCE && now_ms.saturating_sub(self.last_ms) > silence_ms
    }
}

/// What the announcements for one selector come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AnnouncedRate {
    Rate(SamplingRate, bool),
    /// They differ by what is not understood.
    Ambiguous,
}

impl AnnouncedRate {
    /// Of two announcements that hold for the same: what they agree on.
    fn and(self, other: AnnouncedRate) -> AnnouncedRate {
        match (self, other) {
            (AnnouncedRate::Rate(one, doubt), AnnouncedRate::Rate(another, more)) if one == another => {
                AnnouncedRate::Rate(one, doubt || more)
            }
            _ => AnnouncedRate::Ambiguous,
        }
    }
}

/// What was found for a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RateLookup {
    Rate {
        rate: SamplingRate,
        source: SamplingSource,
        /// Implausible, or orders of magnitude from what it was before.
        doubtful: bool,
    },
    /// Several hold, and differ.
    Ambiguous,
    /// The flow names a sampler, and other samplers were announced.
    SamplerNotAnnounced,
    Nothing,
}

impl RateLookup {
    fn of(answer: AnnouncedRate, source: SamplingSource) -> RateLookup {
        match answer {
            AnnouncedRate::Rate(rate, doubtful) => RateLookup::Rate { rate, source, doubtful },
            AnnouncedRate::Ambiguous => RateLookup::Ambiguous,
        }
    }

    /// The same, said of the whole exporter.
    fn of_exporter(self) -> RateLookup {
        match self {
            RateLookup::Rate {
                rate,
                source: SamplingSource::OptionsDomain,
                doubtful,
            } => RateLookup::Rate {
                rate,
                source: SamplingSource::OptionsExporter,
                doubtful,
            },
            found => found,
        }
    }
}

/// The announcements of one domain.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "StoredRates", into = "StoredRates")]
struct DomainRates {
    announced: BTreeMap<Selector, StoredAnnouncement>,
    /// By what is understood of their selectors.
    answers: BTreeMap<Selector, AnnouncedRate>,
    /// Of the answers, but for that of the whole domain.
    shapes: BTreeSet<Shape>,
    /// What all of them agree on.
    agreed: Option<AnnouncedRate>,
}

/// As a checkpoint holds it: version 1.0 kept whole rates by sampler, interfaces among them.
#[derive(Clone, Serialize, Deserialize)]
struct StoredRates {
    #[serde(default)]
    announced: Vec<(u64, u32, u8, u16, u64, StoredAnnouncement)>,
    #[serde(default, skip_serializing)]
    plain: Option<u32>,
    #[serde(default, skip_serializing)]
    samplers: BTreeMap<u64, u32>,
}

impl From<DomainRates> for StoredRates {
    fn from(rates: DomainRates) -> StoredRates {
        let announced = rates.announced.into_iter().map(|(selector, announced)| {
            let Selector {
                sampler,
                interface,
                direction,
                template,
                other,
            } = selector;
            (sampler, interface, direction, template, other, announced)
        });
        StoredRates {
            announced: announced.collect(),
            plain: None,
            samplers: BTreeMap::new(),
        }
    }
}

impl From<StoredRates> for DomainRates {
    fn from(stored: StoredRates) -> DomainRates {
        let mut rates = DomainRates::default();
        for (sampler, interface, direction, template, other, announced) in stored.announced {
            let selector = Selector {
                sampler,
                interface,
                direction,
                template,
                other,
            };
            rates.announced.insert(selector, announced);
        }
        let whole = |rate| StoredAnnouncement {
            rate: SamplingRate::whole(rate),
            ..StoredAnnouncement::default()
        };
        if let Some(rate) = stored.plain {
            rates.announced.insert(WHOLE_DOMAIN, whole(rate));
        }
        for (sampler, rate) in stored.samplers {
            let selector = match sampler & INTERFACE_SAMPLER_1_0 {
                0 => Selector {
                    sampler,
                    ..WHOLE_DOMAIN
                },
                _ => Selector {
                    interface: u32::try_from(sampler & !INTERFACE_SAMPLER_1_0).unwrap_or(0),
                    ..WHOLE_DOMAIN
                },
            };
            rates.announced.insert(selector, whole(rate));
        }
        rates.sum_up();
        rates
    }
}

impl DomainRates {
    /// Makes the answers from the announcements.
    fn sum_up(&mut self) {
        self.answers.clear();
        self.shapes.clear();
        for (selector, announced) in &self.announced {
            let understood = selector.understood();
            let answer = if understood == WHOLE_DOMAIN && selector.other != 0 && !selector.only_names() {
                AnnouncedRate::Ambiguous
            } else {
                AnnouncedRate::Rate(announced.rate, announced.is_doubtful())
            };
            let known = self.answers.get(&understood).copied();
            let answer = match known {
                // A rate of the whole domain and one of a part of it that is not understood may agree.
                Some(AnnouncedRate::Rate(rate, _)) if rate == announced.rate => {
                    AnnouncedRate::Rate(rate, announced.is_doubtful())
                }
                known => known.map_or(answer, |known| known.and(answer)),
            };
            self.answers.insert(understood, answer);
            if understood != WHOLE_DOMAIN {
                self.shapes.insert(understood.shape());
            }
        }
        self.agreed = self.answers.values().copied().reduce(AnnouncedRate::and);
    }

    fn names(&self, shape: Shape) -> bool {
        self.shapes.iter().any(|known| known & shape != 0)
    }

    /// The most specific answer for a flow, and the shape it was found by; one of more parts is more specific.
    fn most_specific(&self, named: FlowScope) -> Option<(Shape, AnnouncedRate)> {
        let mut best: Option<(Shape, AnnouncedRate)> = None;
        for shape in &self.shapes {
            let Some(answer) = self.answer(*shape, named) else {
                continue;
            };
            best = Some(match best {
                Some((known, _)) if known.count_ones() > shape.count_ones() => continue,
                Some((known, other)) if known.count_ones() == shape.count_ones() => (known, other.and(answer)),
                _ => (*shape, answer),
            });
        }
        best
    }

    fn answer(&self, shape: Shape, named: FlowScope) -> Option<AnnouncedRate> {
        let part = |of: Shape| shape & of != 0;
        if part(SAMPLER) && named.sampler == 0 {
            return None;
        }
        let key = Selector {
            sampler: if part(SAMPLER) { named.sampler } else { 0 },
            template: if part(TEMPLATE) { named.template } else { 0 },
            ..WHOLE_DOMAIN
        };
        if !part(INTERFACE) {
            let direction = if part(DIRECTION) {
                named.direction
            } else {
                DIRECTION_UNKNOWN
            };
            let is_named = !part(DIRECTION) || direction != DIRECTION_UNKNOWN;
            return self
                .answers
                .get(&Selector { direction, ..key })
                .filter(|_| is_named)
                .copied();
        }
        named
            .observed_at()
            .into_iter()
            .filter(|(interface, _)| *interface != 0)
            .find_map(|(interface, direction)| {
                let direction = if part(DIRECTION) { direction } else { DIRECTION_UNKNOWN };
                let selector = Selector {
                    interface,
                    direction,
                    ..key
                };
                self.answers.get(&selector).copied()
            })
    }

    fn find(&self, named: FlowScope) -> RateLookup {
        if let Some((shape, answer)) = self.most_specific(named) {
            let source = match shape {
                shape if shape & SAMPLER != 0 => SamplingSource::OptionsSampler,
                shape if shape & INTERFACE != 0 => SamplingSource::OptionsInterface,
                shape if shape & TEMPLATE != 0 => SamplingSource::OptionsTemplate,
                _ => SamplingSource::OptionsDirection,
            };
            return RateLookup::of(answer, source);
        }
        if named.sampler != 0 && self.names(SAMPLER) {
            return RateLookup::SamplerNotAnnounced;
        }
        if let Some(answer) = self.answers.get(&WHOLE_DOMAIN) {
            return RateLookup::of(*answer, SamplingSource::OptionsDomain);
        }
        let names_interface = named.observed_at().iter().any(|(interface, _)| *interface != 0);
        let is_in_play = self.names(TEMPLATE) || (self.names(INTERFACE) && names_interface);
        match self.agreed {
            None => RateLookup::Nothing,
            // It names another template or interface than those that have a rate.
            Some(_) if is_in_play => RateLookup::Ambiguous,
            Some(answer) => RateLookup::of(answer, SamplingSource::OptionsDomain),
        }
    }
}

/// How many rates a session may announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnnouncementCapacity {
    /// Of one domain, but for that of the whole domain.
    pub of_domain: usize,
    /// Announced in the exporter's other sessions: they count for [`MAX_SAMPLERS_PER_EXPORTER`].
    pub elsewhere: usize,
    /// Of the session, whatever they are of.
    pub of_session: usize,
}

/// The rates that one transport session announced in options data.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "StoredAnnouncedRates")]
pub struct AnnouncedRates {
    domains: BTreeMap<DomainKey, DomainRates>,
    /// How often the session has begun to announce anew.
    round: u64,
    /// When silent rates were last looked for.
    checked_at_ms: i64,
    /// Rates that have ended.
    ended: u64,
    /// Of those that name the whole exporter.
    #[serde(skip)]
    of_exporter: DomainRates,
    /// How many rates each options template announced: protocol, observation domain, id.
    #[serde(skip)]
    by_template: BTreeMap<(u8, u32, u16), usize>,
    /// What all domains agree on.
    #[serde(skip)]
    agreed: Option<AnnouncedRate>,
    /// By sampler, what all domains agree on.
    #[serde(skip)]
    samplers: BTreeMap<u64, AnnouncedRate>,
    /// In all domains.
    #[serde(skip)]
    count: usize,
}

#[derive(Deserialize)]
struct StoredAnnouncedRates {
    domains: BTreeMap<DomainKey, DomainRates>,
    #[serde(default)]
    round: u64,
    #[serde(default)]
    checked_at_ms: i64,
    #[serde(default)]
    ended: u64,
}

impl From<StoredAnnouncedRates> for AnnouncedRates {
    fn from(stored: StoredAnnouncedRates) -> AnnouncedRates {
        let mut rates = AnnouncedRates {
            domains: stored.domains,
            round: stored.round,
            checked_at_ms: stored.checked_at_ms,
            ended: stored.ended,
            ..AnnouncedRates::default()
        };
        rates.sum_up();
        rates
    }
}

impl AnnouncedRates {
    fn sum_up(&mut self) {
        self.count = self.domains.values().map(|rates| rates.announced.len()).sum();
        self.agreed = self
            .domains
            .values()
            .filter_map(|rates| rates.agreed)
            .reduce(AnnouncedRate::and);
        self.samplers.clear();
        for rates in self.domains.values() {
            for (selector, answer) in rates.answers.iter().filter(|(selector, _)| selector.sampler != 0) {
                let known = self.samplers.get(&selector.sampler);
                let answer = known.map_or(*answer, |known| known.and(*answer));
                self.samplers.insert(selector.sampler, answer);
            }
        }
        self.by_template.clear();
        for (domain, rates) in &self.domains {
            for announced in rates.announced.values() {
                let template = (domain.protocol_version, announced.told_in, announced.template);
                *self.by_template.entry(template).or_default() += 1;
            }
        }
        self.sum_up_of_exporter();
    }

    /// What holds for the whole exporter: what those agree on that say so of the same, in whichever domain's messages.
    fn sum_up_of_exporter(&mut self) {
        let mut of_exporter = DomainRates::default();
        let mut differing = BTreeSet::new();
        for (selector, announced) in self.domains.values().flat_map(|rates| &rates.announced) {
            if !announced.of_exporter {
                continue;
            }
            let known = of_exporter.announced.entry(*selector).or_insert(announced.content());
            if known.rate != announced.rate {
                differing.insert(selector.understood());
            }
        }
        of_exporter.sum_up();
        for selector in differing {
            of_exporter.answers.insert(selector, AnnouncedRate::Ambiguous);
        }
        of_exporter.agreed = of_exporter.answers.values().copied().reduce(AnnouncedRate::and);
        self.of_exporter = of_exporter;
    }

    /// Takes the announcements of one set of options data. Answers how many were refused because there was no `room`, the session
    /// names [`MAX_RATE_DOMAINS`] already, or the exporter made [`MAX_SAMPLERS_PER_EXPORTER`].
    ///
    /// The cost is bounded by the announcements and those that are kept, added up: a hostile exporter cannot make it their
    /// product.
    pub fn announce(
        &mut self,
        by: OptionsTemplate,
        announcements: &[Announcement],
        room: AnnouncementCapacity,
        now_ms: i64,
    ) -> u64 {
        let mut refused = 0;
        let mut changed = BTreeSet::new();
        for announcement in announcements {
            let domain = DomainKey {
                observation_domain: match announcement.domain {
                    None | Some(0) => by.domain.observation_domain,
                    Some(named) => named,
                },
                ..by.domain
            };
            let selector = announcement.selector;
            if !self.has_room_for(domain, selector, room) {
                refused += 1;
                continue;
            }
            let rates = self.domains.entry(domain).or_default();
            let mut announced = StoredAnnouncement {
                rate: announcement.told.rate,
                implausible: announcement.told.implausible,
                jumped_at_ms: 0,
                template: by.id,
                told_in: by.domain.observation_domain,
                of_exporter: announcement.domain == Some(0),
                last_ms: now_ms,
                interval_ms: 0,
                round: self.round,
            };
            if let Some(known) = rates.announced.get_mut(&selector) {
                let since_ms = match known.last_ms {
                    0 => 0,
                    last_ms => now_ms.saturating_sub(last_ms).max(0),
                };
                if known.round == self.round && since_ms >= ROUND_MIN_MS {
                    self.round += 1;
                }
                announced.round = self.round;
                announced.interval_ms = since_ms.max(known.interval_ms / 2);
                announced.jumped_at_ms = jumped_at_ms(*known, announced.rate, now_ms);
                if known.content() != announced.content() {
                    changed.insert(domain);
                }
                *known = announced;
            } else {
                rates.announced.insert(selector, announced);
                self.count += 1;
                changed.insert(domain);
            }
        }
        for domain in &changed {
            if let Some(rates) = self.domains.get_mut(domain) {
                rates.sum_up();
            }
        }
        if !changed.is_empty() {
            self.sum_up();
        }
        refused
    }

    /// Whether an announcement is known or may be kept; nothing is kept of a domain that is named in refused ones only.
    fn has_room_for(&self, domain: DomainKey, selector: Selector, room: AnnouncementCapacity) -> bool {
        let known = self.domains.get(&domain).map(|rates| &rates.announced);
        if known.is_some_and(|announced| announced.contains_key(&selector)) {
            return true;
        }
        if self.count >= room.of_session || (known.is_none() && self.domains.len() >= MAX_RATE_DOMAINS) {
            return false;
        }
        // That of the whole domain has a place beside others.
        selector == WHOLE_DOMAIN
            || (known.map_or(0, |announced| announced.len()) < room.of_domain
                && self.count + room.elsewhere < MAX_SAMPLERS_PER_EXPORTER)
    }

    /// Ends what an options template announced that is withdrawn or gets another layout; answers how many rates that are.
    pub fn end_of_template(&mut self, by: OptionsTemplate) -> u64 {
        let template = (by.domain.protocol_version, by.domain.observation_domain, by.id);
        if !self.by_template.contains_key(&template) {
            return 0;
        }
        self.end(|domain, announced| (domain.protocol_version, announced.told_in, announced.template) == template)
    }

    /// Ends rates that were not announced again for long while others were; answers how many.
    pub fn end_silent(&mut self, now_ms: i64) -> u64 {
        if now_ms.saturating_sub(self.checked_at_ms) < ROUND_MIN_MS {
            return 0;
        }
        self.checked_at_ms = now_ms;
        let round = self.round;
        for rates in self.domains.values_mut() {
            // Those of an earlier checkpoint were heard by now.
            for announced in rates.announced.values_mut().filter(|announced| announced.last_ms == 0) {
                announced.last_ms = now_ms;
                announced.round = round;
            }
        }
        self.end(|_, announced| announced.is_silent(round, now_ms))
    }

    fn end(&mut self, is_over: impl Fn(&DomainKey, &StoredAnnouncement) -> bool) -> u64 {
        let mut ended = 0;
        for (domain, rates) in &mut self.domains {
            let before = rates.announced.len();
            rates.announced.retain(|_, announced| !is_over(domain, announced));
            if rates.announced.len() < before {
                ended += (before - rates.announced.len()) as u64;
                rates.sum_up();
            }
        }
        if ended > 0 {
            self.domains.retain(|_, rates| !rates.announced.is_empty());
            self.ended += ended;
            self.sum_up();
        }
        ended
    }

    /// How many rates have ended.
    pub fn ended(&self) -> u64 {
        self.ended
    }

    /// What was said of a domain itself.
    fn own(&self, domain: DomainKey) -> Option<&DomainRates> {
        self.domains.get(&domain).filter(|rates| !rates.announced.is_empty())
    }

    /// What was said of the whole exporter.
    fn exporter_wide(&self) -> Option<&DomainRates> {
        Some(&self.of_exporter).filter(|rates| !rates.announced.is_empty())
    }

    /// Whether the rate of a flow of this domain may depend on more than its template and what it says of its sampling: on its
    /// interfaces or its direction.
    pub fn by_flow(&self, domain: DomainKey) -> bool {
        self.own(domain)
            .or(self.exporter_wide())
            .is_some_and(|rates| rates.names(INTERFACE | DIRECTION))
    }

    /// How many announcements are known in all domains.
    pub fn samplers(&self) -> usize {
        self.count
    }

    /// The rate of a flow of `domain`: of what it names, of its domain, of the whole exporter, or what all domains agree on, because
    /// options may come in another domain than the data (Juniper).
    pub(super) fn find(&self, domain: DomainKey, named: FlowScope) -> RateLookup {
        let (own, exporter_wide) = (self.own(domain), self.exporter_wide());
        let found = match (own, exporter_wide) {
            (Some(own), _) => own.find(named),
            (None, Some(exporter_wide)) => exporter_wide.find(named).of_exporter(),
            (None, None) => RateLookup::Nothing,
        };
        let nothing_said = own.or(exporter_wide).is_none();
        match found {
            RateLookup::SamplerNotAnnounced | RateLookup::Nothing if named.sampler != 0 => {
                match self.samplers.get(&named.sampler) {
                    Some(answer) => RateLookup::of(*answer, SamplingSource::OptionsSampler),
                    None if self.samplers.is_empty() && nothing_said => self.agreed_elsewhere(),
                    None if self.samplers.is_empty() => found,
                    None => RateLookup::SamplerNotAnnounced,
                }
            }
            RateLookup::Nothing if nothing_said => self.agreed_elsewhere(),
            found => found,
        }
    }

    fn agreed_elsewhere(&self) -> RateLookup {
        match self.agreed {
            Some(AnnouncedRate::Rate(rate, doubtful)) => RateLookup::Rate {
                rate,
                source: SamplingSource::OptionsExporter,
                doubtful,
            },
            // Rates of other domains that differ say nothing of this one.
            Some(AnnouncedRate::Ambiguous) | None => RateLookup::Nothing,
        }
    }
}

/// Since when a rate is one that is not believed; 0 where it is believed.
fn jumped_at_ms(before: StoredAnnouncement, now: SamplingRate, now_ms: i64) -> i64 {
    if before.rate == now {
        let is_meant = now_ms.saturating_sub(before.jumped_at_ms) >= JUMP_BELIEVED_AFTER_MS;
        return if is_meant { 0 } else { before.jumped_at_ms };
    }
    // A rate that was not believed is no measure for the next one.
    if jumps(before.rate, now) && before.jumped_at_ms == 0 && !before.implausible {
        now_ms.max(1)
    } else {
        0
    }
}

/// Whether two rates are orders of magnitude apart.
pub(super) fn jumps(one: SamplingRate, another: SamplingRate) -> bool {
    if !one.is_known() || !another.is_known() {
        return false;
    }
    let product = |a: SamplingRate, b: SamplingRate| u64::from(a.rate()) * u64::from(b.divisor());
    let (one, another) = (product(one, another), product(another, one));
    one.max(another) / one.min(another) >= JUMP
}
