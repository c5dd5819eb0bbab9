//! What the truth check ([`crate::counter_reconciliation`]) found, as a store answers it.

use schemas::address::Address;

/// Which way packets cross an interface.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = InterfaceDirection)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Received by the interface (`ifInOctets`).
    In,
    /// Sent (`ifOutOctets`).
    Out,
}

impl Direction {
    pub fn name(self) -> &'static str {
        match self {
            Direction::In => "in",
            Direction::Out => "out",
        }
    }
}

/// One row of `truth_1h`; the columns are told in `docs/tables.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct CounterReconciliationRow {
    pub hour_start_ms: i64,
    pub exporter: Address,
    pub if_index: u32,
    pub direction: Direction,
    pub covered_ms: u32,
    pub counter_bytes: u64,
    pub metered_bytes: u64,
    pub bytes_scaled: u64,
    pub samples: u64,
    pub sampling_rate: u32,
    /// `u32::MAX` = more than that, or a counter that did not move.
    pub ratio_ppm: u32,
    pub bound_ppm: u32,
    pub verdict: Verdict,
    pub guess: Option<MismatchCause>,
}

impl CounterReconciliationRow {
    pub fn is_finding(&self) -> bool {
        self.verdict == Verdict::Mismatch
    }

    /// Whether a ratio was computed: the counter was followed and flows were observed, or should have been.
    pub fn has_ratio(&self) -> bool {
        matches!(
            self.verdict,
            Verdict::Agrees | Verdict::Mismatch | Verdict::PartlySampled | Verdict::TooFewSamples
        )
    }
}

/// What the comparison came to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, utoipa::ToSchema)]
#[schema(as = CounterVerdict)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Within the sampling error and the tolerance.
    Agrees,
    /// A finding.
    Mismatch,
    /// No flow was observed there in this direction: the exporter does not sample it.
    NotSampled,
    /// Fewer bytes than the counter has, from an exporter that does not say where it observes: only a part may be sampled.
    PartlySampled,
    /// Flows without a known sampling rate are among them, a finding of its own.
    RateUnknown,
    TooFewSamples,
    /// The counter could be followed for less than ten minutes of the hour.
    TooShort,
    /// The device does not keep this counter, or samples are missing or contradict each other.
    NoCounter,
}

impl Verdict {
    pub const ALL: [Verdict; 8] = [
        Verdict::Agrees,
        Verdict::Mismatch,
        Verdict::NotSampled,
        Verdict::PartlySampled,
        Verdict::RateUnknown,
        Verdict::TooFewSamples,
        Verdict::TooShort,
        Verdict::NoCounter,
    ];

    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Agrees => "agrees",
            Verdict::Mismatch => "mismatch",
            Verdict::NotSampled => "not_sampled",
            Verdict::PartlySampled => "partly_sampled",
            Verdict::RateUnknown => "rate_unknown",
            Verdict::TooFewSamples => "too_few_samples",
            Verdict::TooShort => "too_short",
            Verdict::NoCounter => "no_counter",
        }
    }

    pub fn parse(name: &str) -> Option<Verdict> {
        Verdict::ALL.into_iter().find(|verdict| verdict.name() == name)
    }
}

/// What a mismatch may come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MismatchCause {
    SamplingRate,
    RateNotApplied,
    RateAppliedTwice,
    IngressOnly,
    CountedTwice,
    /// The exporter counts the Ethernet header with each packet.
    Layer2Octets,
    NotSampled,
}

impl MismatchCause {
    pub const ALL: [MismatchCause; 7] = [
        MismatchCause::SamplingRate,
        MismatchCause::RateNotApplied,
        MismatchCause::RateAppliedTwice,
        MismatchCause::IngressOnly,
        MismatchCause::CountedTwice,
        MismatchCause::Layer2Octets,
        MismatchCause::NotSampled,
    ];

    /// As a question, as it is stored and shown.
    pub fn question(self) -> &'static str {
        match self {
            MismatchCause::SamplingRate => "sampling rate?",
            MismatchCause::RateNotApplied => "sampling rate not applied?",
            MismatchCause::RateAppliedTwice => "sampling rate applied twice?",
            MismatchCause::IngressOnly => "ingress only?",
            MismatchCause::CountedTwice => "counted at ingress and egress?",
            MismatchCause::Layer2Octets => "octets of layer 2 counted?",
            MismatchCause::NotSampled => "not sampled?",
        }
    }

    pub fn parse(question: &str) -> Option<MismatchCause> {
        MismatchCause::ALL
            .into_iter()
            .find(|guess| guess.question() == question)
    }
}
