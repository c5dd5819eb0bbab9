//! What of a configuration is secret: how it is shown, and what is said of a line that cannot be read.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail};
use schemas::db::without_password;
use schemas::secret::KeyFile;
use serde::{Deserialize, Serialize, Serializer};

/// Words in the name of a setting whose line is not repeated in an error.
const SECRET_WORDS: [&str; 8] = [
    "secret",
    "password",
    "token",
    "community",
    "key",
    "url",
    "database",
    "endpoint",
];

/// The URL of a database. Shown without its password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct DatabaseUrl(String);

impl DatabaseUrl {
    /// For the one who connects.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<DatabaseUrl, Self::Err> {
        Ok(DatabaseUrl(text.to_owned()))
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&without_password(&self.0))
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&without_password(&self.0))
    }
}

/// `ezscale config show` does not show secrets.
pub(super) fn hidden<S: Serializer>(secret: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.is_empty() { "" } else { "(hidden)" })
}

/// An address, which may hold a password.
pub(super) fn url<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_password(url))
}

/// Where the key is that seals secrets in the database.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SecretsConfig {
    /// Made where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
}

/// The name of the key file where the configuration gives none.
const KEY_FILE: &str = "secrets.key";

impl SecretsConfig {
    /// The key file: the one that is named, else the one beside the configuration, else the data folder's.
    pub(crate) fn key_file(&self, config_path: Option<&Path>, data_dir: &Path) -> KeyFile {
        let beside = || {
            let path = config_path?.parent()?.join(KEY_FILE);
            path.exists().then_some(path)
        };
        let named = self.key_file.clone().or_else(beside);
        KeyFile::new(named.unwrap_or_else(|| data_dir.join(KEY_FILE)))
    }
}

/// What is wrong with a configuration, without a line that may hold a secret.
pub(super) fn parse_error(text: &str, error: toml::de::Error) -> anyhow::Error {
    let Some(span) = error.span() else {
        return anyhow!("{}", error.message());
    };
    let start = span.start.min(text.len());
    let before = text.get(..start).unwrap_or(text);
    let number = before.matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let lower = line.to_lowercase();
    if !SECRET_WORDS.iter().any(|word| lower.contains(word)) {
        return error.into();
    }
    let setting = line.split('=').next().unwrap_or_default().trim();
    let is_unknown = error.message().starts_with("unknown field");
    match is_unknown {
        // The names of settings, not their values.
        true => anyhow!("line {number}: {}", error.message()),
        false => anyhow!(
            "line {number}: {setting} is not understood: write a text in quotation marks (the line is not repeated here, \
             because it may hold a secret)"
        ),
    }
}

/// Refuses a file with secrets that every user of the machine can read: by its mode, in folders that they may enter.
pub(super) fn refuse_readable(path: &Path) -> anyhow::Result<()> {
    let mode = std::fs::metadata(path)?.mode() & 0o777;
    let full = path.canonicalize()?;
    let is_open = |folder: &Path| std::fs::metadata(folder).is_ok_and(|folder| folder.mode() & 0o001 != 0);
    if mode & 0o007 == 0 || !full.ancestors().skip(1).all(is_open) {
        return Ok(());
    }
    bail!(
        "configuration {} holds secrets and can be read by others (mode {mode:04o}): run `chmod o-rwx {}`",
        path.display(),
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const PLANTED: &str = "hush-4711";

    #[test]
    fn nothing_secret_is_shown() {
        let text = format!(
            "database = 'postgres://ez:{PLANTED}@db.example.net/ez?sslpassword={PLANTED}'\n\
             [storage]\nurl = 's3://b/p'\nendpoint = 'https://me:{PLANTED}@s3.example.net'\naccess_key_id = 'AKIA'\n\
             secret_access_key = '{PLANTED}'\n[backup]\nurl = 's3://b/backups'\naccess_key_id = 'AKIA'\nsecret_access_key = '{PLANTED}'\n\
             [mail]\nsmtp_url = 'smtp://me:{PLANTED}@mx.example.net:587'\n\
             [portal]\nmetrics_token = '{PLANTED}-0123456789abcdef'\n\
             [payments.stripe]\nsecret_key = 'sk_{PLANTED}'\nwebhook_secret = 'whsec_{PLANTED}'\n\
             base_url = 'https://x:{PLANTED}@stripe.example.net'\n\
             [payments.paypal]\nclient_id = 'id'\nclient_secret = '{PLANTED}'\n\
             [vies]\nbase_url = 'https://x:{PLANTED}@vies.example.net'\n\
             [[exporter]]\naddress = '192.0.2.1'\nsnmp = {{ community = '{PLANTED}' }}\n\
             [[exporter]]\naddress = '192.0.2.2'\nsnmp = {{ user = 'u', auth = 'sha256', auth_password = '{PLANTED}', \
             privacy = 'aes128', privacy_password = '{PLANTED}' }}\n"
        );
        let config = Config::parse(&text).unwrap();
        let shown = toml::to_string(&config).unwrap();
        assert!(!shown.contains(PLANTED) && !shown.contains("AKIA"), "{shown}");
        assert!(!format!("{config:?}").contains(PLANTED), "{config:?}");
        assert!(shown.contains("postgres://ez:(hidden)@db.example.net/ez"), "{shown}");
        assert_eq!(
            config.database_url(),
            format!("postgres://ez:{PLANTED}@db.example.net/ez?sslpassword={PLANTED}")
        );
    }

    #[test]
    fn a_mistake_in_a_secret_is_told_without_it() {
        for text in [
            format!("[payments.stripe]\nsecret_key = {PLANTED}\n"),
            format!("[payments.stripe]\nsecret_key = '{PLANTED}\n"),
            format!("database = 'postgres://ez:{PLANTED}@db\n"),
            "[mail]\nsmtp_url = 4711\n".to_owned(),
            format!("[[exporter]]\naddress = '192.0.2.1'\nsnmp = {{ community = \"{PLANTED} }}\n"),
            format!("[mail]\nsmtp_urls = 'smtp://me:{PLANTED}@mx'\n"),
        ] {
            let error = format!("{:#}", Config::parse(&text).unwrap_err());
            assert!(!error.contains("4711"), "{text:?} gave {error:?}");
            assert!(error.contains("line "), "{error}");
        }
    }

    #[test]
    fn a_readable_file_is_refused_where_others_reach_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ezscale.toml");
        std::fs::write(&path, "").unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        set(&path, 0o644);
        set(dir.path(), 0o700);
        refuse_readable(&path).unwrap();
        set(dir.path(), 0o755);
        let error = refuse_readable(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("chmod o-rwx {}", path.display())), "{error}");
        set(&path, 0o640);
        refuse_readable(&path).unwrap();
    }
}
