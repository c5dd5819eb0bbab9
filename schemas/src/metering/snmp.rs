//! How an exporter's interfaces are asked for their names, speeds and counters: `snmp = { … }` in its section.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Passphrases of SNMPv3 have at least so many characters (RFC 3414 §11.2).
const PASSWORD_CHARS_MIN: usize = 8;
const INTERVAL_SECONDS: std::ops::RangeInclusive<u64> = 10..=900;
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=30_000;

/// How messages of SNMPv3 are authenticated (RFC 3414, RFC 7860).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnmpAuth {
    Md5,
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
}

/// How messages of SNMPv3 are encrypted (RFC 3414, RFC 3826).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnmpPrivacy {
    Des,
    Aes128,
    Aes192,
    Aes256,
}

/// `snmp = { community = "…" }` is version 2c, `snmp = { user = "…", … }` version 3.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnmpConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub community: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<SnmpAuth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_password: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<SnmpPrivacy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy_password: Option<Secret>,
    /// Where it answers; the exporter's own address where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    #[serde(default = "port_default")]
    pub port: u16,
    /// How often counters are read.
    #[serde(default = "interval_default")]
    pub interval_seconds: u64,
    /// How long one answer is waited for.
    #[serde(default = "timeout_default")]
    pub timeout_ms: u64,
    /// Its counters are kept and flows are compared with them; without it only names and speeds are read.
    #[serde(default = "counters_default")]
    pub counters: bool,
}

fn port_default() -> u16 {
    161
}

fn interval_default() -> u64 {
    60
}

fn timeout_default() -> u64 {
    2_000
}

fn counters_default() -> bool {
    true
}

/// What is wrong with `snmp = { … }`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SnmpConfigError {
    #[error("snmp names neither a community (version 2c) nor a user (version 3): write snmp = {{ community = \"…\" }}")]
    Nobody,
    #[error("snmp names a community (version 2c) and a user (version 3): keep one")]
    Both,
    #[error("snmp.{setting} has no effect with a community: it belongs to user (version 3)")]
    OnlyVersion3 { setting: &'static str },
    #[error("snmp.{setting} needs {needs} beside it")]
    Alone { setting: &'static str, needs: &'static str },
    #[error("snmp.{setting} is shorter than {PASSWORD_CHARS_MIN} characters, which SNMP version 3 refuses")]
    ShortPassword { setting: &'static str },
    #[error("snmp.{setting} = {value} is out of range: use {min} to {max}")]
    OutOfRange {
        setting: &'static str,
        value: u64,
        min: u64,
        max: u64,
    },
}

impl SnmpConfig {
    /// Version 2c with the usual settings.
    pub fn v2c(community: impl Into<String>) -> SnmpConfig {
        SnmpConfig {
            community: Some(Secret::new(community)),
            user: None,
            auth: None,
            auth_password: None,
            privacy: None,
            privacy_password: None,
            address: None,
            port: port_default(),
            interval_seconds: interval_default(),
            timeout_ms: timeout_default(),
            counters: counters_default(),
        }
    }

    /// Checks what no type can rule out.
    ///
    /// # Errors
    /// The first setting that is wrong, and what to write.
    pub fn validate(&self) -> Result<(), SnmpConfigError> {
        match (&self.community, &self.user) {
            (None, None) => return Err(SnmpConfigError::Nobody),
            (Some(_), Some(_)) => return Err(SnmpConfigError::Both),
            (Some(_), None) => self.only_a_community()?,
            (None, Some(_)) => self.passwords_fit()?,
        }
        in_range("port", u64::from(self.port), 1..=65_535)?;
        in_range("interval_seconds", self.interval_seconds, INTERVAL_SECONDS)?;
        in_range("timeout_ms", self.timeout_ms, TIMEOUT_MS)
    }

    fn only_a_community(&self) -> Result<(), SnmpConfigError> {
        let of_version_3 = [
            ("auth", self.auth.is_some()),
            ("auth_password", self.auth_password.is_some()),
            ("privacy", self.privacy.is_some()),
            ("privacy_password", self.privacy_password.is_some()),
        ];
        match of_version_3.into_iter().find(|(_, is_set)| *is_set) {
            Some((setting, _)) => Err(SnmpConfigError::OnlyVersion3 { setting }),
            None => Ok(()),
        }
    }

    fn passwords_fit(&self) -> Result<(), SnmpConfigError> {
        for (setting, is_set, needs, is_there) in [
            (
                "auth",
                self.auth.is_some(),
                "auth_password",
                self.auth_password.is_some(),
            ),
            (
                "auth_password",
                self.auth_password.is_some(),
                "auth",
                self.auth.is_some(),
            ),
            (
                "privacy",
                self.privacy.is_some(),
                "privacy_password",
                self.privacy_password.is_some(),
            ),
            (
                "privacy_password",
                self.privacy_password.is_some(),
                "privacy",
                self.privacy.is_some(),
            ),
            ("privacy", self.privacy.is_some(), "auth", self.auth.is_some()),
        ] {
            if is_set && !is_there {
                return Err(SnmpConfigError::Alone { setting, needs });
            }
        }
        for (setting, password) in [
            ("auth_password", &self.auth_password),
            ("privacy_password", &self.privacy_password),
        ] {
            let is_short = |secret: &Secret| secret.reveal().chars().count() < PASSWORD_CHARS_MIN;
            if password.as_ref().is_some_and(is_short) {
                return Err(SnmpConfigError::ShortPassword { setting });
            }
        }
        Ok(())
    }
}

fn in_range(setting: &'static str, value: u64, range: std::ops::RangeInclusive<u64>) -> Result<(), SnmpConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = (*range.start(), *range.end());
    Err(SnmpConfigError::OutOfRange {
        setting,
        value,
        min,
        max,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> SnmpConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn both_versions_are_understood_and_secrets_are_not_shown() {
        let v2c = read(r#"{"community": "s3cret"}"#);
        v2c.validate().unwrap();
        assert_eq!(v2c, SnmpConfig::v2c("s3cret"));
        let v3 = read(
            r#"{"user": "ez", "auth": "sha256", "auth_password": "s3cret-a1", "privacy": "aes128",
                "privacy_password": "s3cret-p1", "interval_seconds": 30}"#,
        );
        v3.validate().unwrap();
        assert_eq!(v3.auth_password.as_ref().unwrap().reveal(), "s3cret-a1");
        for config in [&v2c, &v3] {
            let shown = format!("{config:?}{}", serde_json::to_string(config).unwrap());
            assert!(!shown.contains("s3cret") && shown.contains("(hidden)"), "{shown}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (json, expected) in [
            ("{}", "neither a community"),
            (r#"{"community": "a", "user": "b"}"#, "keep one"),
            (r#"{"community": "a", "auth": "md5"}"#, "snmp.auth has no effect"),
            (r#"{"user": "a", "auth": "sha1"}"#, "needs auth_password"),
            (
                r#"{"user": "a", "privacy": "des", "privacy_password": "12345678"}"#,
                "needs auth",
            ),
            (
                r#"{"user": "a", "auth": "sha1", "auth_password": "short"}"#,
                "shorter than 8",
            ),
            (r#"{"community": "a", "interval_seconds": 1}"#, "use 10 to 900"),
            (r#"{"community": "a", "timeout_ms": 1}"#, "use 100 to 30000"),
            (r#"{"community": "a", "port": 0}"#, "use 1 to 65535"),
        ] {
            let error = read(json).validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{json} gave {error:?}");
        }
    }
}
