//! Codes of authenticator apps: TOTP (RFC 6238) as all of them make it, with HMAC-SHA-1, six digits and steps of 30 seconds.
//!
//! SHA-1 is not weak here: what HMAC needs of it still holds, and many apps ignore a request for another hash.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;

use super::csrf::same;

use crate::links;

/// How long a code is shown.
const STEP_MS: i64 = 30_000;
/// Steps before and after the present one whose codes are taken too: clocks differ, and typing takes time.
const WINDOW_STEPS: i64 = 1;
/// Digits of a code.
const DIGITS: usize = 6;
/// As long as the hash (RFC 4226 §4, R6).
const SECRET_BYTES: usize = 20;

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// RFC 4648 §6, without padding.
pub(super) fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut count) = (0u32, 0);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        count += 8;
        while count >= 5 {
            count -= 5;
            text.push(char::from(BASE32[(bits >> count) as usize & 31]));
        }
        // Only what is not written yet is kept.
        bits &= (1 << count) - 1;
    }
    if count > 0 {
        text.push(char::from(BASE32[(bits << (5 - count)) as usize & 31]));
    }
    text
}

fn from_base32(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 5 / 8);
    let (mut bits, mut count) = (0u32, 0);
    for symbol in text.bytes() {
        let value = BASE32.iter().position(|known| *known == symbol)?;
        bits = (bits << 5) | u32::try_from(value).ok()?;
        count += 5;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count).ok()?);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

/// What an app and we share.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// From the operating system's generator.
    pub(super) fn random() -> Secret {
        Secret(rand::random::<[u8; SECRET_BYTES]>().to_vec())
    }

    /// As stored; `None` where that is no base32.
    pub(super) fn stored(text: &str) -> Option<Secret> {
        from_base32(text).filter(|bytes| !bytes.is_empty()).map(Secret)
    }

    /// As stored, and as typed into an app.
    pub(crate) fn text(&self) -> String {
        base32(&self.0)
    }

    /// RFC 4226 §5.3, the counter being the step.
    fn code(&self, step: i64) -> String {
        // A key of any length is taken (RFC 2104 §2).
        let mut mac = Hmac::<Sha1>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(&step.to_be_bytes());
        let hash = mac.finalize().into_bytes();
        let offset = usize::from(hash[hash.len() - 1] & 15);
        let bits = hash[offset..offset + 4]
            .iter()
            .fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte));
        let number = (bits & 0x7fff_ffff) % 10u32.pow(DIGITS as u32);
        format!("{number:0DIGITS$}")
    }

    /// The step that a code belongs to, if that is the present one or beside it. Takes as long whichever it is.
    pub(super) fn step_of(&self, code: &str, now_ms: i64) -> Option<i64> {
        let now = now_ms.div_euclid(STEP_MS);
        let mut found = None;
        for step in now - WINDOW_STEPS..=now + WINDOW_STEPS {
            if same(&self.code(step), code) {
                found = Some(step);
            }
        }
        found
    }

    /// The code that an app shows.
    #[cfg(test)]
    pub(crate) fn code_at(&self, now_ms: i64) -> String {
        self.code(now_ms.div_euclid(STEP_MS))
    }

    /// What an app reads from the QR code (`otpauth` URI, as Google Authenticator defined it).
    pub(crate) fn uri(&self, issuer: &str, account: &str) -> String {
        let (issuer, account) = (
            links::percent_encoded_part(issuer),
            links::percent_encoded_part(account),
        );
        format!(
            "otpauth://totp/{issuer}:{account}?secret={}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={}",
            self.text(),
            STEP_MS / 1000
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, SHA-1: the last six of eight digits.
    #[test]
    fn codes_are_those_of_the_rfc() {
        let secret = Secret(b"12345678901234567890".to_vec());
        for (at_s, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret.code_at(at_s * 1000), code, "{at_s}");
        }
    }

    #[test]
    fn a_code_is_taken_one_step_early_and_late() {
        let secret = Secret(b"12345678901234567890".to_vec());
        let code = secret.code_at(1_234_567_890_000);
        let step = 1_234_567_890 / 30;
        for (off, expected) in [
            (-2, None),
            (-1, Some(step)),
            (0, Some(step)),
            (1, Some(step)),
            (2, None),
        ] {
            assert_eq!(
                secret.step_of(&code, 1_234_567_890_000 + off * STEP_MS),
                expected,
                "{off}"
            );
        }
        for wrong in ["", "00592", "0059244", "005925", "００5924"] {
            assert_eq!(secret.step_of(wrong, 1_234_567_890_000), None, "{wrong}");
        }
    }

    /// RFC 4648 §10.
    #[test]
    fn base32_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(base32(bytes.as_bytes()), text);
            assert_eq!(from_base32(text).unwrap(), bytes.as_bytes());
        }
        assert_eq!(Secret::stored("MZX1"), None);
        assert_eq!(Secret::stored(""), None);
        let secret = Secret::random();
        assert_eq!(secret.text().len(), 32);
        assert_eq!(Secret::stored(&secret.text()).unwrap(), secret);
        assert_ne!(Secret::random(), secret);
    }

    #[test]
    fn the_uri_is_encoded_and_the_secret_is_not_shown_by_chance() {
        let secret = Secret(b"12345678901234567890".to_vec());
        assert_eq!(
            secret.uri("EZSCALE portal.example", "a+b@example.net"),
            "otpauth://totp/EZSCALE%20portal.example:a%2Bb%40example.net?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ\
             &issuer=EZSCALE%20portal.example&algorithm=SHA1&digits=6&period=30"
        );
        assert_eq!(format!("{secret:?}"), "Secret(…)");
    }
}
