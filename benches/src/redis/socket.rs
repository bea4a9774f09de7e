//! Owns one non-blocking connection of the load, and its two buffers.
//!
//! - What is encoded between two visits of the event loop goes out in one write; one read takes as many replies as have arrived.
//! - The buffers are reused: a connection in its stride allocates nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::error::RedisError;
use super::resp::Reply;

/// Bytes read at once.
const READ_BYTES: usize = 128 << 10;

/// One connection.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    /// Commands to be sent; `sent` of them already are.
    pub out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    used: usize,
    consumed: usize,
}

impl Socket {
    /// Connects and registers under `token`.
    ///
    /// # Errors
    ///
    /// If nobody listens there.
    pub fn connect(address: SocketAddr, registry: &Registry, token: Token) -> Result<Self, RedisError> {
        // Over loopback a blocking connect is over at once, and says here what is wrong.
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, out: Vec::new(), sent: 0, input: vec![0; READ_BYTES], used: 0, consumed: 0 })
    }

    /// Bytes encoded that the system has not taken yet.
    pub fn backlog_bytes(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Writes as much as the system takes.
    ///
    /// # Errors
    ///
    /// If the connection fails.
    pub fn flush(&mut self) -> Result<(), RedisError> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(RedisError::Closed),
                Ok(written) => self.sent += written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent >= self.out.len() / 2 {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads once; whether there may be more to read.
    ///
    /// # Errors
    ///
    /// If the connection fails or was closed.
    pub fn receive(&mut self) -> Result<bool, RedisError> {
        self.input.copy_within(self.consumed..self.used, 0);
        self.used -= self.consumed;
        self.consumed = 0;
        if self.used == self.input.len() {
            self.input.resize(self.used * 2, 0);
        }
        match self.stream.read(&mut self.input[self.used..]) {
            Ok(0) => Err(RedisError::Closed),
            Ok(read) => {
                self.used += read;
                Ok(self.used == self.input.len())
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The next whole reply received.
    ///
    /// # Errors
    ///
    /// If the server sent an error or no RESP2.
    #[inline]
    pub fn next_reply(&mut self) -> Result<Option<Reply<'_>>, RedisError> {
        let Some(reply) = Reply::first(&self.input[self.consumed..self.used])? else { return Ok(None) };
        self.consumed += reply.wire_bytes();
        reply.checked().map(Some)
    }

    /// Ends the registration.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.stream)
    }
}
