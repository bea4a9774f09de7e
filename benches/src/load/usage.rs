//! Owns what the system says of processes: processor time, resident memory, bytes written.

use std::fs;
use std::io;

use rustix::param::clock_ticks_per_second;

use super::target::ServerUse;

/// What `/proc` says of a process now. An error if the process is gone or the system has no `/proc`.
pub fn of_process(process_id: u32) -> io::Result<ServerUse> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{process_id}/{file}"));
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    Ok(ServerUse {
        cpu_seconds: cpu_seconds(&read("stat")?).ok_or_else(malformed)?,
        resident_bytes: field(&read("status")?, "VmRSS:").ok_or_else(malformed)? * 1_024,
        written_bytes: field(&read("io")?, "write_bytes:").ok_or_else(malformed)?,
    })
}

/// Seconds of processor time of this process, all threads, user and system; 0 where the system has no `/proc`.
pub fn own_cpu_seconds() -> f64 {
    of_process(std::process::id()).map_or(0.0, |used| used.cpu_seconds)
}

/// User and system time of a line of `/proc/PID/stat`. The name in parentheses may hold anything, spaces too.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / clock_ticks_per_second() as f64)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_a_name_with_spaces_and_parentheses() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20";
        let ticks = clock_ticks_per_second() as f64;
        assert_eq!(cpu_seconds(stat), Some(300.0 / ticks));
        assert_eq!(cpu_seconds("7 (a"), None);
    }

    #[test]
    fn this_process_holds_memory() {
        let used = of_process(std::process::id()).unwrap();
        assert!(used.resident_bytes > 1 << 20);
    }
}
