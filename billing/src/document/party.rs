//! Who sells and who buys, as printed.

use schemas::inventory::{Customer, EntityProfile};

/// A seller or a buyer. What is not known is empty. Stored with an invoice as it was when it was issued.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Party {
    pub name: String,
    pub street: String,
    pub postal_code: String,
    pub city: String,
    pub region: String,
    /// ISO 3166-1, two letters.
    pub country: String,
    /// With its country's prefix.
    pub vat_id: String,
    /// Number in a register of companies.
    pub registration: String,
    pub email: String,
}

impl From<&EntityProfile> for Party {
    fn from(profile: &EntityProfile) -> Party {
        Party {
            name: profile.name.clone(),
            street: profile.street.clone(),
            postal_code: profile.postal_code.clone(),
            city: profile.city.clone(),
            region: profile.region.clone(),
            country: profile.country.clone(),
            vat_id: profile.vat_id.clone(),
            registration: profile.registration.clone(),
            email: profile.email.clone(),
        }
    }
}

impl From<&Customer> for Party {
    fn from(customer: &Customer) -> Party {
        Party {
            name: customer.name.clone(),
            street: customer.billing.street.clone(),
            postal_code: customer.billing.postal_code.clone(),
            city: customer.billing.city.clone(),
            region: customer.billing.region.clone(),
            country: customer.country.clone(),
            vat_id: customer.billing.vat_id.clone(),
            registration: String::new(),
            email: customer.email.clone(),
        }
    }
}

impl Party {
    /// Name and address as they stand on an envelope, line by line; `with_country` for post that crosses a border.
    pub fn address_lines(&self, with_country: bool) -> Vec<String> {
        let mut lines = vec![self.name.clone(), self.street.clone()];
        // Where a region is part of the address it stands behind the city, before the code: Montréal QC H2Y 1C6.
        if self.region.is_empty() {
            lines.push(joined(&[&self.postal_code, &self.city]));
        } else {
            lines.push(joined(&[&self.city, &self.region, &self.postal_code]));
        }
        if with_country {
            lines.push(country_name(&self.country).to_owned());
        }
        lines.retain(|line| !line.is_empty());
        lines
    }
}

fn joined(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

/// Post goes by the country's name in capital letters (Universal Postal Union); the code where the name is not listed here.
fn country_name(code: &str) -> &str {
    const NAMES: [(&str, &str); 48] = [
        ("AE", "UNITED ARAB EMIRATES"),
        ("AR", "ARGENTINA"),
        ("AT", "AUSTRIA"),
        ("AU", "AUSTRALIA"),
        ("BE", "BELGIUM"),
        ("BG", "BULGARIA"),
        ("BR", "BRAZIL"),
        ("CA", "CANADA"),
        ("CH", "SWITZERLAND"),
        ("CN", "CHINA"),
        ("CY", "CYPRUS"),
        ("CZ", "CZECHIA"),
        ("DE", "GERMANY"),
        ("DK", "DENMARK"),
        ("EE", "ESTONIA"),
        ("ES", "SPAIN"),
        ("FI", "FINLAND"),
        ("FR", "FRANCE"),
        ("GB", "UNITED KINGDOM"),
        ("GR", "GREECE"),
        ("HK", "HONG KONG"),
        ("HR", "CROATIA"),
        ("HU", "HUNGARY"),
        ("IE", "IRELAND"),
        ("IL", "ISRAEL"),
        ("IN", "INDIA"),
        ("IT", "ITALY"),
        ("JP", "JAPAN"),
        ("KR", "KOREA (REP.)"),
        ("KW", "KUWAIT"),
        ("LT", "LITHUANIA"),
        ("LU", "LUXEMBOURG"),
        ("LV", "LATVIA"),
        ("MC", "MONACO"),
        ("MT", "MALTA"),
        ("MX", "MEXICO"),
        ("NL", "NETHERLANDS"),
        ("NO", "NORWAY"),
        ("NZ", "NEW ZEALAND"),
        ("PL", "POLAND"),
        ("PT", "PORTUGAL"),
        ("RO", "ROMANIA"),
        ("SE", "SWEDEN"),
        ("SG", "SINGAPORE"),
        ("SI", "SLOVENIA"),
        ("SK", "SLOVAKIA"),
        ("UA", "UKRAINE"),
        ("US", "UNITED STATES OF AMERICA"),
    ];
    let found = NAMES.iter().find(|(listed, _)| *listed == code);
    found.map_or(code, |(_, name)| name)
}
