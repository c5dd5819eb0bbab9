//! Volume of one key in one window, and how keys are hashed.

use std::hash::Hasher;

use tables::flow::Metered;

use super::flows::Part;
use crate::error_bound::{Estimate, of_samples_ppm};

/// Volume of one key in one window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cell {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) packets_in: u64,
    pub(crate) packets_out: u64,
    pub(crate) flows: u64,
    pub(crate) samples: u64,
}

impl Cell {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes_in.saturating_add(self.bytes_out)
    }

    /// Whether all of the volume was counted packet by packet. A rate of 2 or more makes more packets than samples.
    fn is_exact(&self) -> bool {
        self.packets_in.saturating_add(self.packets_out) <= self.samples
    }

    /// The window's sampling error, as stored.
    pub(crate) fn error_bound_ppm(&self) -> u32 {
        if self.is_exact() {
            0
        } else {
            of_samples_ppm(self.samples)
        }
    }

    /// Adds the window to a sum over windows.
    pub(crate) fn add_to(&self, sum: &mut Estimate) {
        if self.is_exact() {
            sum.add_counted(self.bytes());
        } else {
            sum.add_sampled(self.bytes(), self.samples);
        }
    }

    pub(super) fn add(&mut self, other: &Cell) {
        self.bytes_in = self.bytes_in.saturating_add(other.bytes_in);
        self.bytes_out = self.bytes_out.saturating_add(other.bytes_out);
        self.packets_in = self.packets_in.saturating_add(other.packets_in);
        self.packets_out = self.packets_out.saturating_add(other.packets_out);
        self.flows = self.flows.saturating_add(other.flows);
        self.samples = self.samples.saturating_add(other.samples);
    }

    #[inline]
    pub(super) fn add_part(&mut self, part: &Part) {
        let (to_bytes, to_packets) = if part.metered == Metered::In as u8 {
            (&mut self.bytes_in, &mut self.packets_in)
        } else {
            (&mut self.bytes_out, &mut self.packets_out)
        };
        *to_bytes = to_bytes.saturating_add(part.bytes);
        *to_packets = to_packets.saturating_add(part.packets);
        self.flows += 1;
        self.samples = self.samples.saturating_add(part.samples);
    }
}

/// Keys are small numbers, so one multiplication mixes them well enough; they are not chosen by others, who could only
/// slow down the counting of their own traffic.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
