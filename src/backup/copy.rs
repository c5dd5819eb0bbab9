//! Copying with a checksum, and reading back.

use std::io::{Read, Write as _};
use std::sync::Mutex;
use std::sync::PoisonError;

use anyhow::{Context as _, bail};
use ring::digest::{Context, SHA256};
use tables::table::Storage;

use super::manifest::{Part, hex};

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 20;
/// Files that are copied at the same time: a bucket answers late, and not slower for that.
const COPY_THREADS: usize = 4;

/// Sums what passes.
pub(super) struct Summing {
    context: Context,
    size_bytes: u64,
}

impl Summing {
    pub(super) fn new() -> Summing {
        Summing {
            context: Context::new(&SHA256),
            size_bytes: 0,
        }
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    pub(super) fn finish(self) -> Part {
        Part {
            size_bytes: self.size_bytes,
            sha256: hex(self.context.finish().as_ref()),
        }
    }
}

/// The sum of all that a reader gives.
pub(super) fn sum(mut reader: impl Read) -> std::io::Result<Part> {
    let (mut summing, mut buffer) = (Summing::new(), vec![0; CHUNK_BYTES]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(summing.finish()),
            read => summing.add(&buffer[..read]),
        }
    }
}

/// The sum of a stored file, read in parts.
pub(super) fn sum_stored(place: &Storage, name: &str, size_bytes: u64) -> std::io::Result<Part> {
    let mut summing = Summing::new();
    while summing.size_bytes < size_bytes {
        let wanted = CHUNK_BYTES * 8;
        let bytes = place.read_at(name, summing.size_bytes, wanted)?;
        if bytes.is_empty() {
            break;
        }
        summing.add(&bytes);
    }
    Ok(summing.finish())
}

/// Writes what a reader gives under a name, and answers its sum.
pub(super) fn store(mut reader: impl Read, place: &Storage, name: &str) -> anyhow::Result<Part> {
    let location = || place.location(name).display().to_string();
    let mut writer = place.create(name).with_context(|| format!("write {}", location()))?;
    let (mut summing, mut buffer) = (Summing::new(), vec![0; CHUNK_BYTES]);
    loop {
        let read = reader.read(&mut buffer).context("read what is to be copied")?;
        if read == 0 {
            break;
        }
        summing.add(&buffer[..read]);
        writer
            .write_all(&buffer[..read])
            .with_context(|| format!("write {}", location()))?;
    }
    writer.finish().with_context(|| format!("write {}", location()))?;
    Ok(summing.finish())
}

/// Reads a stored file and compares it with what it must be.
pub(super) fn check(place: &Storage, name: &str, part: &Part) -> anyhow::Result<()> {
    let location = place.location(name);
    let found =
        sum_stored(place, name, part.size_bytes.max(1)).with_context(|| format!("read {}", location.display()))?;
    if found != *part {
        bail!(
            "{} is damaged: {} bytes with the checksum {}, not {} with {}",
            location.display(),
            found.size_bytes,
            found.sha256,
            part.size_bytes,
            part.sha256
        );
    }
    Ok(())
}

/// Copies a stored file to another place and takes it only if it is what it must be: otherwise nothing is there.
pub(super) fn fetch(from: &Storage, name: &str, part: &Part, to: &Storage, target: &str) -> anyhow::Result<()> {
    let location = from.location(name);
    let write = || format!("write {}", to.location(target).display());
    let mut writer = to.create(target).with_context(write)?;
    let mut summing = Summing::new();
    while summing.size_bytes < part.size_bytes {
        let bytes = from
            .read_at(name, summing.size_bytes, CHUNK_BYTES * 8)
            .with_context(|| format!("read {}", location.display()))?;
        if bytes.is_empty() {
            break;
        }
        summing.add(&bytes);
        writer.write_all(&bytes).with_context(write)?;
    }
    if summing.finish() != *part {
        bail!(
            "{} is damaged: it has another checksum than the backup's manifest says",
            location.display()
        );
    }
    writer.finish().with_context(write)?;
    Ok(())
}

/// Does the same to many things on some threads; ends at the first failure.
pub(super) fn each<T: Send>(things: Vec<T>, work: impl Fn(T) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    let queue = Mutex::new(things.into_iter());
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let next = || {
        let is_over = failed.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        match is_over {
            true => None,
            false => queue.lock().unwrap_or_else(PoisonError::into_inner).next(),
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..COPY_THREADS {
            scope.spawn(|| {
                while let Some(thing) = next() {
                    if let Err(error) = work(thing) {
                        failed
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .get_or_insert(error);
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
