//! Owns the test that holds segments to the golden file in `storage/testdata/v1/`.

use super::*;
use crate::golden::{dump, parse};

const SEGMENT: &str = include_str!("../../../testdata/v1/segment.hex");

#[test]
fn a_segment_has_the_golden_bytes() {
    let fs = machine();
    let info = write(&fs, dir(), &every_kind()).unwrap();
    assert_eq!(dump(&fs.content(&path()).unwrap()), SEGMENT);

    let golden = machine();
    golden.create(&path()).unwrap().write_at(0, &parse(SEGMENT)).unwrap();
    let segment = Segment::open(&golden, dir(), &info).unwrap();
    segment.verify().unwrap();
    assert_eq!(all(&segment).unwrap(), every_kind());
}
