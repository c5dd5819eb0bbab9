//! Passwords that are guessed first (NIST SP 800-63B §3.1.1.2, "blocklist"): common ones, what the user and the service are called,
//! rows of keys and repetitions, alone or in twos, with digits and signs around them or in place of letters.
//!
//! The common ones are a list of 30,000 (`portal/data/README.md` says whose). Few of them are as long as a password must be, so that what is
//! compared is what a long one is made of. Nothing is asked of its letters, digits and signs.

use std::collections::HashSet;
use std::sync::LazyLock;

/// One a line, the most common first.
static COMMON: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| include_str!("../../data/common_passwords.txt").lines().collect());

/// What the program is called: part of nobody's secret.
const SERVICE: &str = "ezscale";
/// Different characters that a password has at least: fewer are a repetition.
const MIN_DISTINCT: usize = 5;
/// Characters of a common password that is looked up as a part: most words are one.
const MIN_PART_CHARS: usize = 5;
/// Digits and signs that are taken off either end; more of them are a secret of their own.
const MAX_TRIMMED: usize = 10;
/// Of the steps from one character to the next so many are to a neighbour, in percent, where it is a row of keys.
const MIN_ROW_PERCENT: usize = 75;
/// Characters in an order that fingers or the alphabet know.
const ROWS: [&str; 12] = [
    "qwertyuiop",
    "asdfghjkl",
    "zxcvbnm",
    "1234567890",
    "1qaz",
    "2wsx",
    "3edc",
    "4rfv",
    "5tgb",
    "6yhn",
    "7ujm",
    "abcdefghijklmnopqrstuvwxyz",
];

/// Whether a password is guessed early by who knows the user's `email` and `name`.
pub(super) fn is_guessable(password: &str, email: &str, name: &str) -> bool {
    let lower = password.to_lowercase();
    let chars: Vec<char> = lower.chars().collect();
    let distinct: HashSet<char> = chars.iter().copied().collect();
    if distinct.len() < MIN_DISTINCT || is_repeated(&chars) || is_row(&chars) {
        return true;
    }
    let words = words_of(email, name);
    let known = |text: &str| COMMON.contains(text) || words.contains(text);
    let part = |text: &str| words.contains(text) || text.chars().count() >= MIN_PART_CHARS && COMMON.contains(text);
    let core = trimmed(&lower);
    [lower.as_str(), core].into_iter().any(|text| {
        [bare(text), bare(&without_digits_for_letters(text))]
            .iter()
            .any(|text| known(text) || is_two(text, &part))
            || known(text)
    })
}

/// What the user and the service are called.
fn words_of(email: &str, name: &str) -> HashSet<String> {
    let (email, name) = (email.to_lowercase(), name.to_lowercase());
    let mut words: HashSet<String> = HashSet::from([SERVICE.to_owned(), bare(&email), bare(&name)]);
    let parts = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric())
            .filter(|part| part.chars().count() >= 3)
            .map(str::to_owned)
            .collect()
    };
    words.extend(parts(&email));
    words.extend(parts(&name));
    words.insert(email);
    words.remove("");
    words
}

/// Letters and digits alone.
fn bare(text: &str) -> String {
    text.chars().filter(|c| c.is_alphanumeric()).collect()
}

/// Without digits and signs at its ends.
fn trimmed(text: &str) -> &str {
    let is_other = |c: char| !c.is_alphabetic();
    let front = text.trim_start_matches(is_other);
    let text = if text.chars().count() - front.chars().count() <= MAX_TRIMMED {
        front
    } else {
        text
    };
    let back = text.trim_end_matches(is_other);
    if text.chars().count() - back.chars().count() <= MAX_TRIMMED {
        back
    } else {
        text
    }
}

/// `p4$$w0rd` as it is meant.
fn without_digits_for_letters(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '@' | '4' => 'a',
            '3' => 'e',
            '1' | '!' => 'i',
            '0' => 'o',
            '$' | '5' => 's',
            '7' => 't',
            other => other,
        })
        .collect()
}

/// Two known parts, one after the other.
fn is_two(text: &str, is_known: &impl Fn(&str) -> bool) -> bool {
    text.char_indices().skip(1).any(|(at, _)| {
        let (first, second) = text.split_at(at);
        is_known(first) && is_known(second)
    })
}

/// The same again, from its start to its end.
fn is_repeated(chars: &[char]) -> bool {
    (1..=chars.len() / 2).any(|unit| chars.iter().enumerate().all(|(at, c)| *c == chars[at % unit]))
}

/// Neighbours of keyboard or alphabet, one after the other.
fn is_row(chars: &[char]) -> bool {
    let is_step = |pair: &[char]| {
        pair[0] == pair[1]
            || ROWS.iter().any(|row| {
                let at = |c: char| row.chars().position(|other| other == c);
                matches!((at(pair[0]), at(pair[1])), (Some(a), Some(b)) if a.abs_diff(b) == 1)
            })
    };
    let steps = chars.windows(2).filter(|pair| is_step(pair)).count();
    steps * 100 >= chars.len().saturating_sub(1) * MIN_ROW_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guessed_first_is_found() {
        for password in [
            "passwordpassword",
            "Password12345678",
            "P@ssw0rd!2026!!!!",
            "2024password2024",
            "123456789012345",
            "qwertyuiopasdfgh",
            "1qaz2wsx3edc4rfv",
            "abcdefghijklmnop",
            "aaaaaaaaaaaaaaaa",
            "abababababababab",
            "horse7battery7horse7battery7",
            "iloveyou-princess",
            "sunflower dragonfly",
            "1234567890123456",
            "ezscalepassword",
            "EZSCALE-2026-2026",
            "Lovelace-password1",
            "ada.lovelace@example.net",
            "adalovelace19751975",
            "lovelaceexample",
            "ada-password1234",
        ] {
            assert!(
                is_guessable(password, "ada.lovelace@example.net", "Ada Lovelace"),
                "{password}"
            );
        }
    }

    #[test]
    fn what_is_not_guessed_is_taken_whatever_it_is_made_of() {
        for password in [
            "correct horse battery",
            "another long one",
            "demo-ezscale-2026",
            "correcthorsebatterystaple",
            "k8s7mq2x9v4pt6wz",
            "731905824660172",
            "drei kleine braune Hasen",
            "пять зелёных яблок",
            "!?%&/()=#+*'_:;-",
            "lovelace counts her engines",
        ] {
            assert!(
                !is_guessable(password, "ada.lovelace@example.net", "Ada Lovelace"),
                "{password}"
            );
        }
    }

    #[test]
    fn the_list_is_whole() {
        assert_eq!(COMMON.len(), 30_000);
        assert!(COMMON.contains("123456") && COMMON.contains("letmein"));
    }
}
