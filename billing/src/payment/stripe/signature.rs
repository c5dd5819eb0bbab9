//! `Stripe-Signature: t=1700000000,v1=…,v1=…`: HMAC-SHA256 of `t.body` with the endpoint's secret, as hex. There are several
//! `v1` while a secret is rolled over; other schemes (`v0`) are not looked at.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::payment::WebhookError;

/// A signature counts for so long, in both directions.
pub const TOLERANCE_S: i64 = 300;
const HEADER: &str = "Stripe-Signature";
/// Signatures in a header at most.
const MAX_SIGNATURES: usize = 16;

fn mac(secret: &str, at_s: i64, body: &[u8]) -> Result<Hmac<Sha256>, WebhookError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| WebhookError::Signature)?;
    mac.update(format!("{at_s}.").as_bytes());
    mac.update(body);
    Ok(mac)
}

/// A header as Stripe would write it: for tests of who receives.
pub fn sign(secret: &str, at_s: i64, body: &[u8]) -> String {
    let signature = match mac(secret, at_s, body) {
        Ok(mac) => hex(&mac.finalize().into_bytes()),
        Err(_) => String::new(),
    };
    format!("t={at_s},v1={signature}")
}

pub(super) fn verify(header: &str, body: &[u8], secret: &str, now_ms: i64) -> Result<(), WebhookError> {
    if secret.is_empty() {
        return Err(WebhookError::Signature);
    }
    let mut at_s = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", value)) => at_s = value.parse::<i64>().ok(),
            Some(("v1", value)) if signatures.len() < MAX_SIGNATURES => signatures.push(unhex(value)),
            _ => {}
        }
    }
    let at_s = at_s.ok_or(WebhookError::Header(HEADER))?;
    let mac = mac(secret, at_s, body)?;
    // All of them are compared, each in constant time.
    let mut fits = false;
    for signature in signatures.into_iter().flatten() {
        fits |= mac.clone().verify_slice(&signature).is_ok();
    }
    if !fits {
        return Err(WebhookError::Signature);
    }
    let age_s = now_ms.div_euclid(1000).saturating_sub(at_s);
    if !(-TOLERANCE_S..=TOLERANCE_S).contains(&age_s) {
        return Err(WebhookError::TooOld {
            age_s,
            tolerance_s: TOLERANCE_S,
        });
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1"}"#;
    const AT_S: i64 = 1_700_000_000;

    #[test]
    fn signatures() {
        let good = sign("whsec_a", AT_S, BODY);
        // HMAC-SHA256 of "1700000000.{"id":"evt_1"}" with whsec_a, by another program.
        assert_eq!(good, format!("t={AT_S},v1={KNOWN}"));
        let other = sign("whsec_b", AT_S, BODY).replace(&format!("t={AT_S},"), "");
        let ours = good.replace(&format!("t={AT_S},"), "");
        let now_ms = AT_S * 1000;
        for (header, now_ms, expected) in [
            (good.clone(), now_ms, "ok"),
            (format!("t={AT_S},{other},{ours}"), now_ms, "ok"),
            (format!("t={AT_S},{ours},{other}"), now_ms, "ok"),
            (format!("t={AT_S}, {ours} ,v0=00"), now_ms, "ok"),
            (format!("{ours},t={AT_S}"), now_ms, "ok"),
            (good.clone(), now_ms + TOLERANCE_S * 1000, "ok"),
            (good.clone(), now_ms - TOLERANCE_S * 1000, "ok"),
            (good.clone(), now_ms + (TOLERANCE_S + 1) * 1000, "signed 301 s ago"),
            (good.clone(), now_ms - (TOLERANCE_S + 1) * 1000, "signed -301 s ago"),
            (format!("t={AT_S},{other}"), now_ms, "no signature fits"),
            (format!("t={},{ours}", AT_S + 1), now_ms, "no signature fits"),
            (
                format!("t={AT_S},{}", ours.replace("v1", "v0")),
                now_ms,
                "no signature fits",
            ),
            (format!("t={AT_S},v1={}", &KNOWN[..62]), now_ms, "no signature fits"),
            (format!("t={AT_S},v1=ü"), now_ms, "no signature fits"),
            (format!("t={AT_S}"), now_ms, "no signature fits"),
            (ours.clone(), now_ms, "not understood"),
            (format!("t=x,{ours}"), now_ms, "not understood"),
            (String::new(), now_ms, "not understood"),
        ] {
            let said = match verify(&header, BODY, "whsec_a", now_ms) {
                Ok(()) => "ok".to_owned(),
                Err(error) => error.to_string(),
            };
            assert!(said.contains(expected), "{header}: {said}");
        }
        let error = verify(&good, br#"{"id":"evt_2"}"#, "whsec_a", now_ms).unwrap_err();
        assert!(matches!(error, WebhookError::Signature));
        assert!(verify(&sign("", AT_S, BODY), BODY, "", now_ms).is_err());
    }

    const KNOWN: &str = "97ea69f91fd566038386bacf87292eb0d73a8207414ee62ed313d49996fe0639";
}
