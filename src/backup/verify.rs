//! Whether backups are whole, and removing old ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use tables::table::{ManifestError, Storage, snapshot_of_text};

use super::manifest::{Backup, Part, list, manifest_name, read};
use super::write::lock;
use super::{TABLE_ORDER, copy};
use crate::output::Progress;

/// Of a bucket, files that no backup names are left alone for so long: somebody may be writing one.
const BUCKET_GRACE_MS: i64 = 24 * 3_600_000;

/// What was looked at.
pub(crate) struct Verified {
    pub(crate) backups: usize,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    /// What is wrong, a sentence each.
    pub(crate) problems: Vec<String>,
}

/// Reads every byte of one backup, or of all. Blocks meanwhile.
pub(crate) fn verify(place: &Storage, name: Option<&str>) -> anyhow::Result<Verified> {
    let names = match name {
        Some(name) => vec![name.to_owned()],
        None => list(place)?,
    };
    let mut problems = Vec::new();
    let mut files: BTreeMap<String, Part> = BTreeMap::new();
    for name in &names {
        let backup = match read(place, Some(name)) {
            Ok(backup) => backup,
            Err(error) => {
                problems.push(format!("backup {name}: {error:#}"));
                continue;
            }
        };
        for (part, sum) in &backup.parts {
            files.insert(backup.part_name(part.as_str()), sum.clone());
        }
        for (_, _, file) in backup.table_files() {
            files.insert(file.part.file_name(), file.part.clone());
        }
        problems.extend(disagreements(place, &backup));
    }
    let (count, bytes) = (files.len(), files.values().map(|part| part.size_bytes).sum());
    let progress = Progress::bytes("reading backups", bytes);
    let (found, done) = (Mutex::new(problems), Mutex::new(0));
    copy::each(files.into_iter().collect(), |(file, part)| {
        if let Err(error) = copy::check(place, &file, &part) {
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.push(format!("{error:#}"));
        }
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += part.size_bytes;
        progress.set(*done);
        Ok(())
    })?;
    progress.clear();
    Ok(Verified {
        backups: names.len(),
        files: count,
        bytes,
        problems: found.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
}

/// Where the manifests of a backup's tables name other files than it holds.
pub(super) fn disagreements(place: &Storage, backup: &Backup) -> Vec<String> {
    let mut problems = Vec::new();
    for def in TABLE_ORDER {
        let part = format!("tables/{}", def.name);
        let held: BTreeMap<&str, u64> = backup
            .table_files()
            .filter(|(table, _, _)| *table == def.name)
            .map(|(_, path, file)| (path, file.part.size_bytes))
            .collect();
        if held.is_empty() && !backup.parts.contains_key(part.as_str()) {
            continue;
        }
        let name = backup.part_name(&part);
        let location = place.location(&name);
        let snapshot = match place.get(&name).map(|text| snapshot_of_text(&location, &text)) {
            Ok(Ok(snapshot)) => snapshot,
            Ok(Err(error @ ManifestError::Newer(_))) => {
                problems.push(error.to_string());
                continue;
            }
            Ok(Err(_)) | Err(_) => {
                problems.push(format!("{} is damaged or missing", location.display()));
                continue;
            }
        };
        let named: BTreeMap<&str, u64> = snapshot
            .files
            .iter()
            .map(|(path, entry)| (path.as_str(), entry.size_bytes))
            .collect();
        if named != held {
            problems.push(format!(
                "backup {}: table {} names {} files and {} are there",
                backup.name,
                def.name,
                named.len(),
                held.len()
            ));
        }
    }
    problems
}

/// Removes all but the newest `keep` backups, and the files of tables that none of those names; answers how many of each.
pub(crate) fn prune(place: &Storage, keep: usize, now_ms: i64) -> anyhow::Result<(usize, usize)> {
    let _lock = lock(place)?;
    let mut names = list(place)?;
    let kept = names.split_off(names.len().saturating_sub(keep));
    // Before anything is removed: one that cannot be read would lose its files.
    let mut used = BTreeSet::new();
    for name in &kept {
        let backup =
            read(place, Some(name)).with_context(|| format!("backup {name} cannot be read: nothing was removed"))?;
        used.extend(backup.table_files().map(|(_, _, file)| file.part.file_name()));
    }
    for name in &names {
        // First what makes it a backup.
        place.remove(&manifest_name(name))?;
        for part in place.list(&Backup::folder(name))?.keys() {
            place.remove(part)?;
        }
        if let Some(folder) = place.folder() {
            // Only emptiness is left, and only for who looks.
            let _ = std::fs::remove_dir_all(folder.join(Backup::folder(name)));
        }
    }
    let grace_ms = if place.folder().is_some() { 0 } else { BUCKET_GRACE_MS };
    let mut removed = 0;
    if !place.list("files")?.is_empty() {
        for file in place.list_before("files", now_ms - grace_ms)? {
            if !used.contains(&file) {
                place.remove(&file)?;
                removed += 1;
            }
        }
    }
    Ok((names.len(), removed))
}
