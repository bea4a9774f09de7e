//! Owns what is said of the machine and the program beside every figure.
//!
//! - A commit is named only if the program is not older than the sources of the checkout: a figure must not be put
//!   down to code that it was not made with.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use serde::Serialize;

/// What the program is built from, below the root of the checkout.
const SOURCES: [&str; 6] =
    ["Cargo.lock", "protocol/src", "storage/src", "cluster/src", "client/src", "server/src"];

/// The machine and the program that a figure belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Cores this process may use.
    pub cores: usize,
    /// Main memory in bytes, if the system tells.
    pub memory_bytes: Option<u64>,
    /// Name and release of the kernel, if the system tells.
    pub kernel: Option<String>,
    /// The commit of the checkout this was built from and runs in, with `-dirty` if files differ from it; none outside
    /// of one, or if a source has changed since the build.
    pub commit: Option<String>,
    /// Whether the program was built with optimisations.
    pub optimised: bool,
}

impl Machine {
    /// Looks around.
    pub fn here() -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: memory_bytes(Path::new("/proc/meminfo")),
            kernel: output_of(Command::new("uname").arg("-sr")),
            commit: commit(),
            optimised: !cfg!(debug_assertions),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} cores", self.cores)?;
        if let Some(bytes) = self.memory_bytes {
            write!(f, ", {} GiB", bytes >> 30)?;
        }
        write!(f, ", {}", self.kernel.as_deref().unwrap_or("unknown kernel"))?;
        write!(
            f,
            ", commit {}",
            self.commit.as_deref().unwrap_or("unknown (not built from the checkout here)")
        )?;
        if !self.optimised {
            write!(f, ", a debug build: its speed means nothing")?;
        }
        Ok(())
    }
}

fn memory_bytes(meminfo: &Path) -> Option<u64> {
    let text = fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The commit that the running program was built from, if the checkout around it can tell.
fn commit() -> Option<String> {
    let git = |arguments: &[&str]| output_of(Command::new("git").args(arguments));
    let root = git(&["rev-parse", "--show-toplevel"])?;
    let files = git(&[&["-C", &root, "ls-files", "--"], &SOURCES[..]].concat())?;
    let built = modified(&std::env::current_exe().ok()?)?;
    is_newest(built, files.lines().map(|file| Path::new(&root).join(file)))
        .then(|| git(&["-C", &root, "describe", "--always", "--dirty", "--abbrev=12"]))?
}

/// Whether nothing has changed after `built`. A file that is gone has changed.
fn is_newest(built: SystemTime, mut files: impl Iterator<Item = impl AsRef<Path>>) -> bool {
    files.all(|file| modified(file.as_ref()).is_some_and(|changed| changed <= built))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_changed_or_removed_after_the_build_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("source.rs");
        fs::write(&file, "").unwrap();
        let changed = modified(&file).unwrap();
        assert!(is_newest(changed, [&file].into_iter()));
        assert!(!is_newest(changed - std::time::Duration::from_secs(1), [&file].into_iter()));
        assert!(!is_newest(changed, [&dir.path().join("gone.rs")].into_iter()));
    }
}
