//! What `/readyz` found last, and who looks: the requests of a portal share it ([`crate::health`] does the looking).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tokio::sync::Mutex;

/// One thing that was looked at.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
    /// What is wrong, or what there is to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
}

impl Check {
    pub(crate) fn good(name: &'static str) -> Check {
        Check::noted(name, String::new())
    }

    pub(crate) fn noted(name: &'static str, detail: String) -> Check {
        Check { name, ok: true, detail }
    }

    pub(crate) fn bad(name: &'static str, detail: impl Into<String>) -> Check {
        Check {
            name,
            ok: false,
            detail: detail.into(),
        }
    }
}

/// What `/readyz` answers.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Report {
    pub(crate) ready: bool,
    /// `name: detail` of each check that failed.
    pub(crate) problems: Vec<String>,
    pub(crate) checks: Vec<Check>,
}

impl Report {
    pub(crate) fn of(checks: Vec<Check>) -> Report {
        let failed = checks.iter().filter(|check| !check.ok);
        let problems: Vec<String> = failed
            .map(|check| format!("{}: {}", check.name, check.detail))
            .collect();
        Report {
            ready: problems.is_empty(),
            problems,
            checks,
        }
    }
}

/// What was last found, and who tries.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    pub(crate) last: Mutex<Option<(Instant, Report)>>,
    /// A file is being written into the data folder.
    pub(crate) is_writing: Arc<AtomicBool>,
}
