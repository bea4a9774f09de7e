//! Owns the text of golden files: one line for each 16 bytes that are not all zeros, `offset: bytes`, and a last line with the
//! length.

use std::fmt::Write;

pub(crate) fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (number, line) in bytes.chunks(16).enumerate() {
        if line.iter().any(|byte| *byte != 0) {
            let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "{:06x}: {}", number * 16, hex.join(" ")).unwrap();
        }
    }
    writeln!(text, "{:06x}", bytes.len()).unwrap();
    text
}

pub(crate) fn parse(text: &str) -> Vec<u8> {
    let (lines, length) = text.trim_end().rsplit_once('\n').unwrap();
    let mut bytes = vec![0; usize::from_str_radix(length, 16).unwrap()];
    for line in lines.lines() {
        let (offset, hex) = line.split_once(": ").unwrap();
        let offset = usize::from_str_radix(offset, 16).unwrap();
        for (at, byte) in hex.split(' ').enumerate() {
            bytes[offset + at] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    bytes
}
