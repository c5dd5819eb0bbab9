//! Slows down guessing: failed passwords, and failed codes apart from them, are counted by (address, email), by address and
//! by email, over a window.
//!
//! The map is bounded. When it is full, entries whose window has passed go first, then the oldest; so the limit on
//! addresses cannot be used to fill memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use sha2::{Digest as _, Sha256};

use crate::client::grouped;

/// Failures of one email from one address in a window.
const MAX_FAILURES_PER_PAIR: u32 = 5;
/// Failures from one address in a window, whatever the email.
const MAX_FAILURES_PER_ADDRESS: u32 = 50;
/// Failures of one email in a window, whatever the address.
const MAX_FAILURES_PER_EMAIL: u32 = 100;
/// The same for codes. There are only a million, of which three are right at a time, and who guesses them has the password.
const MAX_FAILED_CODES_PER_EMAIL: u32 = 10;
/// Length of the window.
const WINDOW_MS: i64 = 15 * 60_000;
/// Keys remembered at most.
const MAX_KEYS: usize = 20_000;

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Key {
    Pair(IpAddr, [u8; 32]),
    Address(IpAddr),
    Email([u8; 32]),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    since_ms: i64,
    count: u32,
}

/// Counts failures.
#[derive(Debug)]
pub(crate) struct Throttle {
    max_per_email: u32,
    failures: Mutex<HashMap<Key, Failures>>,
}

fn keys(ip: IpAddr, email: &str) -> [Key; 3] {
    let ip = grouped(ip);
    let email: [u8; 32] = Sha256::digest(email.trim().to_lowercase().as_bytes()).into();
    [Key::Pair(ip, email), Key::Address(ip), Key::Email(email)]
}

impl Throttle {
    pub(crate) fn of_passwords() -> Throttle {
        Throttle {
            max_per_email: MAX_FAILURES_PER_EMAIL,
            failures: Mutex::default(),
        }
    }

    /// Of second factors. A right password does not start these anew, or whoever has it could go on guessing.
    pub(crate) fn of_codes() -> Throttle {
        Throttle {
            max_per_email: MAX_FAILED_CODES_PER_EMAIL,
            failures: Mutex::default(),
        }
    }

    fn limit(&self, key: &Key) -> u32 {
        match key {
            Key::Pair(..) => MAX_FAILURES_PER_PAIR,
            Key::Address(_) => MAX_FAILURES_PER_ADDRESS,
            Key::Email(_) => self.max_per_email,
        }
    }

    /// Takes one attempt before it is made, so that parallel guesses count too. The answer is how long to wait where
    /// there are none left.
    pub(crate) fn take(&self, ip: IpAddr, email: &str, now_ms: i64) -> Result<(), u64> {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let keys = keys(ip, email);
        for key in &keys {
            if let Some(entry) = failures.get(key)
                && entry.since_ms + WINDOW_MS > now_ms
                && entry.count >= self.limit(key)
            {
                let wait_ms = entry.since_ms + WINDOW_MS - now_ms;
                return Err(u64::try_from(wait_ms.div_euclid(1000) + 1).unwrap_or(1));
            }
        }
        if failures.len() + keys.len() > MAX_KEYS {
            failures.retain(|_, entry| entry.since_ms + WINDOW_MS > now_ms);
        }
        if failures.len() + keys.len() > MAX_KEYS {
            // A tenth at once, so that a full map costs little per attempt.
            let mut ages: Vec<i64> = failures.values().map(|entry| entry.since_ms).collect();
            let (_, cut, _) = ages.select_nth_unstable(MAX_KEYS / 10);
            let cut = *cut;
            failures.retain(|_, entry| entry.since_ms > cut);
        }
        for key in keys {
            let entry = failures.entry(key).or_insert(Failures {
                since_ms: now_ms,
                count: 0,
            });
            if entry.since_ms + WINDOW_MS <= now_ms {
                *entry = Failures {
                    since_ms: now_ms,
                    count: 0,
                };
            }
            entry.count += 1;
        }
        Ok(())
    }

    /// The attempt was a success: it does not count, and the pair starts anew.
    pub(crate) fn succeeded(&self, ip: IpAddr, email: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for key in keys(ip, email) {
            match &key {
                Key::Pair(..) => {
                    failures.remove(&key);
                }
                Key::Address(_) | Key::Email(_) => {
                    if let Some(entry) = failures.get_mut(&key) {
                        entry.count = entry.count.saturating_sub(1);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMAIL: &str = "a@example.net";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_sixth_guess_waits_until_the_window_is_over() {
        let throttle = Throttle::of_passwords();
        let from = ip("192.0.2.1");
        for _ in 0..MAX_FAILURES_PER_PAIR {
            throttle.take(from, EMAIL, 1_000).unwrap();
        }
        assert_eq!(throttle.take(from, " A@EXAMPLE.net ", 1_000), Err(901));
        throttle.take(from, "b@example.net", 1_000).unwrap();
        throttle.take(ip("192.0.2.2"), EMAIL, 1_000).unwrap();
        throttle.take(from, EMAIL, 1_000 + WINDOW_MS).unwrap();
    }

    #[test]
    fn success_forgives_and_an_address_has_its_own_limit() {
        let throttle = Throttle::of_passwords();
        let from = ip("192.0.2.1");
        for _ in 0..1_000 {
            throttle.take(from, EMAIL, 0).unwrap();
            throttle.succeeded(from, EMAIL);
        }
        for guess in 0..MAX_FAILURES_PER_ADDRESS {
            throttle.take(from, &format!("{guess}@example.net"), 0).unwrap();
        }
        assert!(throttle.take(from, "new@example.net", 0).is_err());
        assert!(
            throttle.take(ip("2001:db8::1"), EMAIL, 0).is_ok(),
            "another address is not held back"
        );
    }

    #[test]
    fn codes_of_one_user_are_guessed_from_few_addresses() {
        let throttle = Throttle::of_codes();
        for guess in 0..MAX_FAILED_CODES_PER_EMAIL {
            throttle.take(IpAddr::from(guess.to_be_bytes()), EMAIL, 0).unwrap();
        }
        assert!(throttle.take(ip("192.0.2.99"), EMAIL, 0).is_err());
        throttle.take(ip("192.0.2.99"), "b@example.net", 0).unwrap();
        throttle.take(ip("192.0.2.99"), EMAIL, WINDOW_MS).unwrap();
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::of_passwords();
        for n in 0..(MAX_KEYS as u32 / 2) {
            let from = IpAddr::from(n.to_be_bytes());
            throttle.take(from, &format!("{n}@example.net"), i64::from(n)).unwrap();
        }
        let kept = throttle.failures.lock().unwrap().len();
        assert!(kept <= MAX_KEYS, "{kept}");
    }
}
