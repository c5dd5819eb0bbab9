//! Sealing and opening.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use sqlx::{AnyConnection, Row as _};

use super::SecretError;
use super::columns::Column;
use super::key_file::{ID_CHARS, Key, KeyFile, Keyring};
use super::recorded::make_current;
use crate::secret::Secret;

/// How every sealed value begins.
const PREFIX: &str = "sealed:1:";

/// What seals and opens a database's secrets. Clones share the keys.
#[derive(Clone, Debug, Default)]
pub struct Vault(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// None: nothing can be sealed or opened.
    file: Option<KeyFile>,
    ring: RwLock<Keyring>,
}

impl Vault {
    /// With the keys of a file.
    pub(crate) fn new(file: KeyFile, ring: Keyring) -> Vault {
        Vault(Arc::new(Inner {
            file: Some(file),
            ring: RwLock::new(ring),
        }))
    }

    /// With a key that is nowhere else: what it seals is lost with it. For tests.
    ///
    /// # Errors
    /// When the operating system gives no random numbers.
    pub fn random() -> Result<Vault, SecretError> {
        Ok(Vault::new(KeyFile::new(""), Keyring(vec![Key::random()?])))
    }

    fn file(&self) -> Result<&KeyFile, SecretError> {
        self.0.file.as_ref().ok_or(SecretError::NoKeyFile)
    }

    /// The id of the newest key.
    pub(crate) fn newest(&self) -> Result<String, SecretError> {
        let ring = self.0.ring.read().unwrap_or_else(PoisonError::into_inner);
        ring.0.last().map(|key| key.id.clone()).ok_or(SecretError::NoKeyFile)
    }

    /// The key of this id. One that is not known may have come by a rotation: then the file is read again.
    fn key(&self, id: &str) -> Result<Key, SecretError> {
        let known = || {
            let ring = self.0.ring.read().unwrap_or_else(PoisonError::into_inner);
            ring.find(id).cloned()
        };
        if let Some(key) = known() {
            return Ok(key);
        }
        let file = self.file()?;
        if let Some(ring) = file.read()? {
            *self.0.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        }
        known().ok_or_else(|| SecretError::UnknownKey {
            path: file.path().to_owned(),
            key: id.to_owned(),
        })
    }

    /// Seals a value for a row, under the key that is current in the database, in the transaction that stores it.
    ///
    /// # Errors
    /// When the key file does not hold the current key.
    pub async fn seal(
        &self,
        connection: &mut AnyConnection,
        column: Column,
        row: i64,
        plain: &str,
    ) -> Result<String, SecretError> {
        // An update and not a question: a rotation waits for this transaction, or this one for the rotation.
        let current = sqlx::query("UPDATE secret_keys SET is_current = 1 WHERE is_current = 1 RETURNING key_id")
            .fetch_optional(&mut *connection)
            .await?;
        let id: String = match current {
            Some(current) => current.try_get(0)?,
            None => {
                let newest = self.newest()?;
                make_current(connection, &newest).await?;
                newest
            }
        };
        self.seal_under(&id, column, row, plain)
    }

    /// Seals a value under a key.
    pub(crate) fn seal_under(&self, id: &str, column: Column, row: i64, plain: &str) -> Result<String, SecretError> {
        let key = self.key(id)?;
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_| SecretError::Random)?;
        let mut sealed = plain.as_bytes().to_vec();
        let tag = cipher(&key)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place(column, row)),
                &mut sealed,
            )
            .map_err(|_| SecretError::Random)?;
        let bytes = [nonce.as_slice(), &sealed, tag.as_ref()].concat();
        Ok(format!("{PREFIX}{id}:{}", BASE64.encode(bytes)))
    }

    /// Opens what was sealed for a row.
    ///
    /// # Errors
    /// When it was not sealed, was changed, or is another row's; when the key file does not hold its key.
    pub fn open(&self, column: Column, row: i64, stored: &str) -> Result<Secret, SecretError> {
        let Some((id, text)) = stored.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')) else {
            return Err(SecretError::NotSealed { column, row });
        };
        let not_opened = || SecretError::NotOpened { column, row };
        if id.len() != ID_CHARS || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(not_opened());
        }
        let key = self.key(id)?;
        let bytes = BASE64.decode(text).map_err(|_| not_opened())?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN).ok_or_else(not_opened)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| not_opened())?;
        let mut sealed = sealed.to_vec();
        let plain = cipher(&key)?
            .open_in_place(nonce, Aad::from(place(column, row)), &mut sealed)
            .map_err(|_| not_opened())?;
        let plain = std::str::from_utf8(plain).map_err(|_| not_opened())?;
        Ok(Secret::new(plain))
    }
}

/// Whether a stored value is sealed.
pub(crate) fn is_sealed(stored: &str) -> bool {
    stored.starts_with(PREFIX)
}

/// How values that a key sealed begin.
pub(crate) fn prefix_of(key: &str) -> String {
    format!("{PREFIX}{key}:")
}

fn cipher(key: &Key) -> Result<LessSafeKey, SecretError> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key.bytes).map_err(|_| SecretError::Random)?;
    Ok(LessSafeKey::new(key))
}

/// What is authenticated with a value: where it belongs.
fn place(column: Column, row: i64) -> String {
    format!("{}\0{}\0{row}", column.table, column.column)
}
