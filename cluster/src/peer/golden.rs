//! Holds the code to the files in `testdata/peer/`, byte for byte.
//!
//! `FANFOLD_WRITE_GOLDEN=1` writes the files anew; a change of an existing one is a change of the protocol.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use fanfold_storage::event::{Event, StreamAnswer, StreamMessage};
use fanfold_storage::ids::{Generation, GraphId, JournalPosition, PartitionId, StreamEpoch, UserId};
use fanfold_storage::log::GroupId;
use proptest::prelude::*;

use super::call::{JoinAnswer, JoinRequest, PeerAnswer, PeerCall};
use super::frame::{Frame, FrameKind, split};
use super::hello::{Hello, HelloAnswer, HelloRefusal, Purpose};
use super::network::{DONE, REFUSED};
use super::ping::Ping;
use super::refusal::PeerRefusal;
use super::wire::{Body, Pieces};
use crate::raft::Quiet;

const CLUSTER: u128 = 0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF;

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        purpose: Purpose::Data,
        cluster: CLUSTER,
        from: 1,
        to: 2,
        process: 0xA1_B2C3,
    }
}

fn hello_answer(refused: Option<HelloRefusal>) -> HelloAnswer {
    HelloAnswer {
        version: 1,
        refused,
        cluster: CLUSTER,
        node: 2,
        frame_bytes_max: 32 << 20,
        requests_max: 8_192,
        bytes_max: 64 << 20,
    }
}

fn calls() -> Vec<(&'static str, PeerCall)> {
    let join = JoinRequest {
        directory: CLUSTER,
        client_address: "10.0.0.3:7117".into(),
        peer_address: "10.0.0.3:7118".into(),
        zone: "b".into(),
        feature_level: 1,
    };
    let event = Event::Subscribe { graph: GraphId(1), owner: UserId(7), generation: Generation(3) };
    let message = StreamMessage {
        source: PartitionId(3),
        epoch: StreamEpoch { incarnation: 5, resets: 0 },
        destination_incarnation: 6,
        previous: JournalPosition(8),
        events: vec![(JournalPosition(9), event)],
    };
    vec![
        ("join", PeerCall::Join(join)),
        ("fetch_catalog", PeerCall::FetchCatalog { than_epoch: 300, wait_ms: 1_000 }),
        ("propose_catalog", PeerCall::ProposeCatalog(Bytes::from_static(b"command"))),
        ("stream", PeerCall::Stream { destination: PartitionId(4), message }),
        ("ask", PeerCall::Ask(Bytes::from_static(b"questions"))),
        ("control", PeerCall::Control(Bytes::from_static(b"message"))),
    ]
}

fn answers() -> Vec<(&'static str, PeerAnswer)> {
    let catalog = Bytes::from_static(b"catalog");
    let joined = JoinAnswer { cluster: CLUSTER, node: 3, partitions: 16, catalog: catalog.clone() };
    let stream = StreamAnswer {
        epoch: StreamEpoch { incarnation: 5, resets: 0 },
        watermark: JournalPosition(9),
        incarnation: 6,
        unknown_space: false,
    };
    vec![
        ("join", PeerAnswer::Joined(joined)),
        ("fetch_catalog", PeerAnswer::Catalog { epoch: 301, state: Some(catalog) }),
        ("propose_catalog", PeerAnswer::Proposed(Bytes::from_static(b"outcome"))),
        ("stream", PeerAnswer::Stream(stream)),
        ("ask", PeerAnswer::Replies(Bytes::from_static(b"replies"))),
        ("control", PeerAnswer::Control(Bytes::from_static(b"answer"))),
    ]
}

fn refusals() -> Vec<PeerRefusal> {
    vec![
        PeerRefusal::Malformed,
        PeerRefusal::NotHosted,
        PeerRefusal::NotLeader { leader: Some(3) },
        PeerRefusal::Unavailable { may_have_applied: true },
        PeerRefusal::Busy { delay_ms: 50 },
        PeerRefusal::Damaged,
        PeerRefusal::UnknownSpace,
        PeerRefusal::Stopping,
        PeerRefusal::DiskFull,
        PeerRefusal::TimedOut,
        PeerRefusal::Other { reason: Bytes::from_static(b"reason") },
    ]
}

fn ping() -> Ping {
    Ping {
        wall_ms: 1_794_000_000_000,
        catalog_epoch: 300,
        led: vec![(GroupId(0), 4), (GroupId(17), 2)],
        quiet: vec![(GroupId(17), Quiet { term: 2, index: 1_000 })],
        asleep: vec![(GroupId(3), 5)],
        is_slow: true,
        is_full: false,
    }
}

fn frame(kind: FrameKind, code: u8, group: u32, number: u64, body: Body) -> Vec<u8> {
    let mut pieces = Pieces::default();
    pieces.push(kind, code, group, number, body);
    pieces.into_bytes()
}

/// Everything that has a golden file, as bytes by name.
fn golden() -> BTreeMap<String, Vec<u8>> {
    let replicas = *b"\x04\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0";
    let append = Body::with_prefix(Some(replicas), Bytes::from_static(b"entries"));
    let mut all = BTreeMap::from([
        ("hello".to_owned(), hello().to_bytes().to_vec()),
        ("hello_answer".to_owned(), hello_answer(None).to_bytes().to_vec()),
        ("hello_refusal".to_owned(), hello_answer(Some(HelloRefusal::Removed)).to_bytes().to_vec()),
        ("raft_append".to_owned(), frame(FrameKind::Raft, 1, 17, 1, append)),
        ("ping".to_owned(), frame(FrameKind::Ping, 0, 0, 2, Body::new(ping().to_bytes()))),
    ]);
    for (name, call) in calls() {
        let (code, body) = call.encode();
        let bytes = frame(FrameKind::Call, code, call.credit(), 3, Body::new(body));
        all.insert(format!("call_{name}"), bytes);
    }
    for (name, answer) in answers() {
        let bytes = frame(FrameKind::Answer, DONE, 0, 3, Body::new(answer.to_bytes()));
        all.insert(format!("answer_{name}"), bytes);
    }
    for (n, refusal) in (1..).zip(refusals()) {
        let bytes = frame(FrameKind::Answer, REFUSED, 0, 3, Body::new(refusal.to_bytes()));
        all.insert(format!("refusal_{n:02}"), bytes);
    }
    all
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/peer")
}

fn to_hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(16) {
        let pairs: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(text, "{}", pairs.join(" ")).unwrap();
    }
    text
}

#[test]
fn bytes_are_those_of_the_golden_files() {
    if std::env::var_os("FANFOLD_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(folder()).unwrap();
        for (name, bytes) in golden() {
            fs::write(folder().join(format!("{name}.hex")), to_hex(&bytes)).unwrap();
        }
    }
    let mut files = BTreeMap::new();
    for file in fs::read_dir(folder()).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        files.insert(name, fs::read_to_string(&path).unwrap());
    }
    let expected: BTreeMap<_, _> = golden().into_iter().map(|(name, bytes)| (name, to_hex(&bytes))).collect();
    assert_eq!(files, expected);
}

#[test]
fn what_is_sent_is_read_back() {
    assert_eq!(Hello::from_bytes(&hello().to_bytes()), Ok(hello()));
    for refused in [None, Some(HelloRefusal::Full)] {
        let answer = hello_answer(refused);
        assert_eq!(HelloAnswer::from_bytes(&answer.to_bytes()), Ok(answer));
    }
    for (_, call) in calls() {
        let (code, body) = call.encode();
        assert_eq!(PeerCall::decode(code, &body), Ok(call));
    }
    for (_, answer) in answers() {
        assert_eq!(PeerAnswer::from_bytes(&answer.to_bytes()), Ok(answer));
    }
    for refusal in refusals() {
        assert_eq!(PeerRefusal::from_bytes(&refusal.to_bytes()), Ok(refusal));
    }
    assert_eq!(Ping::from_bytes(&ping().to_bytes()), Ok(ping()));
}

proptest! {
    #[test]
    fn any_bodies_are_decoded_or_refused(code: u8, bytes: Vec<u8>) {
        let bytes = Bytes::from(bytes);
        let _ = (PeerCall::decode(code, &bytes), PeerAnswer::from_bytes(&bytes));
        let _ = (PeerRefusal::from_bytes(&bytes), Ping::from_bytes(&bytes));
    }

    #[test]
    fn changed_bodies_are_decoded_or_refused(which in 0..6usize, at: prop::sample::Index, to: u8) {
        let (code, body) = calls()[which].1.encode();
        let mut changed = body.to_vec();
        let place = at.index(changed.len());
        changed[place] = to;
        let _ = PeerCall::decode(code, &changed.into());
        let mut changed = answers()[which].1.to_bytes().to_vec();
        let place = at.index(changed.len());
        changed[place] = to;
        let _ = PeerAnswer::from_bytes(&changed.into());
    }

    #[test]
    fn changed_frames_are_never_taken(which: prop::sample::Index, at: prop::sample::Index, by in 1..=u8::MAX) {
        let all: Vec<Vec<u8>> =
            golden().into_iter().filter(|(name, _)| !name.starts_with("hello")).map(|(_, bytes)| bytes).collect();
        let mut bytes = all[which.index(all.len())].clone();
        let place = at.index(bytes.len());
        bytes[place] ^= by;
        let taken: Result<Result<Frame, usize>, _> = split(&mut BytesMut::from(&bytes[..]), 1 << 20);
        prop_assert!(!matches!(taken, Ok(Ok(_))));
    }
}
