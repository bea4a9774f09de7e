use std::sync::mpsc;
use std::time::Duration;

use fanfold_storage::fs::FaultFs;

use super::*;
use crate::raft::testing::{GROUP, Notebook, line, memory_directory, open_memory_log, open_single};
use crate::raft::{Formation, Group, GroupDirectory, Pace, Unflushed};

async fn group_with_means() -> (Group<Notebook>, UpkeepMeans) {
    group_at_pace(Arc::new(|_| {})).await
}

async fn group_at_pace(pace: Pace) -> (Group<Notebook>, UpkeepMeans) {
    let disk = FaultFs::new();
    let log = open_memory_log(&disk);
    let directory = GroupDirectory { pace, ..memory_directory(&disk) };
    let group = open_single(directory, &log, Formation::New).await.unwrap();
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

/// A group at which two lines may wait to be flushed, and whose flushes, asked for on the one channel, go on by the other.
async fn flushed_slowly() -> (Group<Notebook>, UpkeepMeans, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let ((ask, asked), (allow, allowed)) = (mpsc::channel(), mpsc::channel());
    let allowed = Mutex::new(allowed);
    let pace = move |_| {
        // Once nobody asks any more everything goes on.
        let _ = ask.send(()).map(|()| allowed.lock().recv());
    };
    let (group, means) = group_at_pace(Arc::new(pace)).await;
    group.change(|notebook| notebook.unflushed_max = Some(2)).await;
    (group, means, asked, allow)
}

async fn is_asked(asked: &mpsc::Receiver<()>) {
    while asked.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
}

/// Whether a line is answered at once.
async fn takes_a_line(group: &Group<Notebook>) -> bool {
    tokio::time::timeout(Duration::from_millis(200), group.propose(line("a line"))).await.is_ok()
}

#[tokio::test]
async fn applying_waits_for_a_flush_and_for_nobody_who_has_the_turn() {
    let (group, means, asked, allow) = flushed_slowly().await;
    // Nobody flushes: nobody is waited for.
    for _ in 0..4 {
        assert!(takes_a_line(&group).await);
    }
    let stop = CancellationToken::new();
    let turn = group.turn().await;
    let upkeep = tokio::spawn(Upkeep::new(group.clone(), means).run(stop.clone()));
    is_asked(&asked).await;
    // Files that are nobody's yet are not removed.
    let mut prune = Box::pin(group.prune(&turn));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut prune).await.is_err());
    assert!(takes_a_line(&group).await, "nothing says yet that flushes succeed");
    allow.send(()).unwrap();
    for _ in 0..2 {
        is_asked(&asked).await;
        while takes_a_line(&group).await {}
        let waits_at = group.applied_index();
        assert!(!takes_a_line(&group).await);
        assert_eq!(group.applied_index(), waits_at);
        allow.send(()).unwrap();
        let mut applied = group.watch_applied();
        let goes_on = applied.wait_for(|index| *index > waits_at);
        tokio::time::timeout(Duration::from_secs(60), goes_on).await.expect("it was flushed").unwrap();
    }
    // Who stops flushing is waited for no longer.
    is_asked(&asked).await;
    while takes_a_line(&group).await {}
    stop.cancel();
    drop((asked, allow));
    (&mut prune).await.unwrap();
    drop(prune);
    drop(turn);
    upkeep.await.unwrap();
    for _ in 0..4 {
        assert!(takes_a_line(&group).await);
    }
}

#[tokio::test]
async fn a_flush_under_way_is_finished_before_the_upkeep_ends() {
    let (group, means, asked, allow) = flushed_slowly().await;
    let stop = CancellationToken::new();
    let mut upkeep = tokio::spawn(Upkeep::new(group.clone(), means).run(stop.clone()));
    let turn = group.turn().await;
    assert!(takes_a_line(&group).await);
    is_asked(&asked).await;
    stop.cancel();
    drop(turn);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut upkeep).await.is_err());
    allow.send(()).unwrap();
    drop((asked, allow));
    upkeep.await.unwrap();
    let unflushed = group.read(Machine::unflushed);
    assert_eq!(unflushed, Unflushed::Little);
}

#[tokio::test]
async fn a_flush_that_fails_holds_nobody_up_until_one_succeeds_again() {
    let (group, means, asked, allow) = flushed_slowly().await;
    let stop = CancellationToken::new();
    let flushes = tokio::spawn(run_flushes(group.clone(), means, stop.clone()));
    assert!(takes_a_line(&group).await);
    is_asked(&asked).await;
    group.change(|notebook| notebook.fails_to_flush = true).await;
    assert!(takes_a_line(&group).await);
    allow.send(()).unwrap();
    // The next one is to fail, and the one after it is not.
    is_asked(&asked).await;
    group.change(|notebook| notebook.fails_to_flush = false).await;
    while takes_a_line(&group).await {}
    allow.send(()).unwrap();
    let mut waits = 0;
    while !takes_a_line(&group).await {
        waits += 1;
        assert!(waits < 100, "a failed flush is waited for");
    }
    for _ in 0..4 {
        assert!(takes_a_line(&group).await);
    }
    is_asked(&asked).await;
    assert!(takes_a_line(&group).await);
    allow.send(()).unwrap();
    is_asked(&asked).await;
    while takes_a_line(&group).await {}
    assert!(!takes_a_line(&group).await);
    stop.cancel();
    drop((asked, allow));
    flushes.await.unwrap();
}
