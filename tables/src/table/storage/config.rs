//! Where the tables' files lie: `[storage]` in the configuration file.

use std::path::{Path, PathBuf};

use schemas::secret::Secret;
use serde::{Deserialize, Serialize};
use url::Url;

/// Requests may take at least and at most so long.
const REQUEST_TIMEOUT_SECONDS: std::ops::RangeInclusive<u64> = 1..=600;

/// Settings of the storage. Without a URL the files lie in the data directory.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StorageConfig {
    /// `file:///folder` or `s3://bucket/prefix`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of an S3 service that is not Amazon's, for example `https://s3.example.net`. `http://` is taken as it is said.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "without_password")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The bucket is part of the path (`https://endpoint/bucket/…`) and not of the host name.
    pub path_style: bool,
    /// Both keys, or neither: then the environment (`AWS_ACCESS_KEY_ID` and its like) or the machine's role is asked.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "hidden")]
    pub access_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
    /// A request that takes longer has failed; storing is then tried again.
    pub request_timeout_seconds: u64,
}

impl Default for StorageConfig {
    fn default() -> StorageConfig {
        StorageConfig {
            url: None,
            endpoint: None,
            region: None,
            path_style: true,
            access_key_id: None,
            secret_access_key: None,
            request_timeout_seconds: 60,
        }
    }
}

/// The id of a key names the account that pays: it is not shown.
fn hidden<S: serde::Serializer>(key: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    key.as_ref().map(|_| "(hidden)").serialize(serializer)
}

fn without_password<S: serde::Serializer>(endpoint: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    endpoint
        .as_deref()
        .map(schemas::db::without_password)
        .serialize(serializer)
}

impl std::fmt::Debug for StorageConfig {
    /// Without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageConfig")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint.as_deref().map(schemas::db::without_password))
            .finish_non_exhaustive()
    }
}

/// Why a storage cannot be used, and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("url {url:?} is not understood: use file:///folder or s3://bucket/prefix")]
    Url { url: String },
    #[error("{field} is for s3:// alone: remove it, or set url")]
    NotS3 { field: &'static str },
    #[error("access_key_id and secret_access_key go together: set both or neither")]
    HalfKey,
    #[error("request_timeout_seconds = {value} is out of range: use 1 to 600")]
    Timeout { value: u64 },
    #[error("storage {url} cannot be set up")]
    Setup { url: String, source: object_store::Error },
    #[error("the threads that talk to the storage cannot be started")]
    Threads { source: std::io::Error },
}

/// What a storage URL says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Folder(PathBuf),
    S3 { bucket: String, prefix: String },
}

impl StorageConfig {
    /// Checks every field, without touching disk or network.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<(), StorageError> {
        self.place(Path::new(".")).map(|_| ())
    }

    /// Where the files lie; `default` without a URL.
    pub(super) fn place(&self, default: &Path) -> Result<Place, StorageError> {
        let value = self.request_timeout_seconds;
        if !REQUEST_TIMEOUT_SECONDS.contains(&value) {
            return Err(StorageError::Timeout { value });
        }
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            return Err(StorageError::HalfKey);
        }
        let place = match &self.url {
            None => Place::Folder(default.to_owned()),
            Some(url) => parse(url).ok_or_else(|| StorageError::Url { url: url.clone() })?,
        };
        if matches!(place, Place::Folder(_)) {
            let s3_only = [
                ("endpoint", self.endpoint.is_some()),
                ("region", self.region.is_some()),
                ("access_key_id", self.access_key_id.is_some()),
            ];
            if let Some((field, _)) = s3_only.into_iter().find(|(_, is_set)| *is_set) {
                return Err(StorageError::NotS3 { field });
            }
        }
        Ok(place)
    }
}

fn parse(text: &str) -> Option<Place> {
    let url = Url::parse(text).ok()?;
    let is_plain = url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    match url.scheme() {
        "file" if is_plain => Some(Place::Folder(url.to_file_path().ok()?)),
        "s3" if is_plain => Some(Place::S3 {
            bucket: url.host_str().filter(|host| !host.is_empty())?.to_owned(),
            prefix: url.path().trim_matches('/').to_owned(),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where() {
        let place = |url: &str| {
            let config = StorageConfig {
                url: Some(url.to_owned()),
                ..StorageConfig::default()
            };
            config.place(Path::new("/data/tables"))
        };
        assert_eq!(
            place("file:///var/lib/flows").unwrap(),
            Place::Folder("/var/lib/flows".into())
        );
        let s3 = |prefix: &str| Place::S3 {
            bucket: "flows".to_owned(),
            prefix: prefix.to_owned(),
        };
        assert_eq!(place("s3://flows/site/nyc1/").unwrap(), s3("site/nyc1"));
        assert_eq!(place("s3://flows").unwrap(), s3(""));
        for wrong in [
            "flows",
            "/var/lib/flows",
            "s3:///x",
            "gs://flows",
            "file://host/x",
            "s3://flows?x=1",
        ] {
            assert!(matches!(place(wrong), Err(StorageError::Url { .. })), "{wrong}");
        }
        let default = StorageConfig::default().place(Path::new("/data/tables")).unwrap();
        assert_eq!(default, Place::Folder("/data/tables".into()));
    }

    #[test]
    fn half_a_key_and_keys_without_s3_are_refused() {
        let config: StorageConfig = serde_json::from_str(r#"{"access_key_id":"a"}"#).unwrap();
        assert!(matches!(config.validate(), Err(StorageError::HalfKey)));
        let config: StorageConfig = serde_json::from_str(r#"{"region":"a"}"#).unwrap();
        assert!(matches!(
            config.validate(),
            Err(StorageError::NotS3 { field: "region" })
        ));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let config: StorageConfig =
            serde_json::from_str(r#"{"url":"s3://b","access_key_id":"AKIA","secret_access_key":"hush"}"#).unwrap();
        config.validate().unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        let shown = serde_json::to_string(&config).unwrap();
        assert!(!shown.contains("hush") && !shown.contains("AKIA"), "{shown}");
    }
}
