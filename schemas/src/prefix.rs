//! Networks that people write, and what is said of those that cannot be.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize as _, Deserializer};

/// Why a text is no network.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PrefixError {
    #[error("write a prefix like 192.0.2.0/28 or 2001:db8:1::/64, one address as 192.0.2.1/32")]
    NoLength,
    #[error("the prefix length of an IPv4 address is 0 to 32")]
    V4Length,
    #[error("the prefix length of an IPv6 address is 0 to 128")]
    V6Length,
    #[error("{address:?} is no IP address: write a prefix like 192.0.2.0/28 or 2001:db8:1::/64")]
    Address { address: String },
}

/// Reads a network: an address, a slash and the length of its prefix.
///
/// # Errors
/// In words, when it is none.
pub fn parse(text: &str) -> Result<IpNet, PrefixError> {
    if let Ok(prefix) = text.parse() {
        return Ok(prefix);
    }
    let Some((address, _)) = text.split_once('/') else {
        return Err(PrefixError::NoLength);
    };
    Err(match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => PrefixError::V4Length,
        Ok(IpAddr::V6(_)) => PrefixError::V6Length,
        Err(_) => PrefixError::Address {
            address: address.to_owned(),
        },
    })
}

/// Networks of a configuration, for serde's `deserialize_with`.
///
/// # Errors
/// With the text that is none.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let read = |text: String| parse(&text).map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")));
    texts.into_iter().map(read).collect()
}

/// As [`list`], of a setting that may be absent.
///
/// # Errors
/// As [`list`].
pub fn optional_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    list(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_that_cannot_be_is_explained() {
        for text in ["192.0.2.0/28", "2001:db8:1::/64", "0.0.0.0/0", "::/128"] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for (text, words) in [
            ("192.0.2.0/33", "0 to 32"),
            ("192.0.2.0/x", "0 to 32"),
            ("2001:db8::/129", "0 to 128"),
            ("192.0.2/28", "no IP address"),
            ("192.0.2.1", "192.0.2.1/32"),
        ] {
            let refused = parse(text).unwrap_err().to_string();
            assert!(refused.contains(words), "{text}: {refused}");
        }
    }
}
