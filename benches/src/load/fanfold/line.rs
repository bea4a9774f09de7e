//! Owns one socket to one node: what goes out over it, and the answers that come back.

use std::io::{self, Read, Write};

use mio::net::TcpStream;

use super::answer::{self, Answer};
use super::error::FanfoldError;
use super::outbox::Outbox;

/// Bytes that one read takes at most, unless an answer is longer.
const READ_BYTES: usize = 256 << 10;

/// One socket.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: TcpStream,
    pub(super) outbox: Outbox,
    received: Vec<u8>,
    filled: usize,
}

impl Line {
    /// Over a socket on which hands are shaken.
    pub(super) fn new(stream: std::net::TcpStream) -> Result<Self, FanfoldError> {
        stream.set_nonblocking(true).map_err(|source| FanfoldError::Connection { source })?;
        let (stream, outbox) = (TcpStream::from_std(stream), Outbox::default());
        Ok(Self { stream, outbox, received: vec![0; READ_BYTES], filled: 0 })
    }

    /// Writes what is in the outbox, as far as the socket takes it; whether it took all.
    pub(super) fn flush(&mut self) -> Result<bool, FanfoldError> {
        loop {
            let bytes = self.outbox.bytes();
            if bytes.is_empty() {
                return Ok(true);
            }
            match self.stream.write(bytes) {
                Ok(count) => self.outbox.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FanfoldError::Connection { source }),
            }
        }
    }

    /// Reads once; whether there may be more.
    pub(super) fn receive(&mut self) -> Result<bool, FanfoldError> {
        if self.filled == self.received.len() {
            self.received.resize(2 * self.filled, 0);
        }
        match self.stream.read(&mut self.received[self.filled..]) {
            Ok(0) => Err(FanfoldError::Closed),
            Ok(count) => {
                self.filled += count;
                Ok(self.filled == self.received.len())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(source) => Err(FanfoldError::Connection { source }),
        }
    }

    /// Hands out the received answers.
    pub(super) fn each_answer(
        &mut self,
        take: impl FnMut(Answer<'_>) -> Result<(), FanfoldError>,
    ) -> Result<(), FanfoldError> {
        let taken = answer::each(&self.received[..self.filled], take)?;
        self.received.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        Ok(())
    }
}
