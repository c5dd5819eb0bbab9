//! What lies beside the project and not in it: captures of other people's routers, and of what an earlier version read wrong.
//!
//! A stranger has none of it. A test that needs some begins with `needs!(beside::GOLDEN)`: where the captures are missing it
//! ends there, says so on standard error whatever the test runner captures, and adds its name to the file that
//! `EZSCALE_LEFT_OUT` names, which `tests/run` prints at its end. With `CI=true` missing captures fail the test.

use std::io::Write as _;
use std::path::{Path, PathBuf};

/// A folder of captures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    what: &'static str,
    /// The environment variable that names the folder.
    variable: &'static str,
    /// Where it is without that, under the folder that holds the repository.
    usual: &'static str,
}

pub(crate) const GOLDEN: Beside = Beside {
    what: "golden captures",
    variable: "EZSCALE_GOLDEN_DIR",
    usual: "shared/golden",
};

pub(crate) const TELEMETRY_CASES: Beside = Beside {
    what: "captures of telemetry cases",
    variable: "EZSCALE_TELEMETRY_CASES",
    usual: "shared/cases/telemetry",
};

impl Beside {
    /// Where it should be.
    fn path(&self) -> PathBuf {
        if let Some(path) = std::env::var_os(self.variable) {
            return PathBuf::from(path);
        }
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.ancestors().find(|folder| folder.join("tests/run").is_file());
        root.unwrap_or(package).join("..").join(self.usual)
    }

    /// The folder, which must be there.
    pub(crate) fn folder(&self) -> PathBuf {
        let path = self.path();
        assert!(
            path.is_dir(),
            "no {} at {}: set {} to their folder",
            self.what,
            path.display(),
            self.variable
        );
        path
    }

    /// Whether a test is left out because the captures are not there; then it is named.
    pub(crate) fn leaves_out(&self, test: &str) -> bool {
        let path = self.path();
        if path.is_dir() {
            return false;
        }
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "no {} at {}, and CI must have them: set {} to their folder",
            self.what,
            path.display(),
            self.variable
        );
        // Not by `eprintln!`, which test runners swallow. Nobody reading is no reason to fail.
        let _ = writeln!(
            std::io::stderr(),
            "LEFT OUT {test}: no {} at {} (set {})",
            self.what,
            path.display(),
            self.variable
        );
        if let Some(list) = std::env::var_os("EZSCALE_LEFT_OUT") {
            let opened = std::fs::OpenOptions::new().create(true).append(true).open(&list);
            // One write, so that tests that run at once do not mix their lines.
            let written = opened.and_then(|mut file| file.write_all(format!("{test} ({})\n", self.what).as_bytes()));
            written.unwrap_or_else(|error| panic!("cannot add to {}: {error}", list.display()));
        }
        true
    }
}

/// Leaves the test out where the captures are missing; see above.
macro_rules! needs {
    ($beside:expr) => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here);
        if $beside.leaves_out(name.trim_end_matches("::here")) {
            return;
        }
    }};
}
pub(crate) use needs;
