//! Owns the gathering of requests that wait at the same time into few frames and one write.
//!
//! Invariants:
//! - Requests leave in the order in which they were put in.
//! - A batch holds at least two requests, and no more items or bytes than its limits; large requests, and waits that
//!   are answered late by their nature, go in frames of their own.

use bytes::BytesMut;
use fanfold_protocol::{Frame, FrameError, Limits, Opcode};

use crate::defaults;

/// Bytes that an item of a batch takes besides its body, at most: three varints and a length.
const ITEM_OVERHEAD_BYTES: usize = 21;

/// Requests on their way into one write.
#[derive(Debug)]
pub(crate) struct Gatherer {
    limits: Limits,
    small: Vec<Frame>,
    small_bytes: usize,
    buffer: BytesMut,
}

impl Gatherer {
    pub fn new(limits: Limits) -> Self {
        Self { limits, small: Vec::new(), small_bytes: 0, buffer: BytesMut::new() }
    }

    /// The size of a request's frame as its length field would hold it, if that is more than the server accepts.
    pub fn oversize(&self, frame: &Frame) -> Option<u64> {
        let bytes = frame.encoded_len() - fanfold_protocol::frame::LENGTH_BYTES;
        (bytes > self.limits.frame_bytes_max as usize).then_some(bytes as u64)
    }

    /// Adds a request, which must not be oversize.
    pub fn push(&mut self, frame: Frame) {
        let bytes = frame.body.len() + ITEM_OVERHEAD_BYTES;
        if bytes > defaults::BATCH_ITEM_BYTES_MAX || goes_alone(&frame) {
            self.close_batch();
            self.encode(&frame);
            return;
        }
        let items_max = self.items_max();
        if self.small.len() >= items_max || self.small_bytes + bytes > self.bytes_max() {
            self.close_batch();
        }
        self.small_bytes += bytes;
        self.small.push(frame);
    }

    /// Bytes gathered so far, about.
    pub fn len(&self) -> usize {
        self.buffer.len() + self.small_bytes
    }

    /// What is to be written; the gatherer is empty afterwards.
    pub fn take(&mut self) -> BytesMut {
        self.close_batch();
        self.buffer.split()
    }

    fn items_max(&self) -> usize {
        (self.limits.batch_items_max as usize).clamp(1, fanfold_protocol::BATCH_ITEMS_MAX)
    }

    fn bytes_max(&self) -> usize {
        defaults::BATCH_BYTES_MAX.min(self.limits.frame_bytes_max as usize / 2)
    }

    fn close_batch(&mut self) {
        let small = std::mem::take(&mut self.small);
        self.small_bytes = 0;
        match small.as_slice() {
            [] => {}
            [single] => self.encode(single),
            many => self.encode(&Frame::batch(many)),
        }
    }

    fn encode(&mut self, frame: &Frame) {
        let encoded = frame.encode_into(&mut self.buffer, self.limits.frame_bytes_max);
        if let Err(FrameError::TooLargeToSend { limit, got }) = encoded {
            unreachable!("a frame of {got} bytes passed the check against {limit}");
        }
    }
}

/// Whether a request may wait so long that others should not share its frame.
fn goes_alone(frame: &Frame) -> bool {
    [Opcode::WaitDelivered, Opcode::WaitDrained].iter().any(|opcode| opcode.code() == frame.opcode)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fanfold_protocol::{Flags, RequestId};

    use super::*;

    fn frame(id: u64, bytes: usize) -> Frame {
        let body = Bytes::from(vec![7; bytes]);
        Frame { opcode: Opcode::Write.code(), flags: Flags::REQUEST, request_id: RequestId(id), body }
    }

    /// The ids in each frame that would be written.
    fn frames(gatherer: &mut Gatherer) -> Vec<Vec<u64>> {
        let mut bytes = gatherer.take();
        let mut all = Vec::new();
        while let Some(frame) = Frame::decode_from(&mut bytes, u32::MAX).expect("frames") {
            let items = frame.into_items(u32::MAX).expect("items");
            all.push(items.iter().map(|item| item.request_id.0).collect());
        }
        all
    }

    #[test]
    fn small_requests_share_a_frame_and_large_ones_do_not() {
        let mut gatherer = Gatherer::new(Limits::default());
        for (id, bytes) in [(1, 10), (2, 10), (3, defaults::BATCH_ITEM_BYTES_MAX), (4, 10)] {
            gatherer.push(frame(id, bytes));
        }
        assert_eq!(frames(&mut gatherer), [vec![1, 2], vec![3], vec![4]]);
        assert!(frames(&mut gatherer).is_empty());
    }

    #[test]
    fn batch_keeps_the_servers_limit_of_items() {
        let mut gatherer = Gatherer::new(Limits { batch_items_max: 2, ..Limits::default() });
        (1..=5).for_each(|id| gatherer.push(frame(id, 1)));
        assert_eq!(frames(&mut gatherer), [vec![1, 2], vec![3, 4], vec![5]]);
    }

    #[test]
    fn wait_goes_alone() {
        let mut gatherer = Gatherer::new(Limits::default());
        gatherer.push(frame(1, 1));
        gatherer.push(Frame { opcode: Opcode::WaitDrained.code(), ..frame(2, 1) });
        gatherer.push(frame(3, 1));
        assert_eq!(frames(&mut gatherer), [vec![1], vec![2], vec![3]]);
    }

    #[test]
    fn oversize_request_is_recognised() {
        let gatherer = Gatherer::new(Limits { frame_bytes_max: 1_000, ..Limits::default() });
        assert_eq!(gatherer.oversize(&frame(1, 984)), None);
        assert_eq!(gatherer.oversize(&frame(1, 985)), Some(1_001));
    }
}
