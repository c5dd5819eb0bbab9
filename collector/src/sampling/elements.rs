//! What records and options data say of sampling, as exact fractions.

use schemas::sampling::SamplingRate;

/// Packets taken in a row beyond this are no sampling: the number was read in the wrong order of its bytes.
const INTERVAL_MAX: u64 = 65_535;
/// No router samples one packet in so many.
const RATE_MAX: u32 = 10_000_000;

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

/// A rate that a record or options data says, and whether it can be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatedRate {
    /// Not known where nothing was said.
    pub rate: SamplingRate,
    /// It is what no exporter samples at.
    pub implausible: bool,
}

impl StatedRate {
    fn new(rate: SamplingRate) -> StatedRate {
        StatedRate {
            rate,
            implausible: rate.rate() / rate.divisor() > RATE_MAX,
        }
    }
}

impl SamplingElements {
    /// The rate they give, not known when they give none (RFC 5477 §8.2): `(interval + space) / interval`, else `N / n`, else
    /// `1 / probability`, else IE 50, else IE 34. IE 305 without 306 and without n-out-of-N is what several routers
    /// send for one packet in so many, and is read so.
    pub fn told(&self) -> StatedRate {
        match self.packet_space {
            Some(space) if self.packet_interval != 0 => {
                let population = self.packet_interval.saturating_add(space);
                let told = StatedRate::new(SamplingRate::of(population, self.packet_interval));
                StatedRate {
                    // MikroTik sends both in the order of its processor's bytes: 1 is 16,777,216 there (fastnetmon #985).
                    implausible: told.implausible || self.packet_interval > INTERVAL_MAX,
                    ..told
                }
            }
            _ if self.population != 0 && self.size != 0 => {
                StatedRate::new(SamplingRate::of(self.population, self.size))
            }
            _ if self.probability > 0.0 && self.probability <= 1.0 => StatedRate::new(of_probability(self.probability)),
            _ => {
                let values = [self.random_interval, self.interval, self.packet_interval];
                let one_in = values.into_iter().find(|value| *value != 0).unwrap_or(0);
                StatedRate::new(SamplingRate::whole(u32::try_from(one_in).unwrap_or(u32::MAX)))
            }
        }
    }

    /// [`SamplingElements::told`] without whether it can be believed.
    pub fn rate(&self) -> SamplingRate {
        self.told().rate
    }
}

/// The simplest fraction that is the rate to a floating-point number's precision, else the nearest whole rate.
fn of_probability(probability: f64) -> SamplingRate {
    const DIVISOR_MAX: u32 = 64;
    const TOLERANCE: f64 = 1e-6;
    for divisor in 1..=DIVISOR_MAX {
        let rate = (f64::from(divisor) / probability).round();
        if (rate * probability / f64::from(divisor) - 1.0).abs() < TOLERANCE {
            return SamplingRate::of(rate as u64, u64::from(divisor));
        }
    }
    SamplingRate::whole((1.0 / probability).round() as u32)
}

/// The rate in the sampling word of a v5 header; not known where it says nothing.
pub fn v5_rate(word: u16, mode_bits: bool) -> StatedRate {
    StatedRate::new(SamplingRate::whole(u32::from(if mode_bits {
        word & 0x3fff
    } else {
        word
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: SamplingElements = SamplingElements {
        interval: 0,
        random_interval: 0,
        packet_interval: 0,
        packet_space: None,
        size: 0,
        population: 0,
        probability: 0.0,
    };

    fn systematic(packet_interval: u64, packet_space: Option<u64>) -> SamplingElements {
        SamplingElements {
            packet_interval,
            packet_space,
            ..NONE
        }
    }

    #[test]
    fn elements_give_their_rate() {
        assert_eq!(NONE.rate(), SamplingRate::UNKNOWN);
        let whole = |elements: SamplingElements| {
            assert_eq!(elements.rate().divisor(), 1);
            elements.rate().rate()
        };
        assert_eq!(whole(systematic(1, Some(999))), 1000);
        assert_eq!(whole(systematic(1, Some(0))), 1);
        assert_eq!(whole(systematic(0, Some(999))), 0);
        assert_eq!(whole(systematic(1000, None)), 1000);
        let n_of_n = SamplingElements {
            size: 1,
            population: 256,
            packet_interval: 1,
            ..NONE
        };
        assert_eq!(whole(n_of_n), 256, "IOS XR also sends packetInterval 1");
        let random = SamplingElements {
            random_interval: 512,
            interval: 7,
            ..NONE
        };
        assert_eq!(whole(random), 512);
        let endless = SamplingElements {
            interval: u64::MAX,
            ..NONE
        };
        assert_eq!((whole(endless), endless.told().implausible), (u32::MAX, true));
        let words = (v5_rate(0x43e8, true), v5_rate(0x43e8, false), v5_rate(0, true));
        assert_eq!(
            (words.0.rate.rate(), words.1.rate.rate(), words.2.rate.rate()),
            (1000, 0x43e8, 0)
        );
    }

    #[test]
    fn case_17_a_rate_of_one_in_one_and_a_half_is_exact() {
        assert_eq!(systematic(2222, Some(1111)).rate(), SamplingRate::of(3, 2));
        let n_of_n = SamplingElements {
            size: 3,
            population: 4,
            ..NONE
        };
        assert_eq!(n_of_n.rate(), SamplingRate::of(4, 3));
        let probability = |probability: f64| SamplingElements { probability, ..NONE }.rate();
        assert_eq!(probability(f64::from(2.0_f32 / 3.0)), SamplingRate::of(3, 2));
        assert_eq!(probability(0.01), SamplingRate::whole(100));
        assert_eq!(probability(1.0), SamplingRate::UNSAMPLED);
        assert_eq!(probability(f64::from(1.0_f32 / 1000.0)), SamplingRate::whole(1000));
    }

    #[test]
    fn case_26_numbers_in_the_wrong_order_of_bytes_are_implausible() {
        let mikrotik = systematic(0x0100_0000, Some(0xe803_0000)).told();
        assert_eq!(
            (mikrotik.rate.rate() / mikrotik.rate.divisor(), mikrotik.implausible),
            (233, true)
        );
        let swapped = SamplingElements {
            interval: u64::from(1000_u32.swap_bytes()),
            ..NONE
        };
        assert!(swapped.told().implausible);
        for sound in [
            systematic(1, Some(999)),
            systematic(2222, Some(1111)),
            systematic(1, Some(9_999_998)),
        ] {
            assert!(!sound.told().implausible, "{sound:?}");
        }
    }
}
