//! Tests of a snapshot that goes from one directory to another, and of what is left of one that does not arrive.

use super::super::{Announced, PreparedSnapshot, SnapshotReceiver, SnapshotSender};
use super::*;

/// Bytes of a piece: some of a segment, more than a bucket.
const PIECE_BYTES: u64 = 100;

#[expect(clippy::unnecessary_wraps, reason = "as it is asked for")]
fn renumber(_: &Path, listed: &Listed, number: u64) -> Result<Listed, SnapshotError> {
    Ok(Listed { name: format!("{number:016x}.segment"), ..listed.clone() })
}

/// Takes at most so many pieces; the receiver, and whether it has all.
fn received(
    store: &SnapshotStore,
    (number, sender): (u64, &mut SnapshotSender),
    pieces: usize,
) -> (SnapshotReceiver, bool) {
    let manifest = sender.encoded();
    let announced =
        Announced { number, manifest_bytes: manifest.len() as u64, manifest_crc: crc32fast::hash(manifest) };
    let mut receiver = SnapshotReceiver::new(store, announced).unwrap();
    for _ in 0..pieces {
        let Some(position) = receiver.wants() else { break };
        let bytes = sender.read(position, PIECE_BYTES).unwrap();
        receiver.take(&bytes, &renumber, &no_pace).unwrap();
    }
    let is_whole = receiver.wants().is_none();
    (receiver, is_whole)
}

#[test]
fn what_was_received_of_a_snapshot_that_is_not_put_in_place_is_removed() {
    let (from, to) = (FaultFs::new(), FaultFs::new());
    let (source, target) = (open_whole(&from), open_whole(&to));
    let mut state = State { index: 9, ..State::default() };
    state.buckets.insert((1, 3), vec![7; 250]);
    for content in [&[1; 350][..], &[2; 90], &[3; 180]] {
        state.segments.push(make_segment(&from, &source, content).unwrap());
    }
    let manifest = take(&source, None, &state).unwrap();
    let mut sender = SnapshotSender::new(&source, &manifest).unwrap();
    let own = make_segment(&to, &target, &[4; 40]).unwrap();
    let before = names(&to);
    let mut most = 0;
    for pieces in 0.. {
        let (receiver, is_whole) = received(&target, (manifest.number, &mut sender), pieces);
        most = most.max(names(&to).iter().filter(|name| name.ends_with(".segment")).count());
        if is_whole {
            let prepared = receiver.prepare(&no_pace).unwrap();
            drop::<PreparedSnapshot>(prepared);
            assert_eq!(names(&to), before, "it was complete");
            break;
        }
        drop(receiver);
        assert_eq!(names(&to), before, "given up after {pieces} pieces");
    }
    assert_eq!(most, 4, "all had their names");
    let (receiver, is_whole) = received(&target, (manifest.number, &mut sender), usize::MAX);
    assert!(is_whole);
    let installed = receiver.prepare(&no_pace).unwrap().install().unwrap();
    assert_eq!(installed.segments.len(), 3);
    let store = open_whole(&to);
    verify(&store, &installed).unwrap();
    assert!(names(&to).contains(&own.name), "it is somebody else's");
}
