//! How far a sampled volume may be from the true one, in exact integers.
//!
//! A volume estimated from `n` sampled packets has a relative standard error of `1/√n` (sampling theory of sFlow, Phaal and
//! Panchen, "Packet Sampling Basics"): 95 of 100 windows lie within `196 · √(1/n)` %, 99 of 100 within `258 · √(1/n)` %. Bounds
//! are in parts per million of the volume, rounded up; 0 says that every packet was counted.
//!
//! Volumes add and their variances add: a sum of volumes `xᵢ` from `nᵢ` samples each has the variance `Σ xᵢ²/nᵢ`, so its bound
//! is `z · √(Σ xᵢ²/nᵢ) / Σ xᵢ`. A part that was counted packet by packet adds volume and no variance.

/// Standard errors that hold 95 of 100 estimates, in parts per million.
pub const Z95_PPM: u64 = 1_960_000;
/// Standard errors that hold 99 of 100 estimates, in parts per million.
pub const Z99_PPM: u64 = 2_580_000;

/// The bound of a volume that was estimated from `samples` packets: `196 · √(1 / samples)` %.
pub fn of_samples_ppm(samples: u64) -> u32 {
    let square = u128::from(Z95_PPM) * u128::from(Z95_PPM);
    let samples = u128::from(samples.max(1));
    let mut bound = (square / samples).isqrt();
    if bound * bound * samples < square {
        bound += 1;
    }
    u32::try_from(bound).unwrap_or(u32::MAX)
}

/// The sum of estimates with its variance.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Estimate {
    pub bytes: u64,
    /// Of the bytes, squared; saturating.
    pub variance: u128,
}

impl Estimate {
    /// Adds a volume that `samples` sampled packets stand for.
    pub fn add_sampled(&mut self, bytes: u64, samples: u64) {
        self.add_counted(bytes);
        let square = u128::from(bytes) * u128::from(bytes);
        self.variance = self
            .variance
            .saturating_add(square.div_ceil(u128::from(samples.max(1))));
    }

    /// Adds a volume of which every packet was counted.
    pub fn add_counted(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Estimate) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.variance = self.variance.saturating_add(other.variance);
    }

    /// The bound of the sum for `z_ppm` standard errors; see [`Z95_PPM`].
    pub fn bound_ppm(&self, z_ppm: u64) -> u32 {
        if self.variance == 0 || self.bytes == 0 {
            return 0;
        }
        let z = u128::from(z_ppm);
        let error = match self.variance.checked_mul(z * z) {
            Some(square) => root_up(square),
            // So large a variance loses nothing that is seen when its root is taken first.
            None => root_up(self.variance).saturating_mul(z),
        };
        u32::try_from(error.div_ceil(u128::from(self.bytes))).unwrap_or(u32::MAX)
    }

    /// So many packets of one size would have the same bound: at most the number of samples, fewer when a few large packets
    /// make most of the volume. `None` when every packet was counted.
    pub fn effective_samples(&self) -> Option<u64> {
        if self.variance == 0 {
            return None;
        }
        let square = u128::from(self.bytes) * u128::from(self.bytes);
        Some(u64::try_from(square / self.variance).unwrap_or(u64::MAX))
    }
}

/// Square root, rounded up.
fn root_up(square: u128) -> u128 {
    let root = square.isqrt();
    if root * root < square { root + 1 } else { root }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_window_has_the_bound_of_its_samples() {
        for (samples, expected_ppm) in [
            (0, 1_960_000),
            (1, 1_960_000),
            (2, 1_385_930),
            (100, 196_000),
            (10_000, 19_600),
            (1_000_000, 1_960),
            (3, 1_131_607),
            (u64::MAX, 1),
        ] {
            assert_eq!(of_samples_ppm(samples), expected_ppm, "{samples} samples");
        }
    }

    #[test]
    fn variances_add_and_bounds_do_not() {
        let mut day = Estimate::default();
        for _ in 0..100 {
            day.add_sampled(1_000_000, 100);
        }
        assert_eq!(
            day.bound_ppm(Z95_PPM),
            19_600,
            "as 10,000 samples, not as the 19.6 % of each window"
        );
        assert_eq!(day.effective_samples(), Some(10_000));

        // One busy window and one that rests on a single packet: neither the best nor the worst of the two.
        let mut two = Estimate::default();
        two.add_sampled(99_000_000, 1_000_000);
        two.add_sampled(1_000_000, 1);
        assert_eq!(two.bound_ppm(Z95_PPM), 19_696);
    }

    #[test]
    fn what_was_counted_packet_by_packet_is_exact() {
        let mut sum = Estimate::default();
        sum.add_counted(1_000_000);
        assert_eq!((sum.bound_ppm(Z95_PPM), sum.effective_samples()), (0, None));
        sum.add_sampled(1_000_000, 100);
        assert_eq!(sum.bound_ppm(Z95_PPM), 98_000, "half of it is certain");
        assert_eq!(Estimate::default().bound_ppm(Z95_PPM), 0);
    }

    #[test]
    fn sums_beyond_every_number_saturate() {
        let mut sum = Estimate::default();
        for _ in 0..3 {
            sum.add_sampled(u64::MAX, 1);
        }
        assert_eq!((sum.bytes, sum.variance), (u64::MAX, u128::MAX));
        assert_eq!(sum.bound_ppm(Z95_PPM), 1_960_001);
        assert_eq!(sum.effective_samples(), Some(0));
    }

    proptest! {
        #[test]
        fn one_window_is_bounded_alike_both_ways(bytes in 1_000_000u64..1 << 50, samples in 1u64..1 << 30) {
            let mut one = Estimate::default();
            one.add_sampled(bytes, samples);
            let (sum, window) = (one.bound_ppm(Z95_PPM), of_samples_ppm(samples));
            prop_assert!(sum.abs_diff(window) <= 2, "{sum} {window}");
        }

        #[test]
        fn more_samples_never_widen_the_bound(samples in 1u64..u64::MAX) {
            prop_assert!(of_samples_ppm(samples + 1) <= of_samples_ppm(samples));
        }
    }
}
