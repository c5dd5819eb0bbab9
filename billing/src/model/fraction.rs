//! Exact fractions of whole numbers. A sum that does not fit panics: then a history is too large for the model.

use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Sub};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fraction {
    top: i128,
    /// Above zero.
    bottom: i128,
}

impl Fraction {
    pub(super) const ZERO: Fraction = Fraction { top: 0, bottom: 1 };

    pub(super) fn new(top: i128, bottom: i128) -> Fraction {
        assert!(bottom != 0, "{top} / 0");
        let shared = common(top.abs(), bottom.abs()) * bottom.signum();
        Fraction {
            top: top / shared,
            bottom: bottom / shared,
        }
    }

    pub(super) fn whole(value: i64) -> Fraction {
        Fraction::new(value.into(), 1)
    }

    pub(super) fn floor(self) -> i128 {
        self.top.div_euclid(self.bottom)
    }

    pub(super) fn ceil(self) -> i128 {
        -(-self.top).div_euclid(self.bottom)
    }

    /// To the next whole number, halves away from zero.
    pub(super) fn round(self) -> i64 {
        let up = (2 * self.top.abs() + self.bottom) / (2 * self.bottom);
        i64::try_from(up * self.top.signum()).unwrap()
    }
}

fn common(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { common(b, a % b) }
}

impl Add for Fraction {
    type Output = Fraction;
    fn add(self, other: Fraction) -> Fraction {
        Fraction::new(
            self.top * other.bottom + other.top * self.bottom,
            self.bottom * other.bottom,
        )
    }
}

impl Sub for Fraction {
    type Output = Fraction;
    fn sub(self, other: Fraction) -> Fraction {
        Fraction::new(
            self.top * other.bottom - other.top * self.bottom,
            self.bottom * other.bottom,
        )
    }
}

impl Mul for Fraction {
    type Output = Fraction;
    fn mul(self, other: Fraction) -> Fraction {
        Fraction::new(self.top * other.top, self.bottom * other.bottom)
    }
}

impl Div for Fraction {
    type Output = Fraction;
    fn div(self, other: Fraction) -> Fraction {
        Fraction::new(self.top * other.bottom, self.bottom * other.top)
    }
}

impl PartialOrd for Fraction {
    fn partial_cmp(&self, other: &Fraction) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Fraction {
    fn cmp(&self, other: &Fraction) -> Ordering {
        (self.top * other.bottom).cmp(&(other.top * self.bottom))
    }
}

#[test]
fn halves_are_rounded_away_from_zero() {
    for (top, bottom, rounded) in [
        (1, 2, 1),
        (-1, 2, -1),
        (5, 2, 3),
        (149, 100, 1),
        (-149, 100, -1),
        (0, 7, 0),
    ] {
        assert_eq!(Fraction::new(top, bottom).round(), rounded, "{top} / {bottom}");
    }
}
