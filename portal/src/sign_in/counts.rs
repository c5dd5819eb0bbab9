//! What signing in has done since the start, for `/metrics`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use schemas::identity::Outcome;

const OUTCOMES: [Outcome; 5] = [
    Outcome::SignedIn,
    Outcome::CodeAsked,
    Outcome::WrongPassword,
    Outcome::WrongCode,
    Outcome::Disabled,
];

/// Counters.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    outcomes: [AtomicU64; OUTCOMES.len()],
    held_back: AtomicU64,
    password_checks: AtomicU64,
    links_asked: AtomicU64,
    passwords_reset: AtomicU64,
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counts {
    pub(crate) fn attempt(&self, outcome: Outcome) {
        for (known, counter) in OUTCOMES.iter().zip(&self.outcomes) {
            if *known == outcome {
                add(counter);
            }
        }
    }

    /// A try that came too early.
    pub(crate) fn held_back(&self) {
        add(&self.held_back);
    }

    /// A password was compared with a hash, be it nobody's.
    pub(crate) fn password_check(&self) {
        add(&self.password_checks);
    }

    pub(crate) fn link_asked(&self) {
        add(&self.links_asked);
    }

    pub(crate) fn password_reset(&self) {
        add(&self.passwords_reset);
    }

    /// In the Prometheus text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from(
            "# HELP ezscale_sign_in_attempts_total sign-in attempts that were checked\n\
             # TYPE ezscale_sign_in_attempts_total counter\n",
        );
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (outcome, counter) in OUTCOMES.iter().zip(&self.outcomes) {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "ezscale_sign_in_attempts_total{{outcome=\"{}\"}} {}",
                outcome.name(),
                load(counter)
            );
        }
        for (name, help, counter) in [
            (
                "held_back",
                "attempts that came too early after failures",
                &self.held_back,
            ),
            (
                "password_checks",
                "passwords compared with a hash, of users that do not exist too",
                &self.password_checks,
            ),
            ("links_asked", "requests for a password reset link", &self.links_asked),
            ("passwords_reset", "passwords set by such a link", &self.passwords_reset),
        ] {
            let _ = writeln!(
                text,
                "# HELP ezscale_sign_in_{name}_total {help}\n# TYPE ezscale_sign_in_{name}_total counter\n\
                 ezscale_sign_in_{name}_total {}",
                load(counter)
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_by_itself() {
        let counts = Counts::default();
        counts.attempt(Outcome::WrongCode);
        counts.password_check();
        counts.password_check();
        let text = counts.text();
        for line in [
            "ezscale_sign_in_attempts_total{outcome=\"wrong_code\"} 1\n",
            "ezscale_sign_in_attempts_total{outcome=\"wrong_password\"} 0\n",
            "ezscale_sign_in_password_checks_total 2\n",
            "ezscale_sign_in_held_back_total 0\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
