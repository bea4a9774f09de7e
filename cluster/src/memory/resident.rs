//! Owns the resident size of the process, as the system counts it.

use std::fmt::Debug;

/// What a process holds in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resident {
    /// All of it, in bytes.
    pub bytes: u64,
    /// Bytes of it that are of files: segments, and the program itself.
    pub mapped_bytes: u64,
}

/// Tells how much memory a node takes.
pub trait ResidentSize: Debug + Send + Sync {
    /// What it takes now; none if nobody can tell.
    fn now(&self) -> Option<Resident>;
}

/// The resident size of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessSize;

impl ResidentSize for ProcessSize {
    fn now(&self) -> Option<Resident> {
        Resident::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }
}

impl Resident {
    fn parse(status: &str) -> Option<Self> {
        let bytes = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key))?;
            Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
        };
        Some(Self { bytes: bytes("VmRSS:")?, mapped_bytes: bytes("RssFile:")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_size_is_read_as_the_system_writes_it() {
        let status = "Name:\tfanfold\nVmRSS:\t  123456 kB\nRssAnon:\t   1 kB\nRssFile:\t    7 kB\n";
        let resident = Resident { bytes: 123_456 << 10, mapped_bytes: 7 << 10 };
        assert_eq!(Resident::parse(status), Some(resident));
        assert_eq!(Resident::parse("VmRSS:\t1 kB\n"), None);
    }
}
