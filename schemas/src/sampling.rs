//! Sampling rates as fractions, and the one definition of scaled volume.
//!
//! One packet in `rate / divisor` is sampled: 1000/1 is one in a thousand, 3/2 is two of three (RFC 5477 §8.2 allows any
//! `(interval + space) / interval`). The volume of a flow is `amount × rate / divisor`, rounded down once for each flow and
//! counter; whatever adds flows up adds these (U2).

use serde::{Deserialize, Serialize};

/// `amount × rate / divisor`, rounded down; 0 for a rate that is not known. A divisor of 0 is read as 1.
#[inline]
pub fn scaled(amount: u64, rate: u32, divisor: u32) -> u64 {
    if divisor <= 1 {
        return amount.saturating_mul(u64::from(rate));
    }
    let volume = u128::from(amount) * u128::from(rate) / u128::from(divisor);
    u64::try_from(volume).unwrap_or(u64::MAX)
}

/// One packet in so many, as a reduced fraction of at least 1; or not known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u32, u32)", into = "(u32, u32)")]
pub struct SamplingRate {
    rate: u32,
    divisor: u32,
}

/// A stored rate is no fraction of at least 1.
#[derive(Debug, thiserror::Error)]
#[error("{0}/{1} is no sampling rate")]
pub struct NotARate(u32, u32);

impl SamplingRate {
    /// Nobody said a rate: flows are stored and not billed.
    pub const UNKNOWN: SamplingRate = SamplingRate { rate: 0, divisor: 1 };
    /// Every packet is counted.
    pub const UNSAMPLED: SamplingRate = SamplingRate { rate: 1, divisor: 1 };

    /// One packet in `rate`; 0 is not known.
    pub const fn whole(rate: u32) -> SamplingRate {
        SamplingRate { rate, divisor: 1 }
    }

    /// `sampled` of `population` packets were taken: exactly that as long as numerator and divisor have 32 bits after reduction,
    /// else the nearest whole rate (at most `u32::MAX`). Not known where either is 0 or more were taken than there are.
    pub fn of(population: u64, sampled: u64) -> SamplingRate {
        if sampled == 0 || population < sampled {
            return SamplingRate::UNKNOWN;
        }
        let common = greatest_common_divisor(population, sampled);
        match (u32::try_from(population / common), u32::try_from(sampled / common)) {
            (Ok(rate), Ok(divisor)) => SamplingRate { rate, divisor },
            _ => {
                let nearest = population.saturating_add(sampled / 2) / sampled;
                SamplingRate::whole(u32::try_from(nearest).unwrap_or(u32::MAX))
            }
        }
    }

    /// The numerator; 0 = not known.
    pub const fn rate(self) -> u32 {
        self.rate
    }

    /// The divisor: 1 unless the rate is a fraction.
    pub const fn divisor(self) -> u32 {
        self.divisor
    }

    pub const fn is_known(self) -> bool {
        self.rate != 0
    }

    /// The amount behind a sampled amount, rounded down.
    #[inline]
    pub fn scale(self, amount: u64) -> u64 {
        scaled(amount, self.rate, self.divisor)
    }
}

impl Default for SamplingRate {
    fn default() -> SamplingRate {
        SamplingRate::UNKNOWN
    }
}

impl std::fmt::Display for SamplingRate {
    /// `1000`, `3/2`, or `unknown`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.rate, self.divisor) {
            (0, _) => f.write_str("unknown"),
            (rate, 1) => write!(f, "{rate}"),
            (rate, divisor) => write!(f, "{rate}/{divisor}"),
        }
    }
}

/// The text is no sampling rate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "a sampling rate is a whole number of packets such as 1000, or a fraction of at least 1 such as 3/2, not {0:?}"
)]
pub struct RateText(String);

impl std::str::FromStr for SamplingRate {
    type Err = RateText;

    /// `1000` or `3/2`; never the rate that is not known.
    fn from_str(text: &str) -> Result<SamplingRate, RateText> {
        let error = || RateText(text.to_owned());
        let (population, sampled) = text.split_once('/').unwrap_or((text, "1"));
        let number = |digits: &str| digits.trim().parse::<u32>().map_err(|_| error());
        let rate = SamplingRate::of(number(population)?.into(), number(sampled)?.into());
        if rate.is_known() { Ok(rate) } else { Err(error()) }
    }
}

impl TryFrom<(u32, u32)> for SamplingRate {
    type Error = NotARate;

    fn try_from((rate, divisor): (u32, u32)) -> Result<SamplingRate, NotARate> {
        match SamplingRate::of(rate.into(), divisor.into()) {
            known if known.is_known() => Ok(known),
            _ if rate == 0 => Ok(SamplingRate::UNKNOWN),
            _ => Err(NotARate(rate, divisor)),
        }
    }
}

impl From<SamplingRate> for (u32, u32) {
    fn from(rate: SamplingRate) -> (u32, u32) {
        (rate.rate, rate.divisor)
    }
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_read_as_people_write_it() {
        assert_eq!("1000".parse(), Ok(SamplingRate::whole(1000)));
        assert_eq!("3/2".parse(), Ok(SamplingRate::of(3, 2)));
        assert_eq!("2222/1111".parse(), Ok(SamplingRate::whole(2)));
        for wrong in ["", "0", "1/2", "1/0", "-5", "1.5", "x"] {
            assert!(wrong.parse::<SamplingRate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_rate_is_kept_as_the_exporter_says_it() {
        let parts = |population, sampled| <(u32, u32)>::from(SamplingRate::of(population, sampled));
        assert_eq!(parts(1000, 1), (1000, 1));
        assert_eq!(parts(3333, 2222), (3, 2), "one in 1.5");
        assert_eq!(parts(4096, 4096), (1, 1));
        assert_eq!((parts(0, 0), parts(5, 0), parts(2, 3)), ((0, 1), (0, 1), (0, 1)));
        assert_eq!(parts(u64::MAX, 1), (u32::MAX, 1));
        assert_eq!(parts(u64::MAX, u64::MAX - 1), (1, 1), "nearest, beyond 32 bits");
    }

    #[test]
    fn volume_is_rounded_down_once() {
        assert_eq!(SamplingRate::of(3, 2).scale(1500), 2250);
        assert_eq!(SamplingRate::of(3, 2).scale(1), 1);
        assert_eq!(scaled(10, 7, 0), 70, "no divisor is one");
        assert_eq!(scaled(u64::MAX, 3, 2), u64::MAX, "saturates");
        assert_eq!(scaled(u64::MAX, 0, 2), 0);
        assert_eq!(SamplingRate::UNKNOWN.scale(1500), 0);
    }

    #[test]
    fn a_rate_survives_storage_and_reads_as_people_write_it() {
        for (rate, text) in [
            (SamplingRate::UNKNOWN, "unknown"),
            (SamplingRate::whole(1000), "1000"),
            (SamplingRate::of(3, 2), "3/2"),
        ] {
            let stored = serde_json::to_string(&rate).unwrap();
            assert_eq!(serde_json::from_str::<SamplingRate>(&stored).unwrap(), rate);
            assert_eq!(rate.to_string(), text);
        }
        assert!(serde_json::from_str::<SamplingRate>("[1,2]").is_err());
    }
}
