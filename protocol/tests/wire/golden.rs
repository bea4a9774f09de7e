//! Holds the code to the files in `testdata/`, byte for byte, in both directions.
//!
//! `FANFOLD_WRITE_GOLDEN=1` writes the files anew; a change of an existing one is a change of the protocol.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use bytes::BytesMut;
use fanfold_protocol::{
    Call, Cursor, Frame, HandshakeReply, Hello, Limits, Mark, Opcode, Request, RequestId, ServerHello,
    Status, Token,
};

use crate::samples;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let pairs: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", pairs.join(" ")).expect("strings grow");
    }
    text
}

fn from_hex(text: &str) -> Vec<u8> {
    text.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).expect("hex pairs")).collect()
}

fn server_hello() -> ServerHello {
    Hello::current().negotiate(Limits::default()).expect("speaks its own version")
}

/// Everything that has a golden file, as bytes by name.
fn golden() -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::from([
        ("hello".to_owned(), Hello::current().to_bytes().to_vec()),
        ("server_hello".to_owned(), server_hello().to_bytes().to_vec()),
        ("token".to_owned(), samples::token().to_bytes().to_vec()),
        ("cursor_feed".to_owned(), samples::feed_cursor().to_bytes().to_vec()),
        ("cursor_followers".to_owned(), samples::edge_cursor().to_bytes().to_vec()),
        ("mark".to_owned(), samples::mark().to_bytes().to_vec()),
    ]);
    for (name, frame) in samples::frames() {
        let mut bytes = BytesMut::new();
        frame.encode_into(&mut bytes, u32::MAX).expect("fits");
        assert!(all.insert(name, bytes.to_vec()).is_none(), "names are unique");
    }
    all
}

fn read(name: &str) -> Vec<u8> {
    let path = folder().join(format!("{name}.hex"));
    from_hex(&fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

#[test]
fn everything_is_encoded_as_in_the_golden_files() {
    for (name, bytes) in golden() {
        if std::env::var_os("FANFOLD_WRITE_GOLDEN").is_some() {
            fs::write(folder().join(format!("{name}.hex")), to_hex(&bytes)).expect("writable");
        }
        assert_eq!(to_hex(&bytes), to_hex(&read(&name)), "{name}");
    }
}

#[test]
fn no_golden_file_is_left_without_a_sample() {
    let named = golden();
    for file in fs::read_dir(folder()).expect("the folder exists") {
        let path = file.expect("readable").path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("plain names");
        assert!(named.contains_key(name), "{name}");
    }
}

#[test]
fn golden_frames_decode_to_what_they_were_made_of() {
    for (name, frame) in samples::frames() {
        let mut bytes = BytesMut::from(&read(&name)[..]);
        let decoded = Frame::decode_from(&mut bytes, 1 << 20).expect("valid").expect("complete");
        assert!(bytes.is_empty(), "{name}");
        assert_eq!(decoded, frame, "{name}");
        for item in decoded.into_items(1_024).expect("valid") {
            assert_eq!(again(&item), item, "{name}");
        }
    }
}

/// Decodes the message of a frame and encodes it again.
fn again(item: &Frame) -> Frame {
    if !item.flags.is_response() {
        return item.decode_call().expect("valid").to_frame(item.request_id);
    }
    match item.decode_reply().expect("valid") {
        Ok(response) => Frame::response(item.opcode, item.request_id, &response),
        Err(status) => Frame::refusal(item.opcode, item.request_id, &status),
    }
}

#[test]
fn golden_handshake_decodes_to_what_it_was_made_of() {
    let mut bytes = BytesMut::from(&read("hello")[..]);
    assert_eq!(Hello::decode_from(&mut bytes), Ok(Some(Hello::current())));
    let mut bytes = BytesMut::from(&read("server_hello")[..]);
    assert_eq!(HandshakeReply::decode_from(&mut bytes), Ok(Some(HandshakeReply::Accepted(server_hello()))));
    let mut bytes = BytesMut::from(&read("refusal_unsupported_version")[..]);
    let refused = HandshakeReply::Refused(Status::UnsupportedVersion { min: 1, max: 1 });
    assert_eq!(HandshakeReply::decode_from(&mut bytes), Ok(Some(refused)));
}

#[test]
fn golden_sealed_strings_decode_to_what_they_were_made_of() {
    assert_eq!(Token::from_bytes(&read("token")), Ok(samples::token()));
    assert_eq!(Cursor::from_bytes(&read("cursor_feed")), Ok(samples::feed_cursor()));
    assert_eq!(Cursor::from_bytes(&read("cursor_followers")), Ok(samples::edge_cursor()));
    assert_eq!(Mark::from_bytes(&read("mark")), Ok(samples::mark()));
}

/// The bytes of the specification's worked example, written out by hand from its tables.
#[test]
fn ping_is_laid_out_as_the_specification_says() {
    let frame = Call { deadline_ms: Some(2_000), request: Request::Ping }.to_frame(RequestId(7));
    let mut bytes = BytesMut::new();
    frame.encode_into(&mut bytes, 1 << 20).expect("fits");
    assert_eq!(bytes[0..4], 18u32.to_le_bytes(), "length: 16 bytes of header and 2 of body follow");
    assert_eq!(bytes[4..6], Opcode::Ping.code().to_le_bytes());
    assert_eq!(bytes[6..8], [0, 0], "flags");
    assert_eq!(bytes[8..16], 7u64.to_le_bytes(), "request id");
    let covered = [&bytes[0..16], &bytes[20..22]].concat();
    assert_eq!(bytes[16..20], crc32fast::hash(&covered).to_le_bytes(), "checksum");
    assert_eq!(bytes[20..22], [0xD0, 0x0F], "deadline of 2,000 ms as a varint");
}

#[test]
fn every_opcode_has_a_golden_request_and_response() {
    let frames = samples::frames();
    for opcode in Opcode::ALL {
        let has = |response| {
            frames
                .iter()
                .any(|(_, frame)| frame.opcode == opcode.code() && frame.flags.is_response() == response)
        };
        assert!(has(false), "{opcode:?} request");
        // Answers without a body and answers shared by two opcodes have one sample.
        let shared = [
            Opcode::CreateSpace,
            Opcode::CloseSession,
            Opcode::WaitDelivered,
            Opcode::ReadTimeline,
            Opcode::ScanFollowees,
            Opcode::AcceptClock,
            Opcode::StartJob,
            Opcode::CancelJob,
            Opcode::InitCluster,
            Opcode::PauseFanOut,
        ];
        assert!(has(true) != shared.contains(&opcode), "{opcode:?} response");
    }
}
