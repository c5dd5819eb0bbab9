//! The decoders' state between two segments, kept so that a restart decodes as the running process would have.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use schemas::fault;
use serde::{Deserialize, Serialize};

use super::CollectorError;
use crate::decode::dispatch::DecoderCheckpoint;
use crate::status::ExporterStatus;

/// Changes when an older checkpoint cannot be understood any more.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    version: u32,
    /// The first segment whose datagrams this state has not seen.
    pub(super) next_segment: u64,
    pub(super) decoders: DecoderCheckpoint,
    pub(super) exporters: Vec<ExporterStatus>,
    pub(super) totals: BTreeMap<String, u64>,
}

impl Checkpoint {
    pub(super) fn new(
        next_segment: u64,
        decoders: DecoderCheckpoint,
        exporters: Vec<ExporterStatus>,
        totals: BTreeMap<String, u64>,
    ) -> Checkpoint {
        Checkpoint {
            version: VERSION,
            next_segment,
            decoders,
            exporters,
            totals,
        }
    }

    fn path(journal_dir: &Path) -> PathBuf {
        journal_dir.join("CHECKPOINT")
    }

    /// The checkpoint of a journal; `None` on the first run. One that cannot be understood (another version, a damaged
    /// disk) is put aside with an error in the log: exporters repeat their templates, so collecting goes on.
    pub(super) fn load(journal_dir: &Path) -> Result<Option<Checkpoint>, CollectorError> {
        let path = Checkpoint::path(journal_dir);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CollectorError::Checkpoint { path, source }),
        };
        let error = match serde_json::from_slice::<Checkpoint>(&text) {
            Ok(checkpoint) if checkpoint.version == VERSION => return Ok(Some(checkpoint)),
            Ok(checkpoint) => format!("version {} instead of {VERSION}", checkpoint.version),
            Err(error) => error.to_string(),
        };
        let aside = path.with_extension("unreadable");
        tracing::error!(path = %path.display(), moved_to = %aside.display(), error, "checkpoint not understood, templates are learned anew");
        std::fs::rename(&path, &aside).map_err(|source| CollectorError::Checkpoint { path, source })?;
        Ok(None)
    }

    pub(super) fn save(&self, journal_dir: &Path) -> Result<(), CollectorError> {
        let path = Checkpoint::path(journal_dir);
        fault::at("checkpoint.due");
        let json = serde_json::to_vec(self).map_err(std::io::Error::from);
        json.and_then(|json| crate::durable::write(&path, &json))
            .map_err(|source| CollectorError::Checkpoint { path, source })
    }
}
