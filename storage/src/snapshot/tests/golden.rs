//! Owns the tests that hold manifests and bucket files to the golden files in `storage/testdata/v1/`.

use super::*;
use crate::golden::{dump, parse};

const MANIFEST: &str = include_str!("../../../testdata/v1/snapshot_manifest.hex");
const BUCKETS: &str = include_str!("../../../testdata/v1/snapshot_buckets.hex");

#[test]
fn a_snapshot_has_the_golden_bytes() {
    let (fs, _, second) = two();
    let store = open_whole(&fs);
    let manifest = store.newest().unwrap();
    assert_eq!((manifest.number, manifest.files.len()), (6, 2));
    let written = fs.content(&path("0000000000000006.manifest")).unwrap();
    assert_eq!(dump(&written), MANIFEST);
    assert_eq!(dump(&fs.content(&path("0000000000000002.buckets")).unwrap()), BUCKETS);

    assert_eq!(Manifest::decode(&parse(MANIFEST), GROUP, 6).as_ref(), Ok(&*manifest));
    assert!(fs.damage(&path("0000000000000002.buckets"), &parse(BUCKETS)));
    assert_eq!(load(&store, &manifest).unwrap(), second);
}
