//! The data folder is its owner's alone: folders 0700, files 0600.
//!
//! * Whatever the program makes is so, because it runs with umask 0077.
//! * `FORMAT` in the folder says that this holds. A folder without it is of an earlier version, or was made by somebody else
//!   for this purpose: it is narrowed once, and the log says so.
//! * The number in it is the folder's format. A folder of a newer one is refused.
//! * From then on a wider folder or file is a mistake of somebody's, such as a copy that lost its modes: it is refused, with the
//!   command that mends it.
//! * Only its owner works in it. What root made in the folder of a service's account, that account could not read.

use std::fs::{DirBuilder, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Uid, User, geteuid};
use schemas::file_format::{FoundFormat, refuse_newer};

/// What group and others may do.
const OTHERS: u32 = 0o077;
/// Says that everything in the folder was private once, and which format the folder has.
const FORMAT: &str = "FORMAT";
/// The format of folders that this program makes, and the newest that it works in; 1 had no such file.
const FOLDER_FORMAT: u32 = 2;
/// How deep a folder is looked through at each start: `tables/<table>/MANIFEST`. What lies deeper cannot be reached.
const CHECK_DEPTH: usize = 3;

/// From here on, nothing that this process makes can be read by others.
pub(crate) fn restrict_new_files() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Makes the data folder where there is none, and sees that it is private.
///
/// Fails when it is not, and cannot be made so or must not, and when it is another user's.
pub(crate) fn secure(dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("make the data folder {}", dir.display()))?;
    refuse_owned_by_other(dir, geteuid())?;
    if let Some(format) = found_format(dir)? {
        refuse_newer(format.kind, &format.path, format.found, format.known)?;
        return check(dir);
    }
    let narrowed = narrow(dir)?;
    if narrowed > 0 {
        tracing::warn!(
            folder = %dir.display(),
            narrowed,
            "the data folder could be read by others: it is its owner's alone now (folders 0700, files 0600)"
        );
    }
    mark(dir)
}

/// The format that a data folder says it has; `None` where it says nothing.
///
/// Fails when that cannot be read.
pub(crate) fn found_format(dir: &Path) -> anyhow::Result<Option<FoundFormat>> {
    let path = dir.join(FORMAT);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    Ok(Some(FoundFormat {
        kind: "data folder",
        path,
        // Whatever a full disk left of it: it was written, and by a program that knew no more than this one.
        found: text.trim().parse().unwrap_or(FOLDER_FORMAT),
        known: FOLDER_FORMAT,
    }))
}

/// Says of a folder that it is private.
pub(crate) fn mark(dir: &Path) -> anyhow::Result<()> {
    let marker = dir.join(FORMAT);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&marker)?;
        file.write_all(format!("{FOLDER_FORMAT}\n").as_bytes())
    };
    write().with_context(|| format!("write {}", marker.display()))
}

/// A user as commands name them: by the number where there is no name.
fn account(uid: Uid) -> String {
    let user = User::from_uid(uid).ok().flatten();
    user.map_or_else(|| format!("#{uid}"), |user| user.name)
}

/// Refuses a folder that is not the user's who works in it.
fn refuse_owned_by_other(dir: &Path, user: Uid) -> anyhow::Result<()> {
    let metadata = std::fs::metadata(dir).with_context(|| format!("read {}", dir.display()))?;
    let owner = Uid::from_raw(metadata.uid());
    if owner == user {
        return Ok(());
    }
    let (folder, owner, user) = (dir.display(), account(owner), account(user));
    bail!(
        "the data folder {folder} is {owner}'s, who could not read what {user} writes there: run the command as {owner}, \
         `sudo -u {owner} ezscale …`, or make the folder {user}'s, `chown -R {user} {folder}`, if nobody else uses it"
    )
}

/// Gives what root made ready in `tree` to the owner of `folder`, which it will replace; answers to its new owner's name, or
/// `None` where the owner stays.
///
/// Fails when that cannot be changed.
pub(crate) fn give_to_owner_of(folder: &Path, tree: &Path) -> anyhow::Result<Option<String>> {
    let read = |path: &Path| std::fs::metadata(path).with_context(|| format!("read {}", path.display()));
    if !folder.exists() {
        return Ok(None);
    }
    let (of_folder, of_tree) = (read(folder)?, read(tree)?);
    let (uid, gid) = (of_folder.uid(), of_folder.gid());
    if of_tree.uid() != 0 || uid == 0 {
        return Ok(None);
    }
    let give = |path: &Path| {
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .with_context(|| format!("give {} to {uid}", path.display()))
    };
    walk(tree, usize::MAX, &mut |path, _| give(path))?;
    give(tree)?;
    Ok(Some(account(Uid::from_raw(uid))))
}

fn is_wide(metadata: &Metadata) -> bool {
    !metadata.is_symlink() && metadata.mode() & OTHERS != 0
}

/// Calls `each` for what is in a folder, down to `depth` levels; not through symbolic links.
fn walk(dir: &Path, depth: usize, each: &mut impl FnMut(&Path, &Metadata) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let read = || format!("read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(read)? {
        let path = entry.with_context(read)?.path();
        let metadata = match std::fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            // Another process removed it meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        each(&path, &metadata)?;
        if metadata.is_dir() && depth > 1 {
            walk(&path, depth - 1, each)?;
        }
    }
    Ok(())
}

fn narrow_one(path: &Path, metadata: &Metadata) -> anyhow::Result<()> {
    let mode = metadata.mode() & 0o7777 & !OTHERS;
    match std::fs::set_permissions(path, Permissions::from_mode(mode)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(|| {
            format!(
                "{} can be read by others, and only its owner can change that: run `chmod -R go-rwx` on the data folder as \
                 its owner",
                path.display()
            )
        }),
        _ => Ok(()),
    }
}

/// Takes from group and others what they may do; answers to how many files and folders they could.
fn narrow(dir: &Path) -> anyhow::Result<u64> {
    let mut narrowed = 0;
    let of_dir = std::fs::metadata(dir).with_context(|| format!("read {}", dir.display()))?;
    if is_wide(&of_dir) {
        narrow_one(dir, &of_dir)?;
        narrowed += 1;
    }
    walk(dir, usize::MAX, &mut |path, metadata| {
        if is_wide(metadata) {
            narrow_one(path, metadata)?;
            narrowed += 1;
        }
        Ok(())
    })?;
    Ok(narrowed)
}

/// Refuses a folder that others can read.
fn check(dir: &Path) -> anyhow::Result<()> {
    let mut wide: Option<(PathBuf, u32)> = None;
    let of_dir = std::fs::metadata(dir).with_context(|| format!("read {}", dir.display()))?;
    if is_wide(&of_dir) {
        wide = Some((dir.to_owned(), of_dir.mode() & 0o777));
    }
    walk(dir, CHECK_DEPTH, &mut |path, metadata| {
        if wide.is_none() && is_wide(metadata) {
            wide = Some((path.to_owned(), metadata.mode() & 0o777));
        }
        Ok(())
    })?;
    let Some((path, mode)) = wide else { return Ok(()) };
    bail!(
        "{} can be read by others (mode {mode:04o}): run `chmod -R go-rwx {}` (under systemd, set StateDirectoryMode=0700 too)",
        path.display(),
        dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(path: &Path, mode: u32) {
        std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_folder_of_before_is_narrowed_once_and_a_wider_one_refused_afterwards() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("data");
        std::fs::create_dir_all(dir.join("tables/flows/2026-01-01")).unwrap();
        let deep = dir.join("tables/flows/2026-01-01/a.parquet");
        let manifest = dir.join("tables/flows/MANIFEST");
        for path in [&deep, &manifest] {
            std::fs::write(path, "x").unwrap();
            set(path, 0o644);
        }
        std::os::unix::fs::symlink("/etc/hostname", dir.join("link")).unwrap();
        set(&dir, 0o755);
        secure(&dir).unwrap();
        assert_eq!((mode(&dir), mode(&deep), mode(&manifest)), (0o700, 0o600, 0o600));
        secure(&dir).unwrap();
        for (path, wide, private) in [
            (&dir, 0o750, 0o700),
            (&manifest, 0o640, 0o600),
            (&dir.join("tables"), 0o711, 0o700),
        ] {
            set(path, wide);
            let error = secure(&dir).unwrap_err().to_string();
            assert!(error.contains(&format!("chmod -R go-rwx {}", dir.display())), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
            assert_eq!(mode(path), wide, "it is refused, not changed");
            set(path, private);
            secure(&dir).unwrap();
        }
    }

    #[test]
    fn a_folder_of_another_user_is_refused_with_the_command_that_works() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("data");
        secure(&dir).unwrap();
        let owner = geteuid();
        refuse_owned_by_other(&dir, owner).unwrap();
        let other = Uid::from_raw(owner.as_raw() + 54_321);
        let refused = refuse_owned_by_other(&dir, other).unwrap_err().to_string();
        for words in [
            format!("`sudo -u {} ezscale …`", account(owner)),
            format!("`chown -R {} {}`", account(other), dir.display()),
        ] {
            assert!(refused.contains(&words), "{words} in {refused}");
        }
    }

    #[test]
    fn a_folder_of_a_newer_format_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("data");
        assert_eq!(found_format(&dir).unwrap(), None);
        secure(&dir).unwrap();
        let found = found_format(&dir).unwrap().unwrap();
        assert_eq!((found.found, found.known), (FOLDER_FORMAT, FOLDER_FORMAT));
        std::fs::write(dir.join(FORMAT), format!("{}\n", FOLDER_FORMAT + 1)).unwrap();
        let refused = secure(&dir).unwrap_err().to_string();
        let words = format!("data/FORMAT is a data folder of format {}", FOLDER_FORMAT + 1);
        assert!(
            refused.contains(&words) && refused.contains("restore a backup"),
            "{refused}"
        );
        std::fs::write(dir.join(FORMAT), "").unwrap();
        secure(&dir).unwrap();
    }
}
