//! Tests of what a start applies from the log, and what is flushed meanwhile.

use super::*;
use crate::options::DiskOptions;

/// Lines of 64 KiB and more: a piece that is read has a few of them.
const LINES: usize = 50;

/// Lines that may wait to be flushed.
const UNFLUSHED_MAX: usize = 2;

/// Opens a group that is killed with so many lines in its log and in no snapshot, again; the most lines that waited to be flushed.
async fn most_unflushed(is_flushed: bool) -> usize {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    let lines: Vec<String> = (0..LINES).map(|n| n.to_string().repeat(64 << 10)).collect();
    for text in &lines {
        group.propose(line(text)).await.unwrap();
    }
    let disk = disk.kill();
    let mut notebook = Notebook::default();
    notebook.unflushed_max = Some(UNFLUSHED_MAX);
    let loading = memory_directory(&disk).load(GROUP, notebook);
    let loading = if is_flushed { loading.flushing(DiskOptions::default().files) } else { loading };
    let transport = Arc::new(InProcessTransport::default());
    let spec = spec(1, 1, Formation::Existing);
    let group = Group::open(open_memory_log(&disk), spec, loading, &quick(), transport).await.unwrap();
    assert!(texts(&group) == lines);
    // Nobody flushes any more, and nobody is waited for.
    for _ in 0..2 * UNFLUSHED_MAX {
        group.propose(line("more")).await.unwrap();
    }
    group.read(|notebook| notebook.most_unflushed)
}

#[tokio::test]
async fn what_a_replay_fills_is_flushed_meanwhile() {
    // The one beyond is what tells.
    assert!((UNFLUSHED_MAX + 1..LINES / 2).contains(&most_unflushed(true).await));
    assert!(most_unflushed(false).await >= LINES);
}
