//! Whatever comes is refused or understood: decoding never panics, and allocates in proportion to what came.

use bytes::{Bytes, BytesMut};
use fanfold_protocol::{
    Cursor, Flags, Frame, FrameCodec, HandshakeReply, Hello, Limits, Mark, Opcode, RequestId, Status, Token,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use tokio_util::codec::Decoder;

use crate::samples;

/// Bytes that one received byte may cost at most: the largest item in memory over its shortest form on the wire.
const BYTES_PER_BYTE: u64 = 256;
/// Bytes that a decoding may cost whatever came.
const BYTES_FIXED: u64 = 512;

/// Runs `work` on `input` bytes and holds it to the bound.
fn bounded<T>(input: usize, work: impl FnOnce() -> T) -> T {
    let mut output = None;
    let used = allocation_counter::measure(|| output = Some(work()));
    let bound = BYTES_FIXED + BYTES_PER_BYTE * input as u64;
    assert!(used.bytes_max <= bound, "{} bytes for {input} received", used.bytes_max);
    output.expect("measured code ran")
}

/// Decodes a body in every way it can be taken.
fn decode_all(opcode: u16, body: &Bytes) {
    for flags in [Flags::REQUEST, Flags::RESPONSE, Flags::ERROR] {
        let frame = Frame { opcode, flags, request_id: RequestId(1), body: body.clone() };
        bounded(body.len(), || frame.decode_call().is_ok());
        bounded(body.len(), || frame.decode_reply().is_ok());
        for item in bounded(body.len(), || frame.into_items(1_024)).unwrap_or_default() {
            bounded(item.body.len(), || item.decode_call().is_ok());
            bounded(item.body.len(), || item.decode_reply().is_ok());
        }
    }
}

fn opcode() -> impl Strategy<Value = u16> {
    select(Opcode::ALL.map(Opcode::code).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bodies_do_no_harm(opcode in opcode(), body in vec(any::<u8>(), 0..200)) {
        decode_all(opcode, &Bytes::from(body));
    }

    #[test]
    fn arbitrary_streams_do_no_harm(stream in vec(any::<u8>(), 0..200)) {
        let mut buffer = BytesMut::from(&stream[..]);
        let mut codec = FrameCodec::new(1 << 22);
        bounded(stream.len(), || while let Ok(Some(_)) = codec.decode(&mut buffer) {});
        let mut buffer = BytesMut::from(&stream[..]);
        bounded(stream.len(), || Hello::decode_from(&mut buffer).is_ok());
        let mut buffer = BytesMut::from(&stream[..]);
        bounded(stream.len(), || HandshakeReply::decode_from(&mut buffer).is_ok());
        bounded(stream.len(), || Token::from_bytes(&stream).is_ok());
        bounded(stream.len(), || Cursor::from_bytes(&stream).is_ok());
        bounded(stream.len(), || Mark::from_bytes(&stream).is_ok());
    }

    /// Damage to valid bodies reaches deeper than noise does.
    #[test]
    fn damaged_bodies_do_no_harm(
        sample: Index,
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
        cut: Option<Index>,
    ) {
        let frames = samples::frames();
        let (_, frame) = sample.get(&frames);
        let mut body = frame.body.to_vec();
        for (at, byte) in damage {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = byte;
            }
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len() + 1));
        }
        decode_all(frame.opcode, &Bytes::from(body));
    }

    /// The largest counts that the bytes after them seem to justify.
    #[test]
    fn claimed_counts_do_no_harm(opcode in opcode(), lead in vec(any::<u8>(), 0..24), fill: u8, length in 0usize..5_000) {
        let mut body = lead;
        body.resize(body.len() + length, fill);
        decode_all(opcode, &Bytes::from(body));
    }
}

/// The shortest items in the greatest number, which cost the most for what they are.
#[test]
fn densest_lists_stay_within_the_bound() {
    let list = |count: u64, item: &[u8], items: usize| {
        let mut body = vec![count as u8 & 0x7F | 0x80, (count >> 7) as u8];
        body.extend(item.iter().copied().cycle().take(item.len() * items));
        Bytes::from(body)
    };
    for count in [200u16, 1_000] {
        let items = usize::from(count);
        let count = u64::from(count);
        let absent = list(count, &[0], items);
        let unavailable = list(count, &[0, 1], items);
        let pings = list(count, &[1, 0, 1, 0], items);
        for (opcode, body) in
            [(Opcode::ReadEntries, absent), (Opcode::ReadFeeds, unavailable), (Opcode::Batch, pings)]
        {
            let flags = if opcode == Opcode::Batch { Flags::REQUEST } else { Flags::RESPONSE };
            let frame = Frame { opcode: opcode.code(), flags, request_id: RequestId(1), body: body.clone() };
            let taken = bounded(body.len(), || match opcode {
                Opcode::Batch => frame.into_items(1_024).map(|items| items.len()).unwrap_or_default(),
                _ => usize::from(frame.decode_reply().is_ok()),
            });
            assert!(taken > 0, "{opcode:?} with {count} items is valid");
        }
    }
}

#[test]
fn every_prefix_of_every_sample_is_refused() {
    for (name, frame) in samples::frames() {
        for length in 0..frame.body.len() {
            let cut = Frame { body: frame.body.slice(..length), ..frame.clone() };
            let taken = if frame.is_batch() {
                cut.into_items(1_024).is_ok()
            } else if frame.flags.is_response() {
                cut.decode_reply().is_ok()
            } else {
                cut.decode_call().is_ok()
            };
            assert!(!taken, "{name} cut to {length}");
        }
    }
}

#[test]
fn trailing_byte_is_refused_in_every_sample() {
    for (name, frame) in samples::frames() {
        let body = Bytes::from([&frame.body[..], &[0]].concat());
        let longer = Frame { body, ..frame.clone() };
        let refused = if frame.is_batch() {
            longer.into_items(1_024).map(drop)
        } else if frame.flags.is_response() {
            longer.decode_reply().map(drop)
        } else {
            longer.decode_call().map(drop)
        };
        let refused = refused.expect_err(&name);
        assert!(refused.connection_goes_on(), "{name}");
        let body = Status::Malformed { field: fanfold_protocol::Field::Body };
        assert_eq!(refused.to_status(), body, "{name}");
    }
}

#[test]
fn announced_frame_costs_nothing_before_it_comes() {
    let limits = Limits::default();
    let mut buffer = BytesMut::from(&limits.frame_bytes_max.to_le_bytes()[..]);
    let mut codec = FrameCodec::new(limits.frame_bytes_max);
    let used = allocation_counter::measure(|| {
        assert!(codec.decode(&mut buffer).expect("within the limit").is_none());
    });
    assert_eq!(used.bytes_total, 0);
}

#[test]
fn bound_is_noticed_when_it_is_passed() {
    let outcome = std::panic::catch_unwind(|| bounded(1, || vec![0u8; 1_000]));
    assert!(outcome.is_err());
}
