//! Owns the last words of a process that touched a page of a mapped file which the disk did not give (SIGBUS).
//!
//! - The handler makes system calls and nothing else: it takes no lock and no memory. The process ends by the signal all the same.
//! - Which file it was says the system's own table of mappings, so that nobody has to note what is mapped.

use std::fmt::{self, Write};
use std::ops::Range;

/// Bytes of a line of the table: its columns, and a path of the longest kind.
const LINE_BYTES_MAX: usize = 4_096 + 128;

/// Bytes of what is said.
const TEXT_BYTES_MAX: usize = LINE_BYTES_MAX + 512;

/// What is said, without an allocation. What does not fit is left out.
struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl Text {
    fn new() -> Self {
        Self { bytes: [0; TEXT_BYTES_MAX], length: 0 }
    }

    fn add(&mut self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(TEXT_BYTES_MAX - self.length)];
        self.bytes[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.add(text.as_bytes());
        Ok(())
    }
}

/// Says which file it was and what to do, or at least what happened. `read` reads the table of mappings on, and answers how many
/// bytes it got.
fn say(text: &mut Text, code: i32, address: u64, read: impl FnMut(&mut [u8]) -> usize) {
    let mut table = [0; LINE_BYTES_MAX];
    // Adding to a text does not fail.
    let _ = match mapped_at(address, &mut table, read) {
        Some((offset, path)) => {
            text.add(b"fanfold: the process ends (SIGBUS): a page of the mapped file ");
            text.add(&table[path]);
            writeln!(
                text,
                ", offset {offset}, could not be read: the disk failed, or somebody cut the file. Nothing that was acknowledged is \
                 lost by it. Look for errors of the disk in the system's log, and see what `fanfold verify --data-dir` says before the \
                 next start"
            )
        }
        None => {
            writeln!(
                text,
                "fanfold: the process ends (SIGBUS, code {code}, address {address:#x}): no mapped file is there"
            )
        }
    };
}

/// Which offset of which file is mapped at an address, by a table as in `/proc/self/maps`; the path is in `table` then.
fn mapped_at(
    address: u64,
    table: &mut [u8; LINE_BYTES_MAX],
    mut read: impl FnMut(&mut [u8]) -> usize,
) -> Option<(u64, Range<usize>)> {
    let mut filled = 0;
    loop {
        filled += match read(&mut table[filled..]) {
            0 => return None,
            bytes => bytes,
        };
        let mut start = 0;
        while let Some(length) = table[start..filled].iter().position(|byte| *byte == b'\n') {
            if let Some((offset, path)) = of_line(&table[start..start + length], address) {
                return Some((offset, start + path.start..start + path.end));
            }
            start += length + 1;
        }
        if start == 0 && filled == table.len() {
            // No line is as long; what follows is none.
            start = filled;
        }
        table.copy_within(start..filled, 0);
        filled -= start;
    }
}

/// The offset in the file and where the path stands, if the line is of a file that is mapped at the address:
/// `begin-end rights offset device inode path`.
fn of_line(line: &[u8], address: u64) -> Option<(u64, Range<usize>)> {
    let hex = |digits: &[u8]| u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let mut columns = line.split(|byte| *byte == b' ');
    let mut range = columns.next()?.split(|byte| *byte == b'-');
    let (begin, end) = (hex(range.next()?)?, hex(range.next()?)?);
    if !(begin..end).contains(&address) {
        return None;
    }
    let offset = hex(columns.nth(1)?)?;
    let path = line.iter().position(|byte| *byte == b'/')?;
    Some((offset + (address - begin), path..line.len()))
}

/// From now on the process says which mapped file it was when a page of one cannot be read, before that ends it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "only the C library sets what is done at a signal")]
pub(crate) fn name_before_the_end() {
    use std::ptr;

    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = say_and_end;
    // SAFETY: zeros are a whole `sigaction`, without a handler; the pointers are to it and live through the calls. The handler has the
    // type that SA_SIGINFO asks for, and does what may be done in one (see the module's words).
    let set = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigemptyset(&raw mut action.sa_mask);
        libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut())
    };
    assert!(set == 0, "the signal and the pointers are right, so that nothing is to be refused");
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "what a signal says is behind a pointer")]
extern "C" fn say_and_end(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    use std::os::fd::AsFd;

    use rustix::fs::{Mode, OFlags};

    // SAFETY: the system hands over whole information, as SA_SIGINFO asked; SIGBUS has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as u64) };
    let table = rustix::fs::open("/proc/self/maps", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let read = |into: &mut [u8]| table.as_ref().map_or(0, |table| rustix::io::read(table, into).unwrap_or(0));
    let mut text = Text::new();
    say(&mut text, code, address, read);
    // Nobody is left who could be told of a failure.
    let _ = rustix::io::write(std::io::stderr().as_fd(), text.bytes());
    // SAFETY: both may be called in a handler. The signal is blocked here, and ends the process when the handler returns.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Other systems have no such table.
#[cfg(not(target_os = "linux"))]
pub(crate) fn name_before_the_end() {}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
55d0c0a00000-55d0c0b00000 r-xp 00001000 fe:01 131 /usr/bin/fanfold
7f2c3c000000-7f2c3c021000 rw-p 00000000 00:00 0
7f2c3d000000-7f2c3d004000 r--s 00002000 fe:01 7 /data dir/groups/0001/0000000000000007.segment (deleted)
";

    fn said(address: u64, at_a_time: usize) -> String {
        let (mut text, mut rest) = (Text::new(), TABLE.as_bytes());
        say(&mut text, 2, address, |into| {
            let bytes = at_a_time.min(rest.len()).min(into.len());
            into[..bytes].copy_from_slice(&rest[..bytes]);
            rest = &rest[bytes..];
            bytes
        });
        String::from_utf8(text.bytes().to_vec()).unwrap()
    }

    #[test]
    fn the_file_and_the_offset_of_a_page_are_named_however_the_table_is_read() {
        for at_a_time in [1, 7, 64, LINE_BYTES_MAX] {
            let said = said(0x7f2c_3d00_1005, at_a_time);
            let place = "/data dir/groups/0001/0000000000000007.segment (deleted), offset 12293,";
            assert!(said.contains(place) && said.ends_with("start\n"), "{said}");
        }
    }

    #[test]
    fn memory_that_is_of_no_file_is_told_by_its_address() {
        for address in [0x7f2c_3c00_0000, 0x7f2c_3d00_4000, 0] {
            let said = said(address, 64);
            assert!(
                said.contains(&format!("code 2, address {address:#x}")) && said.ends_with('\n'),
                "{said}"
            );
        }
    }

    #[test]
    fn a_path_that_is_too_long_is_cut_and_hides_no_other_line() {
        let long = format!("1000-2000 r--s 00000000 fe:01 9 /{}\n", "x".repeat(2 * LINE_BYTES_MAX));
        let table = long + TABLE;
        let mut rest = table.as_bytes();
        let mut text = Text::new();
        say(&mut text, 2, 0x7f2c_3d00_0000, |into| {
            let bytes = rest.len().min(into.len());
            into[..bytes].copy_from_slice(&rest[..bytes]);
            rest = &rest[bytes..];
            bytes
        });
        assert!(text.bytes().windows(12).any(|bytes| bytes == b"offset 8192,"));
    }
}
