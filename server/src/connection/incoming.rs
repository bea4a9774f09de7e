//! Owns the way of requests from the client: what was read and is not taken yet.
//!
//! - The memory is the connection's own only while something waits in it: an idle connection holds none.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::BytesMut;
use tokio::net::tcp::ReadHalf;
use tokio_util::io::poll_read_buf;

use super::spare;

pub(super) struct Incoming<'s> {
    socket: ReadHalf<'s>,
    /// What is not taken yet.
    pub(super) buffer: BytesMut,
}

impl<'s> Incoming<'s> {
    /// `buffer`: what was read before.
    pub(super) fn new(socket: ReadHalf<'s>, buffer: BytesMut) -> Self {
        Self { socket, buffer }
    }

    /// Reads what has come, once something has; 0 bytes at the end. Whoever stops waiting loses nothing.
    pub(super) async fn read(&mut self) -> io::Result<usize> {
        poll_fn(|context| {
            spare::make_room_to_read(&mut self.buffer);
            let read = poll_read_buf(Pin::new(&mut self.socket), context, &mut self.buffer);
            if !matches!(read, Poll::Ready(Ok(1..))) {
                self.rest();
            }
            read
        })
        .await
    }

    /// Gives the memory back if nothing is left in it.
    pub(super) fn rest(&mut self) {
        spare::leave_read(&mut self.buffer);
    }
}
