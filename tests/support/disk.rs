//! A disk of a test's own: a small file system that can be filled, made read-only, and given back.
//!
//! It is mounted in a mount namespace that only the processes of one test enter, so that nothing is left on the machine
//! whatever becomes of the test. Needs root, as mounts do.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::command::output_of;

const BALLAST: &str = "ballast";

/// A mounted file system of fixed size. Gone with its value.
#[derive(Debug)]
pub(crate) struct Disk {
    /// Keeps the namespace; ends when its input is closed.
    holder: Child,
    mounted_at: PathBuf,
}

impl Disk {
    /// Mounts one of `size_kib` at an existing folder.
    pub(crate) fn mount(at: &Path, size_kib: u32) -> Self {
        let script = format!("mount -t tmpfs -o size={size_kib}k tmpfs \"$0\" && echo mounted && exec cat");
        let mut holder = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("unshare (util-linux) is installed");
        let mut line = String::new();
        let stdout = holder.stdout.take().expect("standard output is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the holder can be read");
        assert_eq!(
            line.trim(),
            "mounted",
            "this test mounts a file system and needs root (CAP_SYS_ADMIN): run tests/run, as root or with sudo"
        );
        Self {
            holder,
            mounted_at: at.to_owned(),
        }
    }

    /// A command that runs where the disk is seen. The process that results is the program itself.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()))
            .arg("--")
            .arg(program);
        command
    }

    fn shell(&self, script: &str, path: &Path) -> String {
        output_of(self.command("sh").args(["-c", script]).arg(path))
    }

    /// Takes every free byte.
    pub(crate) fn fill(&self) {
        let path = self.mounted_at.join(BALLAST);
        // Ends by the full disk, which is what it is for.
        self.shell(
            "umask 077; dd if=/dev/zero of=\"$0\" bs=4k 2>/dev/null; sync \"$0\"",
            &path,
        );
        let free = self.shell("stat --file-system --format=%f \"$0\"", &self.mounted_at);
        assert_eq!(free.trim(), "0", "free blocks on the full disk");
    }

    /// Gives back what [`Disk::fill`] took.
    pub(crate) fn free(&self) {
        self.shell("rm \"$0\"", &self.mounted_at.join(BALLAST));
    }

    /// Lays a read-only view of a folder over it: what is opened from now on is read-only.
    pub(crate) fn make_read_only(&self, folder: &Path) {
        self.shell("mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\"", folder);
    }

    /// Takes that view away.
    pub(crate) fn make_writable(&self, folder: &Path) {
        // Lazily: somebody may be reading there.
        self.shell("umount --lazy \"$0\"", folder);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // With the last process in it the namespace goes, and its mounts.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
