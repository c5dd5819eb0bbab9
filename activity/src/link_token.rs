//! Tokens of links that are mailed, to set a password or to confirm an address.

use rand::random;
use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// A new one: 256 random bits, as 64 hexadecimal digits.
pub(crate) fn new() -> String {
    hex(&random::<[u8; 32]>())
}

/// As it is stored. The token is random, so that a hash without salt gives nothing away.
pub(crate) fn hash(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}
