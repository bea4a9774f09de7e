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

#[tokio::test]
async fn who_has_rested_behind_much_of_the_log_takes_a_snapshot_sooner() {
    async fn pass(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }
    let (group, mut means) = group_with_means().await;
    means.options = Arc::new(DiskOptions { snapshot_log_bytes: 1 << 20, ..DiskOptions::default() });
    let mut upkeep = Upkeep::new(group.clone(), means);
    let (stop, much) = (CancellationToken::new(), "much ".repeat(80_000));
    group.propose(line(&much)).await.unwrap();
    upkeep.step(&stop).await.unwrap();
    pass(REST / 2).await;
    // It works again meanwhile.
    group.propose(line(&"more ".repeat(400))).await.unwrap();
    upkeep.step(&stop).await.unwrap();
    pass(REST / 2).await;
    upkeep.step(&stop).await.unwrap();
    assert!(group.newest_snapshot().is_none());
    pass(REST).await;
    upkeep.step(&stop).await.unwrap();
    let newest = group.newest_snapshot().expect("it has rested").manifest.index;
    assert_eq!(newest, group.applied_index());
    // Behind little there is no other, however long it rests.
    group.propose(line("another")).await.unwrap();
    upkeep.step(&stop).await.unwrap();
    pass(2 * REST).await;
    upkeep.step(&stop).await.unwrap();
    assert_eq!(group.newest_snapshot().unwrap().manifest.index, newest);
}
