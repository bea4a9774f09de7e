//! Owns the passage of frames through a connection: reading them with deadlines, and writing many with one call.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::error::Cut;
use super::frame::{Frame, FrameKind, HEAD_BYTES, head, split};
use super::options::PeerOptions;

/// What is read at once, at least.
const READ_BYTES: usize = 64 << 10;

/// Bodies up to this are copied behind their heads, so that small frames do not take a piece each.
const COPY_BYTES_MAX: usize = 4 << 10;

/// Pieces handed to the operating system at once.
const PIECES_MAX: usize = 64;

/// The body of a frame in at most two pieces, and their checksum, which whoever sends computes.
#[derive(Debug, Clone)]
pub(super) struct Body {
    prefix: Option<[u8; 16]>,
    bytes: Bytes,
    checksum: crc32fast::Hasher,
}

impl Body {
    pub fn new(bytes: Bytes) -> Self {
        Self::with_prefix(None, bytes)
    }

    pub fn with_prefix(prefix: Option<[u8; 16]>, bytes: Bytes) -> Self {
        let mut checksum = crc32fast::Hasher::new();
        if let Some(prefix) = &prefix {
            checksum.update(prefix);
        }
        checksum.update(&bytes);
        Self { prefix, bytes, checksum }
    }

    /// Bytes of the body.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.prefix.map_or(0, |prefix| prefix.len())
    }

    /// Bytes of the frame.
    pub fn frame_bytes(&self) -> usize {
        HEAD_BYTES + self.len()
    }
}

/// Frames on their way out, as pieces that are written together.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    done: VecDeque<Bytes>,
    small: BytesMut,
    bytes: usize,
}

impl Pieces {
    /// Appends a frame.
    pub fn push(&mut self, kind: FrameKind, code: u8, group: u32, number: u64, body: Body) {
        self.bytes += body.frame_bytes();
        let head = head(kind, code, group, number, (body.len(), &body.checksum));
        self.small.extend_from_slice(&head);
        if let Some(prefix) = body.prefix {
            self.small.extend_from_slice(&prefix);
        }
        if body.bytes.len() <= COPY_BYTES_MAX {
            self.small.extend_from_slice(&body.bytes);
        } else {
            self.done.push_back(self.small.split().freeze());
            self.done.push_back(body.bytes);
        }
    }

    /// Bytes that are not written yet.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes everything; a write that does not get on ends the connection.
    pub async fn write(&mut self, io: &mut (impl AsyncWrite + Unpin), stall: Duration) -> Result<(), Cut> {
        if !self.small.is_empty() {
            self.done.push_back(self.small.split().freeze());
        }
        while !self.done.is_empty() {
            let written = {
                let slices: Vec<IoSlice<'_>> =
                    self.done.iter().take(PIECES_MAX).map(|piece| IoSlice::new(piece)).collect();
                timeout(stall, io.write_vectored(&slices)).await.map_err(|_| Cut::Stalled)??
            };
            if written == 0 {
                return Err(Cut::Closed);
            }
            self.advance(written);
        }
        self.bytes = 0;
        timeout(stall, io.flush()).await.map_err(|_| Cut::Stalled)??;
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(piece) = self.done.front_mut() {
            if piece.len() > written {
                piece.advance(written);
                return;
            }
            written -= piece.len();
            self.done.pop_front();
        }
    }
}

/// Takes frames out of a connection.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    io: R,
    buffer: BytesMut,
    /// When the first bytes of a frame came that is not whole yet.
    begun: Option<Instant>,
    limit: usize,
    silent: Duration,
    stall: Duration,
    frame: Duration,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(io: R, options: &PeerOptions) -> Self {
        Self {
            io,
            buffer: BytesMut::with_capacity(READ_BYTES),
            begun: None,
            limit: options.frame_bytes_max,
            silent: options.silent(),
            stall: options.stall(),
            frame: options.frame(),
        }
    }

    /// The next frame, if it has been read already.
    pub fn read_already(&mut self) -> Result<Option<Frame>, Cut> {
        match split(&mut self.buffer, self.limit)? {
            Ok(frame) => {
                self.begun = None;
                Ok(Some(frame))
            }
            Err(whole) => {
                // The limit was checked, so this is at most one frame.
                self.buffer.reserve((whole - self.buffer.len()).max(READ_BYTES / 4));
                Ok(None)
            }
        }
    }

    /// The next frame. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Frame, Cut> {
        loop {
            if let Some(frame) = self.read_already()? {
                return Ok(frame);
            }
            let is_begun = !self.buffer.is_empty();
            let wait = if is_begun {
                let begun = *self.begun.get_or_insert_with(Instant::now);
                let left = self.frame.checked_sub(begun.elapsed()).ok_or(Cut::Slow)?;
                self.stall.min(left)
            } else {
                self.silent
            };
            match timeout(wait, self.io.read_buf(&mut self.buffer)).await {
                Ok(Ok(0)) => return Err(if is_begun { Cut::Truncated } else { Cut::Closed }),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if !is_begun => return Err(Cut::Silent),
                Err(_) if wait < self.stall => return Err(Cut::Slow),
                Err(_) => return Err(Cut::Stalled),
            }
        }
    }
}

#[cfg(test)]
impl Pieces {
    /// What would be written.
    pub fn into_bytes(mut self) -> Vec<u8> {
        let mut all: Vec<u8> = self.done.drain(..).flatten().collect();
        all.extend_from_slice(&self.small);
        all
    }

    /// The frames that would be written.
    pub fn frames(self) -> Vec<Frame> {
        let mut all = BytesMut::from(&self.into_bytes()[..]);
        let mut frames = Vec::new();
        while let Ok(Ok(frame)) = split(&mut all, usize::MAX) {
            frames.push(frame);
        }
        frames
    }
}
