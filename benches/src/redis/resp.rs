//! Owns the bytes of RESP2: commands written into a buffer, replies found in one.
//!
//! - Writing a command allocates nothing beyond the buffer, which is reused.
//! - Replies are borrowed from the buffer they were received in.
//! - What comes from the server is never trusted: lengths are checked, nothing panics.

use super::error::RedisError;

/// Nested arrays deeper than this are refused; none of the commands used answers with more than two.
const REPLY_DEPTH_MAX: u32 = 4;
/// Bulk strings and arrays longer than this are refused (Redis's own limit is 512 MiB).
const REPLY_LENGTH_MAX: i64 = 512 << 20;

/// Begins a command of `arguments` arguments, its name included.
pub fn begin(out: &mut Vec<u8>, arguments: usize) {
    out.push(b'*');
    decimal(out, arguments as u64);
    out.extend_from_slice(b"\r\n");
}

/// Adds an argument of bytes.
pub fn argument(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'$');
    decimal(out, bytes.len() as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Adds a number as an argument.
pub fn number(out: &mut Vec<u8>, value: u64) {
    argument(out, itoa::Buffer::new().format(value).as_bytes());
}

/// Adds a key, one letter and a number, as an argument.
pub fn key(out: &mut Vec<u8>, letter: u8, value: u64) {
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(value).as_bytes();
    out.push(b'$');
    decimal(out, digits.len() as u64 + 1);
    out.extend_from_slice(b"\r\n");
    out.push(letter);
    out.extend_from_slice(digits);
    out.extend_from_slice(b"\r\n");
}

/// Adds a whole command of words.
pub fn command(out: &mut Vec<u8>, name: &str, arguments: &[&str]) {
    begin(out, arguments.len() + 1);
    argument(out, name.as_bytes());
    for word in arguments {
        argument(out, word.as_bytes());
    }
}

fn decimal(out: &mut Vec<u8>, value: u64) {
    if value < 10 {
        out.push(b'0' + value as u8);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    }
}

/// One whole reply, borrowed from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a>(&'a [u8]);

impl<'a> Reply<'a> {
    /// The reply at the beginning of `input` and its length in bytes; none if it is not complete yet.
    ///
    /// # Errors
    ///
    /// If the bytes are not RESP2.
    #[inline]
    pub fn first(input: &'a [u8]) -> Result<Option<Self>, RedisError> {
        Ok(end(input, 0, 0)?.map(|end| Self(&input[..end])))
    }

    /// Its length on the wire.
    #[inline]
    pub fn wire_bytes(self) -> usize {
        self.0.len()
    }

    /// The integer, if it is one.
    #[inline]
    pub fn integer(self) -> Option<i64> {
        (self.0[0] == b':').then(|| parse(self.line()))?
    }

    /// Whether it is an error.
    #[inline]
    pub fn is_error(self) -> bool {
        self.0[0] == b'-'
    }

    /// Itself, unless it is an error.
    ///
    /// # Errors
    ///
    /// The server's words.
    #[inline]
    pub fn checked(self) -> Result<Self, RedisError> {
        if self.is_error() {
            return Err(RedisError::Refused { answer: String::from_utf8_lossy(self.line()).into_owned() });
        }
        Ok(self)
    }

    /// The text of a simple string or the bytes of a bulk string; none for anything else and for nil.
    pub fn bytes(self) -> Option<&'a [u8]> {
        match self.0[0] {
            b'+' => Some(self.line()),
            b'$' if self.0[1] != b'-' => {
                let header = self.line().len() + 3;
                Some(&self.0[header..self.0.len() - 2])
            }
            _ => None,
        }
    }

    /// How many replies the array holds, if it is one.
    pub fn array_len(self) -> Option<usize> {
        (self.0[0] == b'*').then(|| parse(self.line()).map_or(0, |len| usize::try_from(len).unwrap_or(0)))
    }

    /// The replies of an array; nothing for anything else.
    pub fn items(self) -> Items<'a> {
        let left = self.array_len().unwrap_or(0);
        Items { rest: if left == 0 { &[] } else { &self.0[self.line().len() + 3..] }, left }
    }

    /// What stands between the type byte and the first line end.
    fn line(self) -> &'a [u8] {
        let end = memchr::memchr(b'\r', self.0).expect("a whole reply holds the end of its first line");
        &self.0[1..end]
    }
}

/// The replies within an array.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Items<'a> {
    type Item = Reply<'a>;

    fn next(&mut self) -> Option<Reply<'a>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let end = end(self.rest, 0, 0).ok().flatten().expect("a whole array holds whole replies");
        let (reply, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(Reply(reply))
    }
}

/// A decimal number in bytes.
pub fn parse(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i64::from(digit))?;
    }
    Some(if negative { -value } else { value })
}

/// Where the reply that begins at `from` ends, if it is complete.
fn end(input: &[u8], from: usize, depth: u32) -> Result<Option<usize>, RedisError> {
    let Some(kind) = input.get(from).copied() else { return Ok(None) };
    // Most lines are a few bytes long: a plain loop beats a call of memchr.
    let Some(line) = input[from..]
        .iter()
        .take(32)
        .position(|byte| *byte == b'\r')
        .or_else(|| memchr::memchr(b'\r', &input[from..]))
    else {
        return Ok(None);
    };
    let line_end = from + line + 2;
    if line_end > input.len() {
        return Ok(None);
    }
    if input[line_end - 1] != b'\n' {
        return Err(RedisError::Protocol { byte: input[line_end - 1] });
    }
    match kind {
        b'+' | b'-' | b':' => Ok(Some(line_end)),
        b'$' | b'*' => {
            let refused = RedisError::Protocol { byte: kind };
            let Some(len) = parse(&input[from + 1..from + line]) else { return Err(refused) };
            if !(-1..=REPLY_LENGTH_MAX).contains(&len) || depth >= REPLY_DEPTH_MAX {
                return Err(refused);
            }
            let len = usize::try_from(len).unwrap_or(0);
            if kind == b'*' {
                return array_end(input, line_end, len, depth);
            }
            if input[from + 1] == b'-' {
                return Ok(Some(line_end));
            }
            let end = line_end + len + 2;
            Ok((end <= input.len()).then_some(end))
        }
        byte => Err(RedisError::Protocol { byte }),
    }
}

fn array_end(input: &[u8], from: usize, len: usize, depth: u32) -> Result<Option<usize>, RedisError> {
    let mut at = from;
    for _ in 0..len {
        match end(input, at, depth + 1)? {
            Some(next) => at = next,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_bulk_strings() {
        let mut out = Vec::new();
        begin(&mut out, 3);
        argument(&mut out, b"RPUSH");
        key(&mut out, b'f', 1234);
        number(&mut out, 9);
        assert_eq!(out, b"*3\r\n$5\r\nRPUSH\r\n$5\r\nf1234\r\n$1\r\n9\r\n");
    }

    #[test]
    fn every_prefix_of_a_reply_is_incomplete_and_the_whole_is_found() {
        let wire = b"*5\r\n$3\r\nabc\r\n:-12\r\n$-1\r\n+OK\r\n*1\r\n$0\r\n\r\n:9\r\n";
        let whole = wire.len() - 4;
        for len in 0..whole {
            assert_eq!(Reply::first(&wire[..len]).unwrap(), None, "{len}");
        }
        let reply = Reply::first(wire).unwrap().unwrap();
        assert_eq!(reply.wire_bytes(), whole);
        let items: Vec<_> = reply.items().collect();
        assert_eq!(items[0].bytes(), Some(&b"abc"[..]));
        assert_eq!(items[1].integer(), Some(-12));
        assert_eq!(items[2].bytes(), None);
        assert_eq!(items[3].bytes(), Some(&b"OK"[..]));
        assert_eq!(items[4].items().next().unwrap().bytes(), Some(&b""[..]));
    }

    #[test]
    fn bytes_that_are_not_resp_are_refused() {
        assert!(Reply::first(b"hello\r\n").is_err());
        assert!(Reply::first(b"$x\r\n").is_err());
        assert!(Reply::first(b"$99999999999\r\n").is_err());
        assert!(Reply::first(b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n").is_err());
        assert!(Reply::first(b"+OK\rX").is_err());
    }

    #[test]
    fn an_error_is_told_in_the_servers_words() {
        let reply = Reply::first(b"-ERR no\r\n").unwrap().unwrap();
        assert_eq!(reply.checked().unwrap_err().to_string(), "Redis refused a command: ERR no");
    }
}
