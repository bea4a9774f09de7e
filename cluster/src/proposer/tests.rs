use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use fanfold_storage::fs::{FaultFs, PowerLoss, RealFs};
use fanfold_storage::log::Log;
use futures_util::future::join_all;

use super::*;
use crate::raft::Formation;
use crate::raft::testing::{
    Notebook, directory, encode_batch, memory_directory, open_log, open_memory_log, open_single, texts,
};

/// Counts up, so that stamps tell the order in which they were given.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl StampSource for Counter {
    fn next_stamp(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn no_background() -> Background {
    Box::new(|_| Vec::new())
}

async fn open(disk: &FaultFs, background: Background) -> (Log, Group<Notebook>, Proposer<usize>) {
    let log = open_memory_log(disk);
    let group = open_single(memory_directory(disk), &log, Formation::New).await.unwrap();
    let proposer = Proposer::spawn(group.clone(), encode_batch, Counter::default(), background);
    (log, group, proposer)
}

fn command(number: usize) -> Bytes {
    Bytes::from(number.to_string())
}

#[tokio::test]
async fn every_command_gets_its_own_outcome() {
    let (_log, group, proposer) = open(&FaultFs::new(), no_background()).await;
    let answers: Vec<_> = (0..5_000).map(|number| proposer.submit(command(number)).unwrap()).collect();
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.wait().await.unwrap().outcome, number + 1);
    }
    let expected: Vec<String> = (0..5_000).map(|number| number.to_string()).collect();
    assert_eq!(texts(&group), expected, "in the order of submission");
}

#[tokio::test]
async fn waiting_commands_share_a_batch_and_its_stamp() {
    let disk = FaultFs::new();
    let (_log, group, proposer) = open(&disk, no_background()).await;
    disk.hold_syncs(true);
    let answers: Vec<_> = (0..3_000).map(|number| proposer.submit(command(number)).unwrap()).collect();
    disk.hold_syncs(false);
    join_all(answers.into_iter().map(Answer::wait)).await.into_iter().for_each(|answer| {
        answer.unwrap();
    });
    group.read(|notebook| {
        assert_eq!(notebook.batches, [1024, 1024, 952]);
        assert!(notebook.lines.is_sorted_by_key(|(stamp_ms, _)| *stamp_ms));
        let stamp_of = |number: usize| notebook.lines[number].0;
        assert_eq!(stamp_of(0), stamp_of(1023));
        assert!(stamp_of(1023) < stamp_of(1024));
    });
}

#[tokio::test]
async fn a_batch_is_cut_at_its_bytes() {
    let (_log, group, proposer) = open(&FaultFs::new(), no_background()).await;
    let large = Bytes::from(vec![b'x'; GATHER_BYTES_MAX / 2]);
    let oversized = Bytes::from(vec![b'y'; GATHER_BYTES_MAX + 1]);
    let commands = [&large, &large, &large, &oversized, &large];
    let answers: Vec<_> =
        commands.iter().map(|command| proposer.submit((*command).clone()).unwrap()).collect();
    for answer in answers {
        answer.wait().await.unwrap();
    }
    group.read(|notebook| assert_eq!(notebook.batches, [2, 1, 1, 1]));
}

#[tokio::test]
async fn a_full_queue_is_busy_and_recovers() {
    let (_log, group, proposer) = open(&FaultFs::new(), no_background()).await;
    // Nothing yields in between, so that the proposer's task does not run.
    let mut answers = Vec::new();
    let refused = loop {
        match proposer.submit(command(answers.len())) {
            Ok(answer) => answers.push(answer),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ProposeError::Busy { delay_ms: BUSY_DELAY_MS });
    assert_eq!(answers.len(), QUEUE_COMMANDS_MAX);
    for answer in answers {
        answer.wait().await.unwrap();
    }
    proposer.propose(command(0)).await.unwrap();
    assert_eq!(texts(&group).len(), QUEUE_COMMANDS_MAX + 1);
}

#[tokio::test]
async fn a_queue_is_bounded_in_bytes_too() {
    let (_log, _group, proposer) = open(&FaultFs::new(), no_background()).await;
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    let answers: Vec<_> = (0..16).map(|_| proposer.submit(large.clone()).unwrap()).collect();
    let refused = proposer.submit(command(0)).unwrap_err();
    assert_eq!(refused, ProposeError::Busy { delay_ms: BUSY_DELAY_MS });
    for answer in answers {
        answer.wait().await.unwrap();
    }
    assert_eq!(proposer.handle.queue.lock().bytes, 0);
    proposer.propose(command(0)).await.unwrap();
}

#[tokio::test]
async fn a_command_above_the_limit_is_refused() {
    let (_log, _group, proposer) = open(&FaultFs::new(), no_background()).await;
    let refused = proposer.propose(Bytes::from(vec![0; COMMAND_BYTES_MAX + 1])).await.unwrap_err();
    assert!(
        matches!(refused, ProposeError::TooLarge { limit_bytes, .. } if limit_bytes == COMMAND_BYTES_MAX as u64)
    );
}

#[tokio::test]
async fn a_kick_proposes_background_work_until_none_is_due() {
    let mut left = [1, 2, 1].into_iter();
    let background: Background =
        Box::new(move |_| vec![Bytes::from_static(b"tick"); left.next().unwrap_or_default()]);
    let (_log, group, proposer) = open(&FaultFs::new(), background).await;
    let mut applied = group.watch_applied();
    proposer.kick();
    applied.wait_for(|_| texts(&group).len() == 4).await.unwrap();
    // Nothing more is due, so the next command is alone.
    assert_eq!(proposer.propose(command(1)).await.unwrap().outcome, 5);
    assert_eq!(group.read(|notebook| notebook.batches.clone()), [1, 2, 1, 1]);
}

#[tokio::test]
async fn background_work_rides_along_and_is_asked_for_one_at_a_time() {
    let asked_at = Arc::new(Mutex::new(Vec::new()));
    let asks = Arc::new(OnceLock::<Group<Notebook>>::new());
    let (seen, asked) = (asked_at.clone(), asks.clone());
    let background: Background = Box::new(move |_| {
        let is_tick = |line: &&(u64, Bytes)| &line.1[..] == b"tick";
        let count = |notebook: &Notebook| notebook.lines.iter().filter(is_tick).count();
        let ticks = asked.get().unwrap().read(count);
        seen.lock().unwrap().push(ticks);
        if ticks < 4 { vec![Bytes::from_static(b"tick")] } else { Vec::new() }
    });
    let (_log, group, proposer) = open(&FaultFs::new(), background).await;
    asks.set(group.clone()).ok().unwrap();
    let answers: Vec<_> = (0..10_000).map(|number| proposer.submit(command(number)).unwrap()).collect();
    for answer in answers {
        answer.wait().await.unwrap();
    }
    let mut applied = group.watch_applied();
    applied.wait_for(|_| texts(&group).len() == 10_004).await.unwrap();
    let asked_at = asked_at.lock().unwrap();
    for ticks in 0..4 {
        let asked = asked_at.iter().filter(|asked| **asked == ticks).count();
        assert_eq!(asked, 1, "asked again before the last answer was applied: {asked_at:?}");
    }
}

#[tokio::test]
async fn a_failing_log_leaves_outcomes_unknown() {
    let disk = FaultFs::new();
    let (log, group, proposer) = open(&disk, no_background()).await;
    proposer.propose(command(0)).await.unwrap();
    // The sync that fails is to be that of the commands below, not of what Raft notes by itself after the above.
    let mut quiet = 0;
    while quiet < 1_000 {
        tokio::task::yield_now().await;
        quiet = if log.status().queued_bytes == 0 { quiet + 1 } else { 0 };
    }
    disk.fail_sync_after(0, PowerLoss::LoseAll);
    let answers: Vec<_> = (0..3).map(|number| proposer.submit(command(number)).unwrap()).collect();
    for answer in answers {
        assert!(answer.wait().await.unwrap_err().may_have_applied());
    }
    group.stopped().await;
    let late = proposer.propose(command(9)).await.unwrap_err();
    assert!(!late.may_have_applied(), "{late}");
}

#[tokio::test]
async fn the_group_stops_after_its_proposer_is_dropped() {
    let (_log, group, proposer) = open(&FaultFs::new(), no_background()).await;
    let answer = proposer.submit(command(1)).unwrap();
    let mut leadership = group.watch_leadership();
    drop((group, proposer));
    assert_eq!(answer.wait().await.unwrap().outcome, 1, "what was queued is still proposed");
    while leadership.changed().await {}
}

/// Not a benchmark: it only shows that concurrent callers on a real disk share fsyncs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_share_syncs_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(Arc::new(RealFs), &dir.path().join("log"), 1 << 20);
    let files = directory(Arc::new(RealFs), &dir.path().join("group"));
    let group = open_single(files, &log, Formation::New).await.unwrap();
    let proposer = Proposer::spawn(group, encode_batch, Counter::default(), no_background());
    let syncs_before = log.status().syncs;
    let callers = (0..64).map(|caller| {
        let proposer = proposer.clone();
        tokio::spawn(async move {
            for number in 0..50 {
                proposer.propose(command(caller * 50 + number)).await.unwrap();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        tokio::time::timeout(Duration::from_secs(60), caller).await.unwrap().unwrap();
    }
    let syncs = log.status().syncs - syncs_before;
    assert!(syncs < 64 * 50 / 4, "{syncs} syncs for 3,200 commands of 64 callers");
}
