//! The decoders' state between two segments, kept so that a restart decodes as the running process would have.
//!
//! It is JSON, compressed by Zstandard: of ten thousand exporters it is long, and written with every segment.

use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use schemas::fault;
use schemas::file_format::{FoundFormat, refuse_newer};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::CollectorError;
use crate::decode::dispatch::DecoderCheckpoint;
use crate::status::ExporterStatus;

/// The newest version: it rises when earlier programs would misunderstand what is written. Older ones are read.
const VERSION: u32 = 1;
/// What it is called.
const KIND: &str = "checkpoint";
/// The fastest: what repeats, repeats nearby.
const ZSTD_LEVEL: i32 = 1;
/// First bytes of a Zstandard frame (RFC 8878 §3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Handed to and taken from Zstandard at once.
const BUFFER_BYTES: usize = 1 << 17;

/// `D` is what the decoders are to be restored from, or, where it is only written, whatever is written as that.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Checkpoint<D = DecoderCheckpoint> {
    version: u32,
    /// The first segment whose datagrams this state has not seen.
    pub(super) next_segment: u64,
    pub(super) decoders: D,
    pub(super) exporters: Vec<ExporterStatus>,
    pub(super) totals: BTreeMap<String, u64>,
}

fn path_in(journal_dir: &Path) -> PathBuf {
    journal_dir.join("CHECKPOINT")
}

impl Checkpoint {
    /// The checkpoint of a journal; `None` on the first run. One that cannot be understood (a damaged disk) is put aside with
    /// an error in the log: exporters repeat their templates, so collecting goes on. One that a newer program wrote is refused.
    pub(super) fn load(journal_dir: &Path) -> Result<Option<Checkpoint>, CollectorError> {
        let path = path_in(journal_dir);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CollectorError::Checkpoint { path, source }),
        };
        let error = match read::<Checkpoint>(&text) {
            Ok(checkpoint) if checkpoint.version <= VERSION => return Ok(Some(checkpoint)),
            Ok(checkpoint) => format!("version {}", checkpoint.version),
            Err(error) => error.to_string(),
        };
        // Read a second time, for the version alone: what is newer need not look like what this program knows.
        if let Ok(CheckpointVersion { version }) = read(&text) {
            refuse_newer(KIND, &path, version, VERSION)?;
        }
        let aside = path.with_extension("unreadable");
        tracing::error!(path = %path.display(), moved_to = %aside.display(), error, "checkpoint not understood, templates are learned again");
        std::fs::rename(&path, &aside).map_err(|source| CollectorError::Checkpoint { path, source })?;
        Ok(None)
    }
}

impl<D: Serialize> Checkpoint<D> {
    pub(super) fn new(
        next_segment: u64,
        decoders: D,
        exporters: Vec<ExporterStatus>,
        totals: BTreeMap<String, u64>,
    ) -> Checkpoint<D> {
        Checkpoint {
            version: VERSION,
            next_segment,
            decoders,
            exporters,
            totals,
        }
    }

    pub(super) fn save(&self, journal_dir: &Path) -> Result<(), CollectorError> {
        let path = path_in(journal_dir);
        fault::at("checkpoint.due");
        self.compressed()
            .and_then(|compressed| crate::durable::write(&path, &compressed))
            .map_err(|source| CollectorError::Checkpoint { path, source })
    }

    fn compressed(&self) -> std::io::Result<Vec<u8>> {
        let encoder = zstd::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
        let mut writer = BufWriter::with_capacity(BUFFER_BYTES, encoder);
        serde_json::to_writer(&mut writer, self)?;
        writer.into_inner()?.finish()
    }
}

/// What a checkpoint of any version says.
#[derive(Deserialize)]
struct CheckpointVersion {
    version: u32,
}

/// The format of the checkpoint in a data directory's journal; `None` where there is none that can be read. Nothing is
/// changed.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn found_format(data_dir: &Path) -> std::io::Result<Option<FoundFormat>> {
    let path = path_in(&data_dir.join("journal"));
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let said = read::<CheckpointVersion>(&text).ok();
    Ok(said.map(|said| FoundFormat {
        kind: KIND,
        path,
        found: said.version,
        known: VERSION,
    }))
}

/// What was written compressed, or plain by earlier versions.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> std::io::Result<T> {
    if bytes.starts_with(&ZSTD_MAGIC) {
        return Ok(serde_json::from_reader(BufReader::with_capacity(
            BUFFER_BYTES,
            zstd::Decoder::new(bytes)?,
        ))?);
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let decoders: DecoderCheckpoint = DecoderCheckpoint::default();
        let saved = Checkpoint::new(7, decoders, vec![ExporterStatus::default()], BTreeMap::new());
        saved.save(folder.path()).unwrap();
        let path = path_in(folder.path());
        assert!(std::fs::read(&path).unwrap().starts_with(&ZSTD_MAGIC));
        let plain = serde_json::to_vec(&saved).unwrap();
        for written in [None, Some(&plain)] {
            if let Some(written) = written {
                std::fs::write(&path, written).unwrap();
            }
            let loaded = Checkpoint::load(folder.path()).unwrap().unwrap();
            assert_eq!(serde_json::to_vec(&loaded).unwrap(), plain);
        }
    }

    #[test]
    fn a_torn_checkpoint_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let decoders: DecoderCheckpoint = DecoderCheckpoint::default();
        let saved = Checkpoint::new(7, decoders, Vec::new(), BTreeMap::new());
        let whole = saved.compressed().unwrap();
        let path = path_in(folder.path());
        for length in [0, 3, 4, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(Checkpoint::load(folder.path()).unwrap().is_none(), "{length} bytes");
            assert!(path.with_extension("unreadable").exists());
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_newer_checkpoint_is_refused_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal");
        std::fs::create_dir(&journal).unwrap();
        assert_eq!(found_format(folder.path()).unwrap(), None);
        let path = path_in(&journal);
        let newer = format!(
            r#"{{"version":{},"next_segment":{{"number":7}},"sessions":[]}}"#,
            VERSION + 1
        );
        for written in [
            newer.clone().into_bytes(),
            zstd::encode_all(newer.as_bytes(), ZSTD_LEVEL).unwrap(),
        ] {
            std::fs::write(&path, &written).unwrap();
            let refused = Checkpoint::load(&journal).unwrap_err().to_string();
            let words = format!("CHECKPOINT is a checkpoint of format {}", VERSION + 1);
            assert!(
                refused.contains(&words) && refused.contains("restore a backup"),
                "{refused}"
            );
            assert_eq!(std::fs::read(&path).unwrap(), written);
            let found = found_format(folder.path()).unwrap().unwrap();
            assert_eq!((found.found, found.known), (VERSION + 1, VERSION));
        }
    }
}
