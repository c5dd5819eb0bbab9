//! Where the golden captures are. They are no part of this repository.

use std::path::{Path, PathBuf};

/// The path of a golden file, which must be there.
pub(crate) fn golden(relative: &str) -> PathBuf {
    let dir = match std::env::var_os("EZSCALE_GOLDEN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"),
    };
    assert!(
        dir.is_dir(),
        "no golden captures at {}: set EZSCALE_GOLDEN_DIR to the folder that has them",
        dir.display()
    );
    let path = dir.join(relative);
    assert!(path.is_file(), "{} is missing from the golden captures", path.display());
    path
}
