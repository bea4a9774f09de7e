//! Imports whose sessions are forgotten in the middle, on a node whose clock the test turns.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use fanfold_client::{Client, GraphId, PartitionId, UserId};
use tempfile::TempDir;

use super::lanes::QUIET_BLOCKS;
use super::{
    Counts, Cut, Format, ImportError, Input, Kind, LaneState, Options, Output, Plan, Position, Run, State,
};
use crate::TestNode;

const PARTITIONS: u16 = 4;

/// Longer than a session is kept.
const FORGETS: Duration = Duration::from_secs(25 * 3_600);

/// An import of lines `OWNER TIME PAYLOAD`, in blocks of one line.
struct Import {
    client: Client,
    _dir: TempDir,
    input: PathBuf,
    state: PathBuf,
    kind: Kind,
}

impl Import {
    /// One that has taken its sessions and sent nothing.
    async fn begin(client: &Client, owners: &[UserId]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (input, state) = (dir.path().join("posts.tsv"), dir.path().join("posts.tsv.import"));
        let line = |(n, owner): (usize, &UserId)| format!("{owner}\t{}\tline {n}\n", 1_714_564_800_000 + n);
        std::fs::write(&input, owners.iter().enumerate().map(line).collect::<String>()).unwrap();
        let spaces = client.spaces().list().await.unwrap();
        let spaces = spaces.iter().map(|space| (space.name.clone(), space.into())).collect();
        let kind = Kind::Entries { space: "posts".to_owned(), spaces: Some(spaces) };
        let mut lanes = Vec::new();
        for partition in 0..PARTITIONS {
            let lane = client.import_lane(PartitionId(partition), None).await.unwrap();
            lanes.push(LaneState::new(lane.session().0));
        }
        let begun = State {
            plan: Plan {
                what: "entries".to_owned(),
                name: "posts".to_owned(),
                format: Format::Tsv,
                cluster: String::new(),
                partitions: PARTITIONS,
                inputs: vec![Input::of(&input).unwrap()],
            },
            spaces: None,
            block_items: 1,
            lanes,
            position: Position::default(),
            counts: Counts::default(),
            written: [0; 2],
            moved: [false; 2],
            done: false,
        };
        begun.save(&state).unwrap();
        Self { client: client.clone(), _dir: dir, input, state, kind }
    }

    fn noted(&self) -> State {
        State::load(&self.state).unwrap().unwrap()
    }

    /// Goes on from what the state file says.
    async fn go(
        &self,
        repeat_uncertain: bool,
        progress: &mut dyn FnMut(&Counts),
    ) -> Result<State, ImportError> {
        let cut = Cut {
            inputs: vec![self.input.clone()],
            format: Format::Tsv,
            kind: self.kind.clone(),
            graph: GraphId::default(),
            partitions: PARTITIONS,
            block_items: 1,
            later_items: 1,
        };
        let nowhere = || Output::open(None, None).unwrap();
        let (rejects, ids, state_path) = (nowhere(), nowhere(), Some(self.state.clone()));
        let bytes = Arc::default();
        let options = Options { state_path, rejects, ids, rate: None, repeat_uncertain, bytes };
        Run::run(&self.client, cut, self.noted(), options, progress).await
    }

    /// The numbers of the lines that are there, ascending.
    async fn lines(&self, owners: &[UserId]) -> Vec<usize> {
        let mut owners = owners.to_vec();
        owners.sort_unstable();
        owners.dedup();
        let mut lines = Vec::new();
        for owner in owners {
            let page = self.client.space("posts").timeline(owner).limit(1_000).hydrate().await.unwrap();
            assert!(page.next.is_none(), "it has more than a page");
            for entry in page.entries {
                let payload = String::from_utf8(entry.payload.unwrap().to_vec()).unwrap();
                lines.push(payload.strip_prefix("line ").unwrap().parse().unwrap());
            }
        }
        lines.sort_unstable();
        lines
    }
}

/// Polls an import until it ends, or until `is_over` after a poll; then it is dropped where it is, as a kill would leave it. What was
/// handed to its connections may be sent all the same.
async fn killed<F: Future>(run: F, mut is_over: impl FnMut() -> bool) -> Option<F::Output> {
    let mut run = pin!(run);
    poll_fn(|context| match run.as_mut().poll(context) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if is_over() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Owners from `from` on that are homed in a partition.
fn owners(partition: u16, from: u64) -> impl Iterator<Item = UserId> {
    (from..).map(UserId).filter(move |owner| PartitionId::of_user(*owner, PARTITIONS).0 == partition)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_idles_for_longer_than_its_session_lives_goes_on() {
    let node = TestNode::start().await.unwrap();
    let client = Client::connect(node.address()).await.unwrap();
    // The first lane has a line, then nothing for more blocks than it takes to be quiet, then again.
    let early = owners(0, 1).next().unwrap();
    let others: Vec<UserId> = (1..PARTITIONS).flat_map(|lane| owners(lane, 1).take(10)).collect();
    let idle = QUIET_BLOCKS as usize + 80;
    let mut lines = vec![early];
    lines.extend((0..idle).map(|n| others[n % others.len()]));
    lines.extend([early, others[0], early]);
    let import = Import::begin(&client, &lines).await;
    let (before, mut idling) = (import.noted(), None);
    let mut progress = |counts: &Counts| {
        // Before the block of its next line is opened.
        if counts.imported == idle as u64 - 10 {
            idling = Some(import.noted());
            let advance = async { node.advance(FORGETS).await.unwrap() };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(advance));
        }
    };
    let ended = import.go(false, &mut progress).await.unwrap();
    assert_eq!(ended.counts, Counts { imported: lines.len() as u64, known: 0, rejected: 0 });
    assert_eq!(import.lines(&lines).await, (0..lines.len()).collect::<Vec<_>>(), "each line once");
    assert_ne!(ended.lanes[0].session, before.lanes[0].session);
    let idling = idling.unwrap();
    assert!(!idling.lanes[0].is_open && idling.lanes[1].is_open, "{:?}", idling.lanes);
    assert_eq!(idling.lanes[0].session, before.lanes[0].session);
    // Had it been killed there, another lane would have had writes that the file does not count.
    idling.save(&import.state).unwrap();
    let stopped = import.go(false, &mut |_| ()).await.unwrap_err();
    assert!(matches!(stopped, ImportError::SessionForgotten { .. }), "{stopped}");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn an_import_killed_while_it_takes_new_sessions_has_every_line_once() {
    let node = TestNode::start().await.unwrap();
    let client = Client::connect(node.address()).await.unwrap();
    let (mut between, mut renewed, mut polls_max) = (0, 0, 0);
    for first in (1..).map(|n| n * 1_000) {
        let lines: Vec<UserId> = (0..PARTITIONS).flat_map(|lane| owners(lane, first).take(3)).collect();
        let import = Import::begin(&client, &lines).await;
        let begun = import.noted();
        node.advance(FORGETS).await.unwrap();
        // It is killed at each point at which it waits for anything, one after the other.
        polls_max += 1;
        let mut polls = 0;
        let mut is_over = || {
            polls += 1;
            polls == polls_max
        };
        if let Some(ended) = killed(import.go(false, &mut |_| ()), &mut is_over).await {
            assert_eq!(ended.unwrap().counts.imported, lines.len() as u64);
            break;
        }
        let left = import.noted();
        let has_old = |lane: usize| left.lanes[lane].session == begun.lanes[lane].session;
        let all = || 0..usize::from(PARTITIONS);
        between += usize::from(all().any(|lane| has_old(lane) && !left.lanes[lane].is_open));
        renewed += usize::from(all().any(|lane| !has_old(lane)));
        // What may have been sent under a session that is gone cannot be told, and everything else can.
        let is_uncertain = all().any(|lane| has_old(lane) && left.lanes[lane].is_open);
        let mut there = match import.go(false, &mut |_| ()).await {
            Ok(_) => lines.len(),
            Err(error) => {
                assert!(is_uncertain, "killed at {polls_max}: {error}, {:?}", left.lanes);
                assert!(matches!(error, ImportError::SessionForgotten { .. }), "{error}");
                0
            }
        };
        let found = import.lines(&lines).await;
        there = there.max(found.len());
        assert_eq!(found.len(), there, "killed at {polls_max}");
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "killed at {polls_max}: twice in {found:?}");
    }
    assert!(between > 0 && renewed > 0, "{between} and {renewed} of {polls_max} kills");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn what_was_refused_is_no_more_open_while_a_session_is_opened_for_it() {
    let node = TestNode::start().await.unwrap();
    let client = Client::connect(node.address()).await.unwrap();
    let lines: Vec<UserId> = owners(1, 1).take(9).collect();
    let import = Import::begin(&client, &lines).await;
    let begun = import.noted().lanes[1];
    node.advance(FORGETS).await.unwrap();
    let mut was_open = false;
    let is_between = || {
        let lane = import.noted().lanes[1];
        was_open |= lane.is_open;
        was_open && lane == begun
    };
    assert!(killed(import.go(false, &mut |_| ()), is_between).await.is_none(), "it was open until the end");
    let ended = import.go(false, &mut |_| ()).await.unwrap();
    assert_ne!(ended.lanes[1].session, begun.session);
    assert_eq!(import.lines(&lines).await, (0..lines.len()).collect::<Vec<_>>(), "each line once");
    node.stop().await.unwrap();
}

#[tokio::test]
async fn an_unanswered_block_of_a_forgotten_session_stops_an_import() {
    let node = TestNode::start().await.unwrap();
    let client = Client::connect(node.address()).await.unwrap();
    let lines: Vec<UserId> = owners(2, 1).take(20).collect();
    let import = Import::begin(&client, &lines).await;
    // Its first line is there, and the state file does not count it.
    let is_there = std::cell::Cell::new(false);
    let ended = killed(import.go(false, &mut |_| is_there.set(true)), || is_there.get()).await;
    assert!(ended.is_none());
    let left = import.noted();
    assert_eq!((left.position, left.lanes[2].next, left.lanes[2].is_open), (Position::default(), 1, true));
    assert!(!left.lanes[0].is_open, "nothing goes there");
    node.advance(FORGETS).await.unwrap();
    let found = import.lines(&lines).await;
    assert_eq!(found.first(), Some(&0));
    let stopped = import.go(false, &mut |_| ()).await.unwrap_err();
    assert_eq!(
        stopped.to_string(),
        "the session of this import was forgotten, and some lines after 0 may have been imported: look at them, and run the \
         command again with --repeat-uncertain to import them (again)"
    );
    assert_eq!(import.lines(&lines).await, found, "nothing was sent again");
    let ended = import.go(true, &mut |_| ()).await.unwrap();
    assert_eq!(ended.counts.imported, lines.len() as u64);
    let mut all = import.lines(&lines).await;
    assert_eq!(all.len(), lines.len() + found.len(), "what was asked for");
    all.dedup();
    assert!(all.into_iter().eq(0..lines.len()));
    node.stop().await.unwrap();
}
