//! Slows down guessing: each failure makes the next try wait longer, up to a limit, and is forgotten with time. Nobody is locked
//! out.
//!
//! ```text
//! who tries                         counted by                                  a stranger's guesses count against it
//! a browser that signed this user
//! in before, a signed-in session    itself alone                                never
//! anybody else                      (address, account), address, account        yes, and a link by mail leads around it
//! ```
//!
//! * The account's own count bounds what strangers can guess from however many addresses. It is high, so that one of them does
//!   not reach it, and forgets quickly, so that it does not last.
//! * An account that does not exist is counted as one that does: nothing is learned from having to wait.
//! * An attempt counts before it is made, so that parallel guesses count too, and is taken back when it was right.
//! * Kept in memory: guesses are many, and each would otherwise take the database's write lock, which is what guessers could
//!   then wear out. A restart forgets them, which gives whoever can bring it about the few free tries again; the browsers that
//!   are known are in the database. The map is bounded; when it is full, what is nearest to being forgotten goes first.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use sha2::{Digest as _, Sha256};

use crate::client::grouped;

const MINUTE_MS: i64 = 60_000;
/// Failures beyond the free ones that are remembered: the delay has long reached its limit.
const MAX_BEYOND_FREE: i64 = 24;
/// Keys remembered at most.
const MAX_KEYS: usize = 20_000;

/// How failures by one key delay the next try.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Failures before there is a delay.
    free: i64,
    /// The first delay; each further failure doubles it.
    base_ms: i64,
    /// No failure makes anybody wait longer.
    max_ms: i64,
    /// Until one failure is forgotten.
    forget_ms: i64,
}

/// The paces of one kind of secret.
#[derive(Clone, Copy, Debug)]
struct Paces {
    own: Pace,
    pair: Pace,
    address: Pace,
    account: Pace,
}

const PASSWORDS: Paces = Paces {
    own: Pace {
        free: 5,
        base_ms: 2_000,
        max_ms: 15 * MINUTE_MS,
        forget_ms: 10 * MINUTE_MS,
    },
    pair: Pace {
        free: 5,
        base_ms: 2_000,
        max_ms: 15 * MINUTE_MS,
        forget_ms: 10 * MINUTE_MS,
    },
    address: Pace {
        free: 30,
        base_ms: 1_000,
        max_ms: 15 * MINUTE_MS,
        forget_ms: MINUTE_MS,
    },
    account: Pace {
        free: 20,
        base_ms: 1_000,
        max_ms: 15 * MINUTE_MS,
        forget_ms: 5 * MINUTE_MS,
    },
};

/// There are only a million codes, of which three are right at a time, and who guesses them has the password.
const CODES: Paces = Paces {
    own: Pace {
        free: 5,
        base_ms: 10_000,
        max_ms: 60 * MINUTE_MS,
        forget_ms: 60 * MINUTE_MS,
    },
    pair: Pace {
        free: 5,
        base_ms: 10_000,
        max_ms: 60 * MINUTE_MS,
        forget_ms: 60 * MINUTE_MS,
    },
    address: PASSWORDS.address,
    account: Pace {
        free: 10,
        base_ms: 10_000,
        max_ms: 60 * MINUTE_MS,
        forget_ms: 60 * MINUTE_MS,
    },
};

/// Asking for links by mail: what one account is mailed is counted elsewhere, and not told to who asks.
const LINKS: Paces = Paces {
    own: PASSWORDS.own,
    pair: Pace {
        free: i64::MAX,
        base_ms: 0,
        max_ms: 0,
        forget_ms: 1,
    },
    address: Pace {
        free: 10,
        base_ms: 5_000,
        max_ms: 15 * MINUTE_MS,
        forget_ms: 5 * MINUTE_MS,
    },
    account: Pace {
        free: i64::MAX,
        base_ms: 0,
        max_ms: 0,
        forget_ms: 1,
    },
};

/// Who tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum AttemptSource<'a> {
    Stranger(IpAddr),
    /// A browser that has signed this user in before, or a session of theirs: what names it.
    Known(&'a str),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Key {
    Own([u8; 32]),
    Pair(IpAddr, [u8; 32]),
    Address(IpAddr),
    Account([u8; 32]),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    /// Failures times what it takes to forget one, as of `at_ms`: it goes down as time goes by.
    debt_ms: i64,
    at_ms: i64,
    /// No try before.
    until_ms: i64,
}

impl Failures {
    fn debt_at(&self, now_ms: i64) -> i64 {
        (self.debt_ms - (now_ms - self.at_ms).max(0)).max(0)
    }

    fn forgotten_at_ms(&self) -> i64 {
        self.until_ms.max(self.at_ms + self.debt_ms)
    }
}

impl Pace {
    /// One failure more.
    fn failed(self, before: Option<Failures>, now_ms: i64) -> Failures {
        let debt_ms = before.map_or(0, |failures| failures.debt_at(now_ms)) + self.forget_ms;
        let most_ms = self.free.saturating_add(MAX_BEYOND_FREE).saturating_mul(self.forget_ms);
        let debt_ms = debt_ms.min(most_ms);
        let failures = (debt_ms + self.forget_ms - 1) / self.forget_ms;
        let beyond = failures - self.free;
        let delay_ms = match u32::try_from(beyond) {
            Ok(doublings) => self
                .base_ms
                .saturating_mul(1i64.checked_shl(doublings.min(40)).unwrap_or(i64::MAX))
                .min(self.max_ms),
            Err(_) => 0,
        };
        Failures {
            debt_ms,
            at_ms: now_ms,
            until_ms: now_ms + delay_ms,
        }
    }
}

/// Counts failures.
#[derive(Debug)]
pub(crate) struct Throttle {
    paces: Paces,
    failures: Mutex<HashMap<Key, Failures>>,
}

/// The keys of an attempt at an account; what is longer than an address can be is cut by hashing it.
fn keys(guesser: AttemptSource<'_>, account: &str) -> Vec<Key> {
    let account = account.trim().to_lowercase();
    let hash = |text: &str| -> [u8; 32] { Sha256::digest(text.as_bytes()).into() };
    match guesser {
        AttemptSource::Known(name) => vec![Key::Own(hash(&format!("{name}\n{account}")))],
        AttemptSource::Stranger(ip) => {
            let (ip, account) = (grouped(ip), hash(&account));
            vec![Key::Pair(ip, account), Key::Address(ip), Key::Account(account)]
        }
    }
}

impl Throttle {
    fn with(paces: Paces) -> Throttle {
        Throttle {
            paces,
            failures: Mutex::default(),
        }
    }

    pub(crate) fn of_passwords() -> Throttle {
        Throttle::with(PASSWORDS)
    }

    /// Of second factors. A right password takes nothing back from these, or whoever has it could go on guessing.
    pub(crate) fn of_codes() -> Throttle {
        Throttle::with(CODES)
    }

    /// Of asking for links by mail, and of links that are no good.
    pub(crate) fn of_links() -> Throttle {
        Throttle::with(LINKS)
    }

    fn pace(&self, key: &Key) -> Pace {
        match key {
            Key::Own(_) => self.paces.own,
            Key::Pair(..) => self.paces.pair,
            Key::Address(_) => self.paces.address,
            Key::Account(_) => self.paces.account,
        }
    }

    /// Takes one attempt before it is made. The answer is how many seconds to wait where it is too early; such a try does not
    /// count.
    pub(crate) fn take(&self, guesser: AttemptSource<'_>, account: &str, now_ms: i64) -> Result<(), u64> {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let keys = keys(guesser, account);
        let until_ms = keys
            .iter()
            .filter_map(|key| failures.get(key))
            .map(|entry| entry.until_ms)
            .max();
        if let Some(until_ms) = until_ms.filter(|until_ms| *until_ms > now_ms) {
            return Err(u64::try_from((until_ms - now_ms + 999) / 1000).unwrap_or(1));
        }
        make_room(&mut failures, keys.len(), now_ms);
        for key in keys {
            let pace = self.pace(&key);
            let before = failures.get(&key).copied();
            failures.insert(key, pace.failed(before, now_ms));
        }
        Ok(())
    }

    /// The attempt that was taken was not made: it does not count.
    pub(crate) fn take_back(&self, guesser: AttemptSource<'_>, account: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for key in keys(guesser, account) {
            let forget_ms = self.pace(&key).forget_ms;
            if let Some(entry) = failures.get_mut(&key) {
                entry.debt_ms = (entry.debt_ms - forget_ms).max(0);
                // It was not too early, so that there was nothing to wait for before it.
                entry.until_ms = entry.at_ms;
            }
        }
    }

    /// The attempt was right: it does not count, and who made it begins anew.
    pub(crate) fn succeeded(&self, guesser: AttemptSource<'_>, account: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for key in keys(guesser, account) {
            let forget_ms = self.pace(&key).forget_ms;
            match &key {
                Key::Own(_) | Key::Pair(..) => {
                    failures.remove(&key);
                }
                Key::Address(_) | Key::Account(_) => {
                    if let Some(entry) = failures.get_mut(&key) {
                        entry.debt_ms = (entry.debt_ms - forget_ms).max(0);
                        // It was not too early, so that there was nothing to wait for before it.
                        entry.until_ms = entry.at_ms;
                    }
                }
            }
        }
    }
}

fn make_room(failures: &mut HashMap<Key, Failures>, wanted: usize, now_ms: i64) {
    if failures.len() + wanted <= MAX_KEYS {
        return;
    }
    failures.retain(|_, entry| entry.forgotten_at_ms() > now_ms);
    if failures.len() + wanted > MAX_KEYS {
        // A tenth at once, so that a full map costs little per attempt.
        let mut ends: Vec<i64> = failures.values().map(Failures::forgotten_at_ms).collect();
        let (_, cut, _) = ends.select_nth_unstable(MAX_KEYS / 10);
        let cut = *cut;
        failures.retain(|_, entry| entry.forgotten_at_ms() > cut);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMAIL: &str = "a@example.net";
    const HOUR_MS: i64 = 60 * MINUTE_MS;

    fn from(text: &str) -> AttemptSource<'static> {
        AttemptSource::Stranger(text.parse().unwrap())
    }

    fn numbered(n: u32) -> AttemptSource<'static> {
        AttemptSource::Stranger(IpAddr::from(n.to_be_bytes()))
    }

    /// Guesses that get through in a time, by who take turns and try as soon as it is allowed.
    fn guesses(throttle: &Throttle, guessers: &[AttemptSource<'_>], account: &str, span_ms: i64) -> usize {
        let mut made = 0;
        let mut now_ms = 0;
        while now_ms < span_ms {
            match throttle.take(guessers[made % guessers.len()], account, now_ms) {
                Ok(()) => made += 1,
                Err(wait_s) => now_ms += i64::try_from(wait_s).unwrap() * 1_000,
            }
        }
        made
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_a_limit_and_time_forgets() {
        let throttle = Throttle::of_passwords();
        let guesser = from("192.0.2.1");
        let mut now_ms = 0;
        let mut waits = Vec::new();
        for _ in 0..24 {
            let wait_s = match throttle.take(guesser, " A@Example.NET ", now_ms) {
                Ok(()) => 0,
                Err(wait_s) => {
                    now_ms += i64::try_from(wait_s).unwrap() * 1_000;
                    throttle.take(guesser, EMAIL, now_ms).unwrap();
                    wait_s
                }
            };
            waits.push(wait_s);
        }
        assert_eq!(waits[..8], [0, 0, 0, 0, 0, 2, 4, 8]);
        assert!(waits.iter().all(|wait_s| *wait_s <= 900), "{waits:?}");
        assert!(waits.contains(&512), "{waits:?}");
        assert!(throttle.take(guesser, EMAIL, now_ms).is_err());
        throttle.take(from("192.0.2.2"), EMAIL, now_ms).unwrap();
        throttle.take(guesser, "b@example.net", now_ms).unwrap();
        now_ms += 12 * HOUR_MS;
        for _ in 0..5 {
            throttle.take(guesser, EMAIL, now_ms).unwrap();
        }
    }

    #[test]
    fn one_stranger_holds_up_nobody_else_however_long_they_try() {
        let throttle = Throttle::of_passwords();
        let made = guesses(&throttle, &[from("192.0.2.1")], EMAIL, 24 * HOUR_MS);
        assert!((100..=170).contains(&made), "{made} guesses in a day");
        throttle.take(from("198.51.100.1"), EMAIL, 24 * HOUR_MS).unwrap();
    }

    #[test]
    fn many_strangers_together_guess_little_and_a_known_browser_does_not_wait() {
        let throttle = Throttle::of_passwords();
        let strangers: Vec<AttemptSource<'_>> = (1..=2_000).map(numbered).collect();
        let made = guesses(&throttle, &strangers, EMAIL, 6 * HOUR_MS);
        assert!(
            made <= 20 + 6 * 12 + 20,
            "{made} guesses of 2,000 addresses in six hours"
        );
        // At the pace that is left they are held up still, and so is the user at a browser that is not known.
        while throttle.take(strangers[0], EMAIL, 6 * HOUR_MS).is_ok() {}
        let now_ms = 6 * HOUR_MS;
        assert!(throttle.take(from("203.0.113.1"), EMAIL, now_ms).is_err());
        throttle.take(AttemptSource::Known("device"), EMAIL, now_ms).unwrap();
        throttle.succeeded(AttemptSource::Known("device"), EMAIL);
        // What is known is not for guessing either.
        let made = guesses(&throttle, &[AttemptSource::Known("stolen")], EMAIL, 24 * HOUR_MS);
        assert!(made <= 170, "{made}");
        throttle.take(AttemptSource::Known("device"), EMAIL, now_ms).unwrap();
    }

    #[test]
    fn success_takes_its_attempt_back_and_an_address_has_its_own_pace() {
        let throttle = Throttle::of_passwords();
        let guesser = from("192.0.2.1");
        for _ in 0..1_000 {
            throttle.take(guesser, EMAIL, 0).unwrap();
            throttle.succeeded(guesser, EMAIL);
        }
        for guess in 0..30 {
            throttle.take(guesser, &format!("{guess}@example.net"), 0).unwrap();
        }
        assert_eq!(throttle.take(guesser, "new@example.net", 0), Err(1));
        assert!(throttle.take(from("2001:db8::1"), EMAIL, 0).is_ok());
        for guess in 0..40u32 {
            let host = format!("2001:db8:0:7::{guess:x}");
            let _ = throttle.take(from(&host), &format!("{guess}@example.net"), 0);
        }
        assert!(
            throttle
                .take(from("2001:db8:0:7:ffff::1"), "new@example.net", 0)
                .is_err(),
            "a /64 is one guesser"
        );
    }

    #[test]
    fn an_attempt_that_was_taken_back_does_not_count() {
        let throttle = Throttle::of_passwords();
        for guesser in [from("192.0.2.1"), AttemptSource::Known("device")] {
            for _ in 0..4 {
                throttle.take(guesser, EMAIL, 0).unwrap();
            }
            for _ in 0..100 {
                throttle.take(guesser, EMAIL, 0).unwrap();
                throttle.take_back(guesser, EMAIL);
            }
            throttle.take(guesser, EMAIL, 0).unwrap();
            assert_eq!(throttle.take(guesser, EMAIL, 0), Err(2), "what was made counts still");
        }
    }

    #[test]
    fn codes_are_guessed_more_slowly() {
        let throttle = Throttle::of_codes();
        let strangers: Vec<AttemptSource<'_>> = (1..=500).map(numbered).collect();
        let made = guesses(&throttle, &strangers, EMAIL, 24 * HOUR_MS);
        assert!(made <= 10 + 24 + 12, "{made} codes of 500 addresses in a day");
        throttle.take(numbered(1), "b@example.net", 24 * HOUR_MS).unwrap();
    }

    #[test]
    fn links_are_counted_by_address_alone() {
        let throttle = Throttle::of_links();
        for n in 0..50 {
            throttle.take(numbered(n), EMAIL, 0).unwrap();
        }
        for guess in 0..10 {
            throttle
                .take(from("192.0.2.1"), &format!("{guess}@example.net"), 0)
                .unwrap();
        }
        assert_eq!(throttle.take(from("192.0.2.1"), EMAIL, 0), Err(5));
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::of_passwords();
        for n in 0..(MAX_KEYS as u32 / 2) {
            let account = format!("{n}@example.net");
            throttle.take(numbered(n), &account, i64::from(n)).unwrap();
        }
        let kept = throttle.failures.lock().unwrap().len();
        assert!(kept <= MAX_KEYS, "{kept}");
    }
}
