//! What commands print: listings as tables, JSON or CSV, and progress of long work.

#[macro_use]
pub(crate) mod print;
mod cell;
mod listing;

pub(crate) use cell::{Cell, at, bit_rate, bytes, money, number, ppm, shown, text, to_the_second};
pub(crate) use listing::{Format, Listing, Record, ShowFormat};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use schemas::text::is_plain;

/// An error and its causes in one line. Some libraries' errors repeat their cause: it is said once. What a terminal would obey, or
/// would not show, is written as an escape: an error may repeat what came from elsewhere.
pub(crate) fn causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let said = cause.to_string();
        if text.contains(&said) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&said);
    }
    visible(&text)
}

/// With everything that a terminal does not show as an escape, but for lines and tabs.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if is_plain(character) || matches!(character, '\n' | '\t') {
            shown.push(character);
        } else {
            shown.extend(character.escape_unicode());
        }
    }
    shown
}

/// A number of things in words: `1 backup`, `2 backups`, `0 backups`.
pub(crate) fn count<N: Copy + From<u8> + PartialEq + std::fmt::Display>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// A progress bar on standard error; silent where that is no terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    fn styled(template: &str, what: &str, total: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(template) {
            // Figures that change ten times a second have no use for decimals.
            let style = style
                .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{}/s", HumanCount(whole(state.per_sec())));
                })
                .with_key("volume", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{:>8}", whole_byte_count(state.pos()));
                })
                .with_key("of_volume", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = out.write_str(&whole_byte_count(state.len().unwrap_or(0)));
                })
                .with_key("byte_rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                    let _ = write!(out, "{}/s", whole_byte_count(whole(state.per_sec())));
                });
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.set_message(what.to_owned());
        Progress { bar }
    }

    pub(crate) fn counted(what: &str, total: u64) -> Progress {
        Progress::styled(
            "{msg:28} {bar:30} {human_pos:>12} / {human_len}  {rate}  {eta}",
            what,
            total,
        )
    }

    pub(crate) fn bytes(what: &str, total: u64) -> Progress {
        Progress::styled(
            "{msg:28} {bar:30} {volume} / {of_volume}  {byte_rate}  {eta}",
            what,
            total,
        )
    }

    /// For work whose total shows on the way.
    pub(crate) fn set_of(&self, position: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(position);
    }

    pub(crate) fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Takes the bar away: what follows is the answer.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    pub(crate) fn finish(&self) {
        self.bar.finish();
    }
}

/// A rate that is shown while it changes.
fn whole(rate: f64) -> u64 {
    rate.round().max(0.0) as u64
}

/// A volume that is shown while it changes: binary units, no decimals.
fn whole_byte_count(bytes: u64) -> String {
    let exponent = bytes.max(1).ilog2() / 10;
    let whole = bytes >> (10 * exponent);
    format!("{whole} {}", BYTE_UNITS[exponent as usize])
}

const BYTE_UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A volume for people: binary units, one decimal.
pub(crate) fn byte_count(bytes: u64) -> String {
    let exponent = (bytes.max(1).ilog2() / 10) as usize;
    match exponent {
        0 => format!("{bytes} B"),
        _ => format!(
            "{:.1} {}",
            bytes as f64 / (1u64 << (10 * exponent)) as f64,
            BYTE_UNITS[exponent]
        ),
    }
}

/// A rate for people: decimal units, one decimal.
pub(crate) fn bits_per_second(bps: u64) -> String {
    const UNITS: [&str; 5] = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"];
    let mut value = bps as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bps} bit/s"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_does_not_command_the_terminal() {
        let error = anyhow::anyhow!("line 1\n\tline 2: Zoë").context("there is no user \u{1b}[2J\u{202e}x");
        let shown = "there is no user \\u{1b}[2J\\u{202e}x: line 1\n\tline 2: Zoë";
        assert_eq!(causes(&error), shown);
    }

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let inner = std::io::Error::other("no field nope");
        let error = anyhow::Error::from(inner)
            .context("schema error: no field nope")
            .context("run query");
        assert_eq!(causes(&error), "run query: schema error: no field nope");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(count(1u64, "backup"), "1 backup");
        assert_eq!(count(0usize, "problem"), "0 problems");
        assert_eq!(count(2i64, "file"), "2 files");
    }

    #[test]
    fn what_changes_is_shown_without_decimals() {
        assert_eq!(whole_byte_count(1023), "1023 B");
        assert_eq!(whole_byte_count(1_572_864), "1 MiB");
        assert_eq!(HumanCount(whole(24_000.7)).to_string(), "24,001");
    }

    #[test]
    fn volumes_and_rates_read_well() {
        assert_eq!(byte_count(0), "0 B");
        assert_eq!(byte_count(1023), "1023 B");
        assert_eq!(byte_count(1536), "1.5 KiB");
        assert_eq!(byte_count(u64::MAX), "16.0 EiB");
        assert_eq!(bits_per_second(999), "999 bit/s");
        assert_eq!(bits_per_second(55_000_000), "55.0 Mbit/s");
    }
}
