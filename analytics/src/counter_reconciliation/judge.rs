//! Whether flows and a counter agree, and what may be the matter when they do not.

use super::flows::Observed;
use crate::error_bound::Z99_PPM;
use crate::store::{MismatchCause, Verdict};

/// Less than this is not judged: counters are read some seconds before they are sent, which must not weigh.
pub(super) const COVERED_MIN_MS: i64 = 10 * 60_000;
/// With fewer effective samples the sampling error has no bell shape and the bound no meaning.
pub(super) const SAMPLES_MIN: u64 = 100;
/// What may stand on a counter in an hour and in no flow: frames that are not IP (spanning tree, LLDP, ARP, slow protocols).
pub(super) const CHATTER_BYTES_MAX: u64 = 10_000_000;
/// The largest frame that is taken for usual, to tell from bytes how many packets there were at least.
const FRAME_BYTES_MAX: u64 = 1_522;
/// A rate that is not applied, or applied twice, shows by at least this factor.
const RATE_FACTOR_MIN: u64 = 8;
const PPM: u128 = 1_000_000;

/// Both sides of one direction of one interface.
#[derive(Clone, Copy, Debug)]
pub(super) struct Comparison<'a> {
    pub(super) covered_ms: i64,
    pub(super) counter_bytes: u64,
    pub(super) observed: &'a Observed,
    /// Metering rests on this direction being observed here.
    pub(super) is_metered: bool,
    /// The largest sampling rate that the exporter's flows of the hour had; 0 = it had no flows.
    pub(super) exporter_rate: u32,
    pub(super) tolerance_ppm: u32,
}

/// The verdict, with a guess where it is a mismatch.
pub(super) fn judge(case: &Comparison<'_>) -> (Verdict, Option<MismatchCause>) {
    let observed = case.observed;
    if case.covered_ms == 0 {
        return (Verdict::NoCounter, None);
    }
    if case.covered_ms < COVERED_MIN_MS {
        return (Verdict::TooShort, None);
    }
    if observed.flows_without_rate > 0 {
        return (Verdict::RateUnknown, None);
    }
    if observed.flows == 0 {
        let samples_expected = (case.counter_bytes / FRAME_BYTES_MAX)
            .checked_div(u64::from(case.exporter_rate))
            .unwrap_or(0);
        let is_missing = case.is_metered && samples_expected >= SAMPLES_MIN && case.counter_bytes > CHATTER_BYTES_MAX;
        return match is_missing {
            true => (Verdict::Mismatch, Some(MismatchCause::NotSampled)),
            false => (Verdict::NotSampled, None),
        };
    }
    if observed
        .wire
        .effective_samples()
        .is_some_and(|samples| samples < SAMPLES_MIN)
    {
        return (Verdict::TooFewSamples, None);
    }
    let (metered, counter) = (observed.wire.bytes, case.counter_bytes);
    if metered.abs_diff(counter) <= CHATTER_BYTES_MAX || case.fits(metered, counter) {
        return (Verdict::Agrees, None);
    }
    if metered < counter && observed.flows_without_direction > 0 && !case.is_metered {
        return (Verdict::PartlySampled, None);
    }
    (Verdict::Mismatch, Some(case.guess()))
}

impl Comparison<'_> {
    /// Whether the difference lies within the sampling error of the one and the tolerance on the other.
    fn fits(&self, metered: u64, counter: u64) -> bool {
        let bound_ppm = self.observed.wire.bound_ppm(Z99_PPM);
        let allowed =
            u128::from(metered) * u128::from(bound_ppm) + u128::from(counter) * u128::from(self.tolerance_ppm);
        u128::from(metered.abs_diff(counter)) * PPM <= allowed
    }

    /// Octets of the Ethernet headers of all packets, by the largest rate.
    fn ethernet_headers(&self) -> u64 {
        const ETHERNET_HEADER: u64 = 14;
        let packets = self
            .observed
            .samples
            .saturating_mul(u64::from(self.observed.sampling_rate));
        packets.saturating_mul(ETHERNET_HEADER)
    }

    fn guess(&self) -> MismatchCause {
        let (metered, counter) = (self.observed.wire.bytes, self.counter_bytes);
        let rate = u64::from(self.observed.sampling_rate);
        if self.fits(metered.saturating_mul(2), counter) {
            MismatchCause::IngressOnly
        } else if self.fits(metered, counter.saturating_mul(2)) {
            MismatchCause::CountedTwice
        } else if metered > counter && self.fits(metered.saturating_sub(self.ethernet_headers()), counter) {
            MismatchCause::Layer2Octets
        } else if rate == 1 && metered.saturating_mul(RATE_FACTOR_MIN) <= counter {
            MismatchCause::RateNotApplied
        } else if rate >= RATE_FACTOR_MIN && self.fits(metered / rate, counter) {
            MismatchCause::RateAppliedTwice
        } else {
            MismatchCause::SamplingRate
        }
    }
}

/// A ratio in parts per million for people, in percent: `61`, `5.5`, `0.1`.
pub fn percent_text(ppm: u32) -> String {
    if ppm >= 99_950 {
        return (u64::from(ppm) + 5_000).div_euclid(10_000).to_string();
    }
    // Hundredths of a percent, without zeros behind.
    let hundredths = (ppm + 50) / 100;
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The finding as a sentence: `metered 61 % of the counter on mx1 ae0.0: sampling rate?`.
pub fn finding_text(ratio_ppm: u32, exporter: &str, interface: &str, guess: Option<MismatchCause>) -> String {
    let percent = match ratio_ppm {
        u32::MAX => format!("more than {}", percent_text(u32::MAX)),
        1..50 => "less than 0.01".to_owned(),
        ppm => percent_text(ppm),
    };
    let question = guess.unwrap_or(MismatchCause::SamplingRate).question();
    format!("metered {percent} % of the counter on {exporter} {interface}: {question}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_bound::Estimate;

    const GB: u64 = 1_000_000_000;

    fn observed(bytes: u64, samples: u64, rate: u32) -> Observed {
        let mut wire = Estimate::default();
        if rate == 1 {
            wire.add_counted(bytes);
        } else {
            wire.add_sampled(bytes, samples);
        }
        Observed {
            wire,
            samples,
            flows: samples,
            sampling_rate: rate,
            ..Observed::default()
        }
    }

    fn case(observed: &Observed, counter_bytes: u64) -> Comparison<'_> {
        Comparison {
            covered_ms: 3_540_000,
            counter_bytes,
            observed,
            is_metered: false,
            exporter_rate: 1_000,
            tolerance_ppm: 50_000,
        }
    }

    #[test]
    fn the_bound_and_the_tolerance_are_allowed_together() {
        // 10,000 samples: 2.58 % of what was metered, and 5 % of the counter.
        for (percent_of_counter, expected) in [
            (100, Verdict::Agrees),
            (93, Verdict::Agrees),
            (92, Verdict::Mismatch),
            (107, Verdict::Agrees),
            (109, Verdict::Mismatch),
        ] {
            let flows = observed(10 * GB / 100 * percent_of_counter, 10_000, 1_000);
            assert_eq!(judge(&case(&flows, 10 * GB)).0, expected, "{percent_of_counter} %");
        }
        let exact = observed(94 * GB, 1_000, 1);
        assert_eq!(
            judge(&case(&exact, 100 * GB)).0,
            Verdict::Mismatch,
            "unsampled: the tolerance alone"
        );
        let rough = observed(70 * GB, 100, 1_000);
        assert_eq!(
            judge(&case(&rough, 85 * GB)).0,
            Verdict::Agrees,
            "25.8 % with 100 samples"
        );
    }

    #[test]
    fn a_clear_ratio_is_told_by_its_likely_cause() {
        let twice = Some(MismatchCause::CountedTwice);
        // Packets of 120 bytes on the wire, and 14 more of each.
        let small = observed(134_000_000, 1_000_000, 1);
        let (verdict, guess) = judge(&case(&small, 120_000_000));
        assert_eq!((verdict, guess), (Verdict::Mismatch, Some(MismatchCause::Layer2Octets)));
        for (metered, counter, rate, expected) in [
            (50 * GB, 100 * GB, 1_000, Some(MismatchCause::IngressOnly)),
            (200 * GB, 100 * GB, 1_000, twice),
            (61 * GB, 100 * GB, 1_000, Some(MismatchCause::SamplingRate)),
            (GB / 10, 100 * GB, 1, Some(MismatchCause::RateNotApplied)),
            (GB / 10, 100 * GB, 2, Some(MismatchCause::SamplingRate)),
            (100_000 * GB, 100 * GB, 1_000, Some(MismatchCause::RateAppliedTwice)),
            (300 * GB, 100 * GB, 1_000, Some(MismatchCause::SamplingRate)),
        ] {
            let flows = observed(metered, 1_000_000, rate);
            assert_eq!(
                judge(&case(&flows, counter)),
                (Verdict::Mismatch, expected),
                "{metered} of {counter}"
            );
        }
    }

    #[test]
    fn what_is_not_observed_is_no_finding_unless_metering_rests_on_it() {
        let nothing = Observed::default();
        let unseen = case(&nothing, 100 * GB);
        assert_eq!(judge(&unseen), (Verdict::NotSampled, None));
        let metered = Comparison {
            is_metered: true,
            ..unseen
        };
        assert_eq!(judge(&metered), (Verdict::Mismatch, Some(MismatchCause::NotSampled)));
        let quiet = Comparison {
            counter_bytes: GB / 100,
            ..metered
        };
        assert_eq!(judge(&quiet).0, Verdict::NotSampled, "no samples were to be expected");
        let unheard = Comparison {
            exporter_rate: 0,
            ..metered
        };
        assert_eq!(judge(&unheard).0, Verdict::NotSampled, "nothing tells its rate");

        let somewhere = Observed {
            flows_without_direction: 5,
            ..observed(30 * GB, 10_000, 1_000)
        };
        assert_eq!(judge(&case(&somewhere, 100 * GB)).0, Verdict::PartlySampled);
        assert_eq!(
            judge(&case(&somewhere, 10 * GB)).0,
            Verdict::Mismatch,
            "more than there was is never right"
        );
        let at_the_boundary = Comparison {
            is_metered: true,
            ..case(&somewhere, 100 * GB)
        };
        assert_eq!(judge(&at_the_boundary).0, Verdict::Mismatch);
    }

    #[test]
    fn what_cannot_be_judged_says_why() {
        let good = observed(100 * GB, 10_000, 1_000);
        let off = case(&good, 10 * GB);
        assert_eq!(judge(&off).0, Verdict::Mismatch);
        let of = |covered_ms| judge(&Comparison { covered_ms, ..off }).0;
        assert_eq!(
            (of(0), of(599_999), of(600_000)),
            (Verdict::NoCounter, Verdict::TooShort, Verdict::Mismatch)
        );
        let few = observed(100 * GB, 99, 1_000);
        assert_eq!(judge(&case(&few, 10 * GB)).0, Verdict::TooFewSamples);
        let unknown = Observed {
            flows_without_rate: 1,
            ..good
        };
        assert_eq!(judge(&case(&unknown, 10 * GB)).0, Verdict::RateUnknown);
        let chatter = observed(1_000_000, 1_000, 1);
        assert_eq!(
            judge(&case(&chatter, 9_000_000)).0,
            Verdict::Agrees,
            "frames that are not IP"
        );
    }

    #[test]
    fn findings_read_as_sentences() {
        assert_eq!(
            finding_text(612_345, "mx1", "ae0.0", Some(MismatchCause::SamplingRate)),
            "metered 61 % of the counter on mx1 ae0.0: sampling rate?"
        );
        assert_eq!(
            finding_text(1_001, "192.0.2.1", "interface 17", Some(MismatchCause::RateNotApplied)),
            "metered 0.1 % of the counter on 192.0.2.1 interface 17: sampling rate not applied?"
        );
        for (ppm, expected) in [
            (0, "0"),
            (50, "0.01"),
            (999, "0.1"),
            (25_600, "2.56"),
            (99_949, "9.99"),
            (99_950, "10"),
            (2_000_000, "200"),
        ] {
            assert_eq!(percent_text(ppm), expected);
        }
        assert!(finding_text(3, "a", "b", None).starts_with("metered less than 0.01 %"));
        assert!(finding_text(u32::MAX, "a", "b", None).starts_with("metered more than 429497 %"));
    }

    #[test]
    fn names_are_read_back() {
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::parse(verdict.name()), Some(verdict));
        }
        for guess in MismatchCause::ALL {
            assert_eq!(MismatchCause::parse(guess.question()), Some(guess));
        }
        assert_eq!((Verdict::parse("x"), MismatchCause::parse("")), (None, None));
    }
}
