//! Owns the plain blocking connection for set-up, fills and comparisons.
//!
//! - It never runs while something is measured.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::error::RedisError;
use super::resp::{self, Reply};

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// A blocking connection to one Redis.
#[derive(Debug)]
pub struct Control {
    stream: TcpStream,
    input: Vec<u8>,
    used: usize,
    consumed: usize,
}

impl Control {
    /// Connects.
    ///
    /// # Errors
    ///
    /// If nobody listens there.
    pub fn connect(address: SocketAddr) -> Result<Self, RedisError> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, input: vec![0; READ_BYTES], used: 0, consumed: 0 })
    }

    /// Sends a command of words and takes any answer that is not an error.
    ///
    /// # Errors
    ///
    /// If the connection fails or Redis refuses.
    pub fn ok(&mut self, name: &str, arguments: &[&str]) -> Result<(), RedisError> {
        self.ask(name, arguments, |_| ())
    }

    /// Sends a command of words and gives its answer to `read`.
    ///
    /// # Errors
    ///
    /// If the connection fails or Redis refuses.
    pub fn ask<T>(
        &mut self,
        name: &str,
        arguments: &[&str],
        read: impl FnOnce(Reply<'_>) -> T,
    ) -> Result<T, RedisError> {
        let mut out = Vec::new();
        resp::command(&mut out, name, arguments);
        self.send(&out)?;
        self.reply(read)
    }

    /// Sends commands already written; their replies are taken with [`reply`](Self::reply).
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn send(&mut self, commands: &[u8]) -> Result<(), RedisError> {
        Ok(self.stream.write_all(commands)?)
    }

    /// Waits for the next reply and gives it to `read`.
    ///
    /// # Errors
    ///
    /// If the connection fails or Redis answers with an error.
    pub fn reply<T>(&mut self, read: impl FnOnce(Reply<'_>) -> T) -> Result<T, RedisError> {
        loop {
            if let Some(reply) = Reply::first(&self.input[self.consumed..self.used])? {
                self.consumed += reply.wire_bytes();
                return Ok(read(reply.checked()?));
            }
            self.receive()?;
        }
    }

    fn receive(&mut self) -> Result<(), RedisError> {
        self.input.copy_within(self.consumed..self.used, 0);
        self.used -= self.consumed;
        self.consumed = 0;
        if self.used == self.input.len() {
            self.input.resize(self.used * 2, 0);
        }
        let read = self.stream.read(&mut self.input[self.used..])?;
        if read == 0 {
            return Err(RedisError::Closed);
        }
        self.used += read;
        Ok(())
    }

    /// Waits until no rewrite of the append-only file runs or is due.
    ///
    /// # Errors
    ///
    /// If the connection fails or the rewrite did.
    pub fn wait_for_rewrite(&mut self) -> Result<(), RedisError> {
        // Each question waits for a blocking command of a tenth of a second, so that asking costs Redis nothing.
        loop {
            let info = self.ask("INFO", &["persistence"], |reply| {
                reply.bytes().map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
            })?;
            let is = |name: &str, value: &str| info.lines().any(|line| line == format!("{name}:{value}"));
            if is("aof_rewrite_in_progress", "0") && is("aof_rewrite_scheduled", "0") {
                return if is("aof_last_bgrewrite_status", "ok") {
                    Ok(())
                } else {
                    Err(RedisError::AppendOnly)
                };
            }
            self.ok("BLPOP", &["fanfold-nobody-pushes-here", "0.1"])?;
        }
    }
}
