//! Whatever can be said is understood as it was meant, alone, in a batch, and through the codec.

use bytes::BytesMut;
use fanfold_protocol::{
    Call, Cursor, Flags, Frame, FrameCodec, HandshakeReply, Hello, Limits, Mark, RequestId, SealedError,
    ServerHello, Token,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tokio_util::codec::{Decoder, Encoder};

use crate::strategies;

fn call() -> impl Strategy<Value = Call> {
    (option::of(1u32..), strategies::request())
        .prop_map(|(deadline_ms, request)| Call { deadline_ms, request })
}

fn over_the_wire(frame: &Frame) -> Frame {
    let mut codec = FrameCodec::new(1 << 24);
    let mut buffer = BytesMut::new();
    codec.encode(frame.clone(), &mut buffer).expect("fits");
    let decoded = codec.decode(&mut buffer).expect("valid").expect("complete");
    assert!(buffer.is_empty());
    decoded
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn calls_round_trip(call in call(), id: u64) {
        let frame = over_the_wire(&call.to_frame(RequestId(id)));
        prop_assert_eq!(frame.request_id, RequestId(id));
        prop_assert_eq!(frame.decode_call(), Ok(call));
    }

    #[test]
    fn responses_round_trip((opcode, response) in strategies::response(), id: u64) {
        let frame = over_the_wire(&Frame::response(opcode.code(), RequestId(id), &response));
        prop_assert_eq!(frame.decode_reply(), Ok(Ok(response)));
    }

    #[test]
    fn statuses_round_trip(status in strategies::status(), opcode: u16, id: u64) {
        let frame = over_the_wire(&Frame::refusal(opcode, RequestId(id), &status));
        prop_assert_eq!(frame.decode_reply(), Ok(Err(status)));
    }

    #[test]
    fn batches_round_trip(calls in vec(call(), 0..8)) {
        let frames: Vec<Frame> = (1..).zip(&calls).map(|(id, call)| call.to_frame(RequestId(id))).collect();
        let batch = over_the_wire(&Frame::batch(&frames));
        prop_assert_eq!(batch.flags, Flags::REQUEST);
        prop_assert_eq!(batch.into_items(1_024), Ok(frames));
    }

    #[test]
    fn hellos_round_trip(version_min: u16, version_max: u16, feature_level: u32, limits: [u32; 5]) {
        let hello = Hello { version_min, version_max, feature_level };
        prop_assert_eq!(Hello::decode_from(&mut BytesMut::from(&hello.to_bytes()[..])), Ok(Some(hello)));
        let [frame_bytes_max, pipelined_max, page_entries_max, payload_bytes_max, batch_items_max] = limits;
        let limits = Limits { frame_bytes_max, pipelined_max, page_entries_max, payload_bytes_max, batch_items_max };
        let answer = ServerHello { version: version_max, feature_level, limits };
        let mut buffer = BytesMut::from(&answer.to_bytes()[..]);
        prop_assert_eq!(
            HandshakeReply::decode_from(&mut buffer),
            Ok(Some(HandshakeReply::Accepted(answer)))
        );
    }

    #[test]
    fn sealed_strings_round_trip(
        token in strategies::token(),
        cursor in strategies::cursor(),
        mark in strategies::mark(),
    ) {
        prop_assert_eq!(Token::from_bytes(&token.to_bytes()), Ok(token));
        prop_assert_eq!(Cursor::from_bytes(&cursor.to_bytes()), Ok(cursor));
        prop_assert_eq!(Mark::from_bytes(&mark.to_bytes()), Ok(mark));
        prop_assert_eq!(Token::from_bytes(&cursor.to_bytes()), Err(SealedError::WrongKind));
        prop_assert_eq!(Cursor::from_bytes(&mark.to_bytes()), Err(SealedError::WrongKind));
        prop_assert_eq!(Mark::from_bytes(&token.to_bytes()), Err(SealedError::WrongKind));
    }

    #[test]
    fn changed_sealed_string_is_refused(cursor in strategies::cursor(), at: prop::sample::Index, bit in 0u32..8) {
        let mut bytes = cursor.to_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert_eq!(Cursor::from_bytes(&bytes), Err(SealedError::Damaged));
        bytes.truncate(at);
        prop_assert_eq!(Cursor::from_bytes(&bytes), Err(SealedError::Damaged));
    }
}
