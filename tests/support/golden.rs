//! The golden captures, which lie beside this repository; a test that reads one begins with `needs!(beside::GOLDEN)`.

use std::path::PathBuf;

use super::beside::GOLDEN;

/// The path of a golden file, which must be there.
pub(crate) fn golden(relative: &str) -> PathBuf {
    let path = GOLDEN.folder().join(relative);
    assert!(path.is_file(), "{} is missing from the golden captures", path.display());
    path
}
