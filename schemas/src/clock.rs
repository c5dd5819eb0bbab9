//! What time it is, for everything that decides by it: jobs, billing, the portal.
//!
//! A test clock stands still until it is set, and only ever goes forward, so that a year of billing can be walked through
//! in a minute and twice the same way. What arrives from outside keeps its real time: the kernel stamps datagrams.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// A clock. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Test(Arc<AtomicI64>),
}

/// Why a clock was not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ClockError {
    #[error("only a test clock can be set: start with --clock")]
    System,
    #[error("the clock is at {now} and only goes forward, not to {asked}")]
    Backwards { now: Timestamp, asked: Timestamp },
}

impl Clock {
    /// The machine's.
    pub const fn system() -> Clock {
        Clock(Source::System)
    }

    /// One that stands at `at` until it is set.
    pub fn test(at: Timestamp) -> Clock {
        Clock(Source::Test(Arc::new(AtomicI64::new(at.as_millisecond()))))
    }

    pub fn is_test(&self) -> bool {
        matches!(self.0, Source::Test(_))
    }

    /// UTC milliseconds.
    pub fn now_ms(&self) -> i64 {
        match &self.0 {
            Source::System => Timestamp::now().as_millisecond(),
            Source::Test(at_ms) => at_ms.load(Ordering::SeqCst),
        }
    }

    pub fn now(&self) -> Timestamp {
        // Every value came from a timestamp.
        Timestamp::from_millisecond(self.now_ms()).unwrap_or(Timestamp::MAX)
    }

    /// Sets a test clock, for all of its clones.
    ///
    /// # Errors
    /// When it is the machine's clock, or `to` lies before what it shows.
    pub fn set(&self, to: Timestamp) -> Result<(), ClockError> {
        let Source::Test(at_ms) = &self.0 else {
            return Err(ClockError::System);
        };
        let before_ms = at_ms.fetch_max(to.as_millisecond(), Ordering::SeqCst);
        if before_ms > to.as_millisecond() {
            let now = Timestamp::from_millisecond(before_ms).unwrap_or(Timestamp::MAX);
            return Err(ClockError::Backwards { now, asked: to });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_clock_stands_still_and_goes_forward_only() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let clock = Clock::test(at("2024-01-31T00:00:00Z"));
        let shared = clock.clone();
        shared.set(at("2024-02-29T00:00:00Z")).unwrap();
        assert_eq!(clock.now(), at("2024-02-29T00:00:00Z"));
        let refused = clock.set(at("2024-02-28T23:59:59Z")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the clock is at 2024-02-29T00:00:00Z and only goes forward, not to 2024-02-28T23:59:59Z"
        );
        assert_eq!(clock.now(), at("2024-02-29T00:00:00Z"));
        assert_eq!(Clock::system().set(at("2024-02-29T00:00:00Z")), Err(ClockError::System));
    }
}
