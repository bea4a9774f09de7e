//! Owns what the system says of the disk on which servers keep their files: the kind of file system, and what the disk has written.
//!
//! - Servers keep their files in temporary directories, below `TMPDIR`.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

/// Bytes of a sector of `/proc/diskstats`, whatever the disk's own are.
const SECTOR_BYTES: u64 = 512;

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    kind: String,
    /// Major and minor number, with a colon between.
    device: String,
}

/// The kind of file system that temporary files are on; none if the system does not tell.
pub fn file_system() -> Option<&'static str> {
    mount().map(|mount| mount.kind.as_str())
}

/// Whether temporary files are in memory, where a sync costs nothing.
pub fn is_in_memory() -> bool {
    matches!(file_system(), Some("tmpfs" | "ramfs"))
}

/// Bytes that the disk under the temporary files has written since the system started, for whomever; none if it is no disk of its own.
pub fn written_bytes() -> Option<u64> {
    sectors_written(&fs::read_to_string("/proc/diskstats").ok()?, &mount()?.device)
        .map(|sectors| sectors * SECTOR_BYTES)
}

fn mount() -> Option<&'static Mount> {
    static MOUNT: OnceLock<Option<Mount>> = OnceLock::new();
    let look = || {
        let directory = fs::canonicalize(std::env::temp_dir()).ok()?;
        mount_of(&fs::read_to_string("/proc/self/mountinfo").ok()?, &directory)
    };
    MOUNT.get_or_init(look).as_ref()
}

/// The mount that a directory lies in: the deepest, and of those at the same place the last.
fn mount_of(mountinfo: &str, directory: &Path) -> Option<Mount> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (place, system) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(2);
        let (device, at) = (fields.next()?, fields.nth(1)?.replace("\\040", " "));
        let mount = Mount { kind: system.split(' ').next()?.to_owned(), device: device.to_owned() };
        directory.starts_with(&at).then_some((at.len(), mount))
    });
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, mount)| mount)
}

/// The tenth field of the line of a device.
fn sectors_written(diskstats: &str, device: &str) -> Option<u64> {
    let (major, minor) = device.split_once(':')?;
    diskstats.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let is_it = fields.next() == Some(major) && fields.next() == Some(minor);
        is_it.then(|| fields.nth(7)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
        22 21 0:20 / /tmp rw - tmpfs tmpfs rw\n\
        23 21 8:17 / /mnt/my\\040disk rw master:1 - xfs /dev/sdb1 rw\n";

    #[test]
    fn the_deepest_mount_holds_a_directory() {
        let of = |directory| {
            let mount = mount_of(MOUNTS, Path::new(directory)).unwrap();
            (mount.kind, mount.device)
        };
        assert_eq!(of("/tmp/a"), ("tmpfs".to_owned(), "0:20".to_owned()));
        assert_eq!(of("/tmpfiles"), ("ext4".to_owned(), "254:0".to_owned()));
        assert_eq!(of("/mnt/my disk/a"), ("xfs".to_owned(), "8:17".to_owned()));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn what_a_disk_wrote_is_found_by_its_numbers() {
        let stats = " 254  0 vda 11 12 13 14 15 16 17 18 0 19 20\n   8 17 sdb1 1 2 3 4 5 6 700 8 0 9 10\n";
        assert_eq!(sectors_written(stats, "8:17"), Some(700));
        assert_eq!(sectors_written(stats, "254:0"), Some(17));
        assert_eq!(sectors_written(stats, "0:20"), None, "memory is no disk");
    }
}
