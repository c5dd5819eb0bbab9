//! VAT numbers: what they look like, and whose they are.
//!
//! A number of a member state of the European Union is checked by its form and its check digits. Whether it was given out, and to whom,
//! only the tax office knows; billing can ask it (VIES). Numbers of other places are checked where their form is known to us;
//! of the rest only the shape is.

/// The member states of the European Union (ISO 3166-1). Territories with codes of their own that are not in the VAT area
/// (French overseas departments, the Åland Islands) are left out by that.
pub const MEMBER_STATES: [&str; 27] = [
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV",
    "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
];

/// Outside the Union: prefixes whose form and check digits are known. Northern Ireland's numbers are those of the United Kingdom.
const KNOWN_ELSEWHERE: [(&str, &str); 5] = [("GB", "GB"), ("XI", "GB"), ("CH", "CH"), ("NO", "NO"), ("RS", "RS")];

/// The text is not a VAT number.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VatNumberError {
    #[error("a VAT number is a country's two letters and 2 to 14 letters and digits, such as DE136695976, not {0:?}")]
    Shape(String),
    #[error("Greek VAT numbers begin with EL, not GR: {0:?}")]
    Greek(String),
    #[error(
        "{number:?} is not a VAT number of {state}: check it for a typing error (its form or its check digit is wrong)"
    )]
    Check { number: String, state: String },
}

crate::error_codes! {
    VatNumberError: "vat_number";
    of []
    source []
    Refused: Shape = "shape", Greek = "greek", Check = "check";
}

/// A VAT number without spaces, dots and hyphens, in capital letters; empty where there is none.
///
/// # Errors
/// When its form or its check digits are wrong.
pub fn checked(text: &str) -> Result<String, VatNumberError> {
    let number: String = text
        .chars()
        .filter(|c| !c.is_whitespace() && !".-/".contains(*c))
        .map(|c| c.to_ascii_uppercase())
        .collect();
    if number.is_empty() {
        return Ok(number);
    }
    let is_sound = number.len() >= 4
        && number.len() <= 16
        && number.bytes().take(2).all(|byte| byte.is_ascii_uppercase())
        && number
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+*".contains(&byte));
    if !is_sound {
        return Err(VatNumberError::Shape(text.to_owned()));
    }
    let (prefix, rest) = number.split_at(2);
    if prefix == "GR" {
        return Err(VatNumberError::Greek(text.to_owned()));
    }
    let refuse = |state: &str| VatNumberError::Check {
        number: text.trim().to_owned(),
        state: state.to_owned(),
    };
    if let Some(state) = state_of(&number) {
        return if vat_id_validator::check_vat_by_country(&number, prefix).is_valid {
            Ok(number)
        } else {
            Err(refuse(state))
        };
    }
    let known = KNOWN_ELSEWHERE.iter().find(|(known, _)| *known == prefix);
    if let Some((_, as_if)) = known
        && !vat_id_validator::check_vat_by_country(&format!("{as_if}{rest}"), as_if).is_valid
    {
        return Err(refuse(prefix));
    }
    Ok(number)
}

/// The member state that gives out numbers like this one.
pub fn state_of(number: &str) -> Option<&'static str> {
    match number.get(..2)? {
        // Greek numbers begin with the language's code.
        "EL" => Some("GR"),
        prefix => MEMBER_STATES
            .into_iter()
            .find(|&state| state == prefix && prefix != "GR"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_member_state_are_taken_as_they_are_printed() {
        // Published by their holders: imprints, registers.
        for number in [
            "ATU13585627",
            "BE0428759497",
            "BG175074752",
            "CY10259033P",
            "CZ25123891",
            "DE136695976",
            "DK13585628",
            "EE100931558",
            "EL094259216",
            "ESB58378431",
            "FI20774740",
            "FR40303265045",
            "HR33392005961",
            "HU12892312",
            "IE6433435F",
            "IT00743110157",
            "LT119511515",
            "LU15027442",
            "LV40003521600",
            "MT11679112",
            "NL004495445B01",
            "PL8567346215",
            "PT501964843",
            "RO18547290",
            "SE123456789701",
            "SI50223054",
            "SK2022749619",
        ] {
            assert_eq!(checked(number).unwrap(), number);
            assert!(state_of(number).is_some(), "{number}");
            // Another last digit is another number, and mostly none.
            let digit = number.rfind(|c: char| c.is_ascii_digit()).unwrap();
            let wrong = (b'0'..=b'9').filter(|other| *other != number.as_bytes()[digit]);
            let refused = wrong.filter(|other| {
                let mut bytes = number.as_bytes().to_vec();
                bytes[digit] = *other;
                checked(std::str::from_utf8(&bytes).unwrap()).is_err()
            });
            assert!(refused.count() >= 7 || number.starts_with("NL"), "{number}");
        }
        assert_eq!(checked("  de 136.695-976 ").unwrap(), "DE136695976");
        assert_eq!(checked(" ").unwrap(), "");
    }

    #[test]
    fn what_is_no_number_is_refused_with_what_is_wrong() {
        for (text, said) in [
            ("FRnonsense", "not a VAT number of FR"),
            ("DE123456789", "not a VAT number of DE"),
            ("DE13669597", "not a VAT number of DE"),
            ("ATU13585628", "not a VAT number of AT"),
            ("GR094259216", "begin with EL"),
            ("GB123456789", "not a VAT number of GB"),
            ("XI123456789", "not a VAT number of XI"),
            ("12", "two letters"),
            ("136695976", "two letters"),
            ("DE1", "two letters"),
            ("DE1366959761234567", "two letters"),
            ("DEäöü", "two letters"),
        ] {
            let error = checked(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn other_places_numbers_are_kept_by_their_shape() {
        for number in [
            "US123456789",
            "AU51824753556",
            "GB980780684",
            "NO923609016MVA",
            "CHE116281710MWST",
        ] {
            let taken = checked(number);
            assert!(taken.is_ok(), "{number}: {taken:?}");
            assert_eq!(state_of(number), None);
        }
    }
}
