//! Owns the way of answers to the client: what gathered is written at once, by the connection's own task.
//!
//! - What requests held is given back when their answers are written, or never will be.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::WriteHalf;
use tokio::time::Instant;

use super::outgoing::{Held, Outgoing};
use super::spare;
use crate::config::ms;

pub(super) struct Writer<'s> {
    socket: WriteHalf<'s>,
    answers: Arc<Outgoing>,
    out: Vec<u8>,
    /// So many bytes of `out` are written.
    written: usize,
    held: Held,
    /// When the client must have taken what waits.
    deadline: Option<Instant>,
}

impl<'s> Writer<'s> {
    pub(super) fn new(socket: WriteHalf<'s>, answers: Arc<Outgoing>) -> Self {
        Self { socket, answers, out: Vec::new(), written: 0, held: Held::default(), deadline: None }
    }

    /// Writes what waits, as far as the client takes it, and answers whether there is more room for requests then; an error
    /// when nothing can be written any more.
    pub(super) fn write(&mut self) -> std::io::Result<bool> {
        let mut has_given_back = false;
        loop {
            if self.out.is_empty() {
                self.held = self.answers.take_into(&mut self.out);
                if self.out.is_empty() {
                    return Ok(has_given_back);
                }
            }
            match self.socket.try_write(&self.out[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.written += bytes;
                    self.answers.shared().metrics.sent_bytes.inc_by(bytes as u64);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.deadline.is_none() {
                        let timeout = ms(self.answers.shared().config.write_timeout_ms);
                        self.deadline = Some(Instant::now() + timeout);
                        // Who does not take its answers holds no more memory than they are.
                        self.out.shrink_to_fit();
                    }
                    return Ok(has_given_back);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.written == self.out.len() {
                has_given_back |= self.begin_anew();
            }
        }
    }

    fn begin_anew(&mut self) -> bool {
        spare::give_back(&mut self.out);
        (self.written, self.deadline) = (0, None);
        self.answers.give_back(std::mem::take(&mut self.held))
    }

    /// Whether something waits for the client to take it.
    pub(super) fn is_held_up(&self) -> bool {
        self.deadline.is_some()
    }

    /// Waits until the client takes more.
    pub(super) async fn writable(&self) {
        // An error shows when it is written to.
        let _ = self.socket.writable().await;
    }

    /// When the client must have taken what waits.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Tells the client that nothing more will come.
    pub(super) async fn shut_down(&mut self) {
        if let Err(error) = self.socket.shutdown().await {
            tracing::debug!(%error, "the client was gone first");
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.answers.give_back(std::mem::take(&mut self.held));
    }
}
