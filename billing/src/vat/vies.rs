//! VIES, the VAT Information Exchange System of the European Commission, by its REST interface.
//!
//! ```text
//! POST {base}/check-vat-number   {"countryCode": "FR", "vatNumber": "40303265045",
//!                                 "requesterMemberStateCode": "DE", "requesterNumber": "136695976"}
//!   → 200 {"valid": true, "requestIdentifier": "WAPIAAAA…", "name": "…", "address": "…"}
//!   → {"actionSucceed": false, "errorWrappers": [{"error": "MS_UNAVAILABLE"}]}
//! ```
//!
//! With the seller's own number it answers with a consultation number, which proves that it was asked. A member state whose register
//! is away is common, and is no answer. `---` stands for a name or an address that a state does not give out.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{RegisterError, VatQuery, VatRegister, VatResponse};

/// Where the Commission answers.
pub const BASE_URL: &str = "https://ec.europa.eu/taxation_customs/vies/rest-api";
/// How long an answer may take, where nothing else is configured.
pub const TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// VIES.
#[derive(Clone, Debug)]
pub struct Vies {
    client: reqwest::Client,
    base_url: String,
}

impl Vies {
    /// # Errors
    /// When the HTTP client cannot be made.
    pub fn new(base_url: &str, timeout: Duration) -> Result<Vies, RegisterError> {
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Vies {
            client,
            base_url: base_url.trim_end_matches('/').to_owned(),
        })
    }
}

#[async_trait]
impl VatRegister for Vies {
    async fn ask(&self, question: &VatQuery) -> Result<VatResponse, RegisterError> {
        let (state, number) = parts(&question.number);
        let mut asked = json!({ "countryCode": state, "vatNumber": number });
        if !question.requester.is_empty() {
            let (state, number) = parts(&question.requester);
            asked["requesterMemberStateCode"] = json!(state);
            asked["requesterNumber"] = json!(number);
        }
        let mut answer = self
            .client
            .post(format!("{}/check-vat-number", self.base_url))
            .header("Content-Type", "application/json")
            .header("Accept", "application/json")
            .body(asked.to_string())
            .send()
            .await?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER_BYTES {
                return Err(RegisterError::Unavailable(format!(
                    "more than {MAX_ANSWER_BYTES} bytes"
                )));
            }
        }
        let said: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        match said["errorWrappers"][0]["error"].as_str() {
            // The number's form, which we know to be right: their register has no such number.
            Some("INVALID_INPUT") => return Ok(VatResponse::default()),
            Some(error) => return Err(RegisterError::Unavailable(error.to_owned())),
            None => {}
        }
        let Some(valid) = said["valid"].as_bool().filter(|_| status.is_success()) else {
            return Err(RegisterError::Unavailable(format!("status {}", status.as_u16())));
        };
        // Some answers carry what went wrong in a field of their own: that is not "invalid".
        match said["userError"].as_str() {
            None | Some("" | "VALID" | "INVALID") => {}
            Some(error) => return Err(RegisterError::Unavailable(error.to_owned())),
        }
        let text = |name: &str| match said[name].as_str() {
            None | Some("---") => String::new(),
            Some(text) => text.to_owned(),
        };
        Ok(VatResponse {
            valid,
            consultation: text("requestIdentifier"),
            name: text("name"),
            address: text("address"),
        })
    }
}

/// The prefix, and the number after it.
fn parts(number: &str) -> (&str, &str) {
    number.split_at_checked(2).unwrap_or((number, ""))
}

#[cfg(test)]
pub(crate) mod tests;
