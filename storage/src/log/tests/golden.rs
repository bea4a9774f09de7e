//! Owns the tests that hold the log's bytes to the golden files in `storage/testdata/v1/`.

use super::*;
use crate::fs::{File, FileSystem};
use crate::golden::{dump, parse};
use crate::log::batch::{self, BatchHeader};
use crate::log::segment::SegmentHeader;

const SEGMENT_HEADER: &str = include_str!("../../../testdata/v1/log_segment_header.hex");
const BATCH: &str = include_str!("../../../testdata/v1/log_batch.hex");
const SEGMENT: &str = include_str!("../../../testdata/v1/log_segment.hex");

fn every_kind() -> Vec<Record> {
    vec![
        vote(A, "vote"),
        append(A, 1, bytes("one")),
        append(A, 2, bytes("two")),
        truncate(A, 1),
        append(B, 7, bytes("seven")),
        truncate(B, None),
        purge(B, 9),
        committed(C, "committed"),
        vote(GroupId(3), "gone"),
        Record::Forget { group: GroupId(3) },
    ]
}

#[test]
fn a_segment_header_has_the_golden_bytes() {
    let header = SegmentHeader {
        sequence: 0x0102,
        start: 0x0001_0000_0000,
        bytes: 0x0400_0000,
        incarnation: 3,
        salt: 0x1122_3344_5566_7788,
        durable_number: 0x0099,
        reused: true,
        made_at_open: true,
    };
    assert_eq!(dump(&header.encode()), SEGMENT_HEADER);
    assert_eq!(SegmentHeader::decode(&parse(SEGMENT_HEADER), 0), Ok(header));
}

#[test]
fn a_batch_has_the_golden_bytes() {
    let salt = 0x1122_3344_5566_7788;
    let header = BatchHeader {
        mark: false,
        position: 0x0001_0000_2000,
        incarnation: 3,
        number: 0x009a,
        durable: 0x0001_0000_2000,
        previous_groups: 0x42,
        keep_from: 0x0101,
    };
    let records = every_kind();
    assert_eq!(dump(&batch::encode(salt, &header, records.iter()).bytes), BATCH);
    let bytes = parse(BATCH);
    let head = batch::decode(salt, &bytes).unwrap();
    assert_eq!(head.header, header);
    let read =
        head.lines.iter().map(|line| line.record(Bytes::copy_from_slice(line.payload(&bytes).unwrap())));
    assert_eq!(read.collect::<Vec<_>>(), records);
}

#[test]
fn a_log_writes_and_reads_the_golden_segment() {
    let fs = FaultFs::new();
    let (log, _) = open(&fs, unmarked()).unwrap();
    submit_and_wait(&log, every_kind()).unwrap();
    log.close().unwrap();
    assert_eq!(dump(&fs.content(&segment_path(1)).unwrap()), SEGMENT);

    let golden = FaultFs::new();
    golden.create_dir_all(Path::new(DIR)).unwrap();
    let file: Arc<dyn File> = golden.create(&segment_path(1)).unwrap();
    file.write_at(0, &parse(SEGMENT)).unwrap();
    let (log, recovered) = open(&golden, unmarked()).unwrap();
    assert_eq!(
        (recovered.batches, recovered.records, recovered.damaged, recovered.torn),
        (3, 10, vec![], None)
    );
    let mut model = Model::default();
    model.apply(&every_kind());
    assert_eq!(Model::of(&log).unwrap(), model);
}
