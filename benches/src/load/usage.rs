//! Owns what the system says of processes: processor time, resident memory, bytes written.

use std::fs;
use std::io;

use rustix::param::clock_ticks_per_second;

use super::disk;
use super::target::ServerUse;

/// What `/proc` says of a process now. An error if the process is gone or the system has no `/proc`.
pub fn of_process(process_id: u32) -> io::Result<ServerUse> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{process_id}/{file}"));
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    Ok(ServerUse {
        cpu_seconds: cpu_seconds(&read("stat")?).ok_or_else(malformed)?,
        resident_bytes: field(&read("status")?, "VmRSS:").ok_or_else(malformed)? * 1_024,
        written_bytes: field(&read("io")?, "write_bytes:").ok_or_else(malformed)?,
        disk_written_bytes: disk::written_bytes(),
    })
}

/// Seconds of processor time of this process, all threads, user and system; 0 where the system has no `/proc`.
pub fn own_cpu_seconds() -> f64 {
    of_process(std::process::id()).map_or(0.0, |used| used.cpu_seconds)
}

/// Seconds in which threads of that name were ready to run and had no processor; 0 where the system does not tell.
pub fn ready_seconds(process_id: u32, name: &str) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{process_id}/task")) else { return 0.0 };
    let ready = threads.flatten().filter_map(|thread| {
        let is_it = fs::read_to_string(thread.path().join("comm")).ok()?.trim_end() == name;
        let text = fs::read_to_string(thread.path().join("schedstat")).ok().filter(|_| is_it)?;
        ready_nanos(&text)
    });
    ready.sum::<u64>() as f64 / 1e9
}

/// The second number of `schedstat`: nanoseconds on a queue.
fn ready_nanos(schedstat: &str) -> Option<u64> {
    schedstat.split_ascii_whitespace().nth(1)?.parse().ok()
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
    fn the_time_without_a_processor_is_the_second_number() {
        assert_eq!(ready_nanos("900 1500000000 12\n"), Some(1_500_000_000));
        assert_eq!(ready_nanos(""), None);
    }

    #[test]
    fn this_process_holds_memory() {
        let used = of_process(std::process::id()).unwrap();
        assert!(used.resident_bytes > 1 << 20);
    }
}
