//! Secrets at rest: what must be read back (and so cannot be hashed) is stored sealed, under a key that is in a file and
//! never in the database.
//!
//! ```text
//! stored      sealed:1:<key id, 16 hex digits>:<base64 of nonce (12 bytes), ciphertext, tag (16 bytes)>
//! key file    # a comment; `# format: 1` says which format it is
//!             <key id> <base64 of 32 bytes>        a line for each key; the last one seals, all of them open
//! database    secret_keys: the ids of the keys in use, one of them current
//! ```
//!
//! * ChaCha20-Poly1305 (RFC 8439) with random nonces. Table, column and row are authenticated with each value: one that is
//!   copied into another row, or changed, does not open.
//! * A key's id is a part of its SHA-256: a line of the key file that was damaged is told, and a key that is not the one
//!   that sealed is never tried.
//! * A value that is not sealed does not open: who can write to the database cannot plant a secret that they know.
//! * The key that seals is the one that the database calls current, read in the transaction that stores the value: other
//!   processes follow a rotation at once, and read the key file again when they meet a key that they do not know.

mod columns;
mod key_file;
mod recorded;
mod text;
mod vault;

use std::path::PathBuf;

use crate::file_format::NewerFormat;

pub use columns::{COLUMNS, Column, ColumnStatus, TWO_FACTOR, WEBHOOK, WEBHOOK_PREVIOUS, column_status};
pub use key_file::KeyFile;
pub(crate) use key_file::{Key, Keyring};
pub use recorded::recorded_keys;
pub(crate) use recorded::{forget, forget_others, make_current};
pub use text::Secret;
pub use vault::Vault;
pub(crate) use vault::{is_sealed, prefix_of};

/// Why a secret was not sealed or opened, or the key file not used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("ask the database")]
    Database(#[from] sqlx::Error),
    #[error("this database was opened without a key file")]
    NoKeyFile,
    #[error("key file {}", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error(
        "key file {} is damaged in line {line}: put it back from its copy",
        .path.display()
    )]
    Damaged { path: PathBuf, line: usize },
    #[error(
        "key file {} holds no key: put it back from its copy",
        .path.display()
    )]
    Empty { path: PathBuf },
    #[error(
        "key file {} can be read by others (mode {mode:04o}): run `chmod go-rwx {}`",
        .path.display(),
        .path.display()
    )]
    Readable { path: PathBuf, mode: u32 },
    #[error(
        "key file {} is missing, and the database's secrets are sealed under its key {key}: put it back from its copy, or \
         name it in [secrets] key_file; if it is lost, `ezscale secrets discard` says what that costs",
        .path.display()
    )]
    Missing { path: PathBuf, key: String },
    #[error(
        "key file {} does not hold the key {key}, under which the database's secrets are sealed: use the key file that \
         belongs to this database",
        .path.display()
    )]
    UnknownKey { path: PathBuf, key: String },
    #[error("{column} of row {row} does not open: it was changed, or copied from elsewhere")]
    NotOpened { column: Column, row: i64 },
    #[error("{column} of row {row} is not sealed")]
    NotSealed { column: Column, row: i64 },
    #[error("the operating system gives no random numbers")]
    Random,
    #[error("another process rotates the keys of {}", .path.display())]
    Busy { path: PathBuf },
    #[error(transparent)]
    Newer(#[from] NewerFormat),
}

crate::error_codes! {
    SecretError: "secret";
    of [Newer]
    source []
    Fault:
        Database = "database", NoKeyFile = "no_key_file", File = "file", Damaged = "damaged", Empty = "empty",
        Readable = "readable", Missing = "missing", UnknownKey = "unknown_key", NotOpened = "not_opened",
        NotSealed = "not_sealed", Random = "random", Busy = "busy";
}
