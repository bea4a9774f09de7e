use std::time::Duration;

use fanfold_storage::fs::FaultFs;

use super::*;
use crate::raft::testing::{GROUP, Notebook, line, memory_directory, open_memory_log, open_single};
use crate::raft::{Formation, Group};

async fn group_with_means() -> (Group<Notebook>, UpkeepMeans) {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let group = open_single(memory_directory(&disk), &log, Formation::New).await.unwrap();
    let means = UpkeepMeans {
        log,
        options: Arc::new(DiskOptions::default()),
        reserve: Arc::new(Reserve::new(Arc::new(disk), "/".as_ref(), 0)),
        pressure: Arc::default(),
        ended: Arc::default(),
        partitions: 1,
        merges: UpkeepMeans::merges(),
    };
    (group, means)
}

#[tokio::test]
async fn a_panic_in_the_background_is_heard_and_names_the_group() {
    let (group, means) = group_with_means().await;
    let upkeep = tokio::spawn(Upkeep::new(group.clone(), means.clone()).run(CancellationToken::new()));
    let panicked = means.ended.wait_panicked();
    tokio::pin!(panicked);
    // Nothing is wrong yet.
    group.propose(line("a line")).await.unwrap();
    assert!(tokio::time::timeout(2 * LOOK_EVERY, &mut panicked).await.is_err());
    group.change(|notebook| notebook.panics_at_work = true).await;
    group.propose(line("another")).await.unwrap();
    let named = tokio::time::timeout(Duration::from_secs(30), panicked).await.unwrap();
    assert_eq!(named, GROUP);
    upkeep.await.unwrap();
    // Who comes later hears it, too.
    assert_eq!(means.ended.wait_panicked().await, GROUP);
}
