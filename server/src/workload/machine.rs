//! Owns what is said of the machine and the program beside every figure.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// The machine and the program that a figure belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Cores this process may use.
    pub cores: usize,
    /// Main memory in bytes, if the system tells.
    pub memory_bytes: Option<u64>,
    /// Name and release of the kernel, if the system tells.
    pub kernel: Option<String>,
    /// The commit of the checkout this runs in, with `-dirty` if files differ from it; none outside of one.
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
            commit: output_of(Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"])),
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
        write!(f, ", commit {}", self.commit.as_deref().unwrap_or("unknown"))?;
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

fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}
