//! An expression that finds interfaces by what they are called.

use serde::{Deserialize, Serialize};

use super::ExporterConfig;
use crate::interfaces::KnownInterface;

/// Longer expressions are a mistake.
const PATTERN_BYTES_MAX: usize = 1_000;
/// Memory that a compiled expression may take.
const PATTERN_COMPILED_BYTES_MAX: usize = 1 << 20;

/// A regular expression (without regard to case) on names and descriptions of interfaces.
#[derive(Clone, Debug)]
pub struct InterfacePattern(regex::Regex);

impl InterfacePattern {
    /// Whether it finds the interface by its name, its description (`ifAlias`) or its long name (`ifDescr`).
    pub fn matches(&self, interface: &KnownInterface) -> bool {
        let texts = [&interface.name, &interface.description, &interface.long_name];
        texts.into_iter().any(|text| !text.is_empty() && self.0.is_match(text))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for InterfacePattern {
    fn eq(&self, other: &InterfacePattern) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for InterfacePattern {}

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error)]
pub enum InterfacePatternError {
    #[error("external_interfaces_matching is empty and would find every interface: leave it out")]
    Empty,
    #[error("external_interfaces_matching has {bytes} bytes: use at most {PATTERN_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("external_interfaces_matching = {text:?} is no regular expression: {source}")]
    Unreadable { text: String, source: Box<regex::Error> },
}

impl std::str::FromStr for InterfacePattern {
    type Err = InterfacePatternError;

    fn from_str(text: &str) -> Result<InterfacePattern, InterfacePatternError> {
        if text.is_empty() {
            return Err(InterfacePatternError::Empty);
        }
        if text.len() > PATTERN_BYTES_MAX {
            return Err(InterfacePatternError::TooLong { bytes: text.len() });
        }
        let compiled = regex::RegexBuilder::new(text)
            .case_insensitive(true)
            .size_limit(PATTERN_COMPILED_BYTES_MAX)
            .build();
        compiled
            .map(InterfacePattern)
            .map_err(|source| InterfacePatternError::Unreadable {
                text: text.to_owned(),
                source: Box::new(source),
            })
    }
}

impl Serialize for InterfacePattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for InterfacePattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<InterfacePattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl ExporterConfig {
    /// Whether interfaces are judged by what they are called.
    pub fn judges_by_name(&self) -> bool {
        self.external_interfaces_matching.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_expression_is_named() {
        let error = |text: &str| text.parse::<InterfacePattern>().unwrap_err().to_string();
        assert!(error("(transit").contains("\"(transit\" is no regular expression"));
        assert!(error("").contains("every interface"));
        assert!(error(&"x".repeat(1_001)).contains("1001 bytes"));
        assert!(error("(x{1000}){1000}").contains("size limit"));
    }
}
