//! Owns the catalog's state machine as its Raft group sees it.

use std::sync::Arc;

use fanfold_storage::codec::{Encoded, Reader};
use fanfold_storage::snapshot::Manifest;

use super::command::{CatalogOutcome, CatalogRefusal, decode_batch};
use super::state::CatalogState;
use crate::map::Whereabouts;
use crate::raft::{Bucket, FileError, Garbage, LastBucket, LastWork, Machine, RestoreWork};

/// The catalog's state machine.
#[derive(Debug, Default)]
pub(crate) struct CatalogMachine {
    state: CatalogState,
    /// The first committed batch that does not decode; from then on nothing is applied.
    damaged_at: Option<u64>,
    /// The state when the cut began.
    cut: Option<Vec<u8>>,
    /// What learns of every change before it is answered.
    whereabouts: Arc<Whereabouts>,
}

/// The one section of its snapshots.
const SECTION: u8 = 1;

impl CatalogMachine {
    /// An empty one, whose state is also seen in the view.
    pub fn new(whereabouts: Arc<Whereabouts>) -> Self {
        Self { whereabouts, ..Self::default() }
    }

    fn publish(&self) {
        self.whereabouts.view.offer(self.state.epoch, || Arc::new(self.state.clone()));
    }

    /// What the catalog holds.
    pub fn state(&self) -> &CatalogState {
        &self.state
    }
}

impl Machine for CatalogMachine {
    type Outcome = Vec<CatalogOutcome>;

    type Work<'b> = Self::Outcome;

    /// Commands of the catalog are few and small: they are applied in one piece.
    fn begin<'b>(&mut self, index: u64, batch: &'b [u8]) -> Self::Work<'b> {
        let commands = match decode_batch(batch) {
            Ok(commands) => commands,
            Err(error) => {
                tracing::error!(index, %error, "a committed batch of the catalog does not decode; it refuses changes");
                self.damaged_at.get_or_insert(index);
                return Vec::new();
            }
        };
        if self.damaged_at.is_some() {
            return commands.iter().map(|_| CatalogOutcome::Refused(CatalogRefusal::Malformed)).collect();
        }
        let outcomes = commands.into_iter().map(|command| self.state.apply(command)).collect();
        self.publish();
        outcomes
    }

    fn go_on(&mut self, _work: &mut Self::Work<'_>) -> bool {
        false
    }

    fn finish(work: Self::Work<'_>) -> Self::Outcome {
        work
    }

    fn is_damaged(&self) -> bool {
        self.damaged_at.is_some()
    }

    fn begin_cut(&mut self) {
        let mut out = Vec::new();
        self.state.encode(&mut out);
        self.cut = Some(out);
    }

    /// All there is fits into the last bucket.
    fn next_bucket(&mut self, _must_write: &dyn Fn(u8, u64) -> bool) -> Option<Bucket> {
        None
    }

    fn last_bucket(&mut self) -> Option<LastWork> {
        let bytes = self.cut.take().filter(|_| self.damaged_at.is_none())?;
        Some(Box::new(move || LastBucket { section: SECTION, number: 0, bytes, segments: Vec::new() }))
    }

    fn end_cut(&mut self, _taken: bool) -> Garbage {
        Box::new(self.cut.take())
    }

    fn restoring(&self, manifest: Arc<Manifest>) -> RestoreWork<Self> {
        Box::new(move |files| {
            let mut state = None;
            let decode = |section, _, bytes: &[u8]| {
                let mut from = Reader::new(bytes);
                let decoded = (section == SECTION).then(|| CatalogState::decode(&mut from)).transpose()?;
                if decoded.is_some() { from.end().map(|()| decoded) } else { Ok(None) }
            };
            let take = |decoded: Option<CatalogState>| {
                state = decoded.or(state.take());
                Ok(())
            };
            files.snapshots.load(&manifest, decode, take)?;
            let state = state.ok_or(FileError::Damaged)?;
            Ok(Box::new(move |machine: &mut Self| {
                *machine = Self { state, ..Self::new(machine.whereabouts.clone()) };
                machine.publish();
                Box::new(()) as Garbage
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use fanfold_storage::command::{Limits, encode_batch};
    use fanfold_storage::ids::{GraphId, SpaceId, Stamp};
    use fanfold_storage::space::SpacePolicy;

    use fanfold_storage::fs::FaultFs;
    use fanfold_storage::log::GroupId;

    use super::super::command::{CatalogCommand, Founding, SpaceChanges};
    use super::super::nodes::ReplicaRecord;
    use super::*;
    use crate::raft::testing::memory_directory;

    fn founded() -> CatalogMachine {
        let founding = Founding {
            cluster_id: 7,
            partitions: 4,
            node: 1,
            address: "here:1".into(),
            limits: Limits::default(),
            feature_level: 1,
        };
        let mut machine = CatalogMachine::default();
        assert_eq!(run(&mut machine, &CatalogCommand::Found(founding)), CatalogOutcome::Done);
        machine
    }

    fn run(machine: &mut CatalogMachine, command: &CatalogCommand) -> CatalogOutcome {
        machine.apply(1, &encode_batch(Stamp(0), &[command.to_bytes()])).remove(0)
    }

    fn create(name: &str, graph: &str) -> CatalogCommand {
        CatalogCommand::CreateSpace { name: name.into(), graph: graph.into(), policy: SpacePolicy::default() }
    }

    #[test]
    fn founding_makes_the_first_spaces_once() {
        let mut machine = founded();
        let state = machine.state().clone();
        assert_eq!(state.space("posts").map(|s| (s.id, s.graph)), Some((SpaceId(1), GraphId(1))));
        assert_eq!(state.space("stories").and_then(|s| s.policy.default_ttl_ms), Some(86_400_000));
        assert_eq!(state.groups, vec![vec![ReplicaRecord { replica: 1, node: 1 }]; 5]);
        let again = Founding {
            cluster_id: 8,
            partitions: 8,
            node: 2,
            address: String::new(),
            limits: Limits::default(),
            feature_level: 1,
        };
        let outcome = run(&mut machine, &CatalogCommand::Found(again));
        assert_eq!(outcome, CatalogOutcome::Refused(CatalogRefusal::Founded));
        assert_eq!(*machine.state(), state);
    }

    #[test]
    fn spaces_share_a_graph_by_name_and_never_a_name() {
        let mut machine = founded();
        let CatalogOutcome::Space(notes) = run(&mut machine, &create("notes", "friends")) else { panic!() };
        let CatalogOutcome::Space(photos) = run(&mut machine, &create("photos", "friends")) else { panic!() };
        assert_eq!((notes.id, notes.graph), (SpaceId(3), GraphId(2)));
        assert_eq!((photos.id, photos.graph), (SpaceId(4), GraphId(2)));
        let epoch = machine.state().epoch;
        let twice = run(&mut machine, &create("notes", "other"));
        assert_eq!(twice, CatalogOutcome::Refused(CatalogRefusal::SpaceExists));
        assert_eq!(machine.state().epoch, epoch);
        assert_eq!(machine.state().graphs.len(), 2);
    }

    #[test]
    fn altering_changes_what_is_named_and_raises_the_version() {
        let mut machine = founded();
        let changes = SpaceChanges { feed_cap: Some(2), ..SpaceChanges::default() };
        let command = CatalogCommand::AlterSpace { name: "stories".into(), changes };
        let CatalogOutcome::Space(stories) = run(&mut machine, &command) else { panic!() };
        assert_eq!((stories.version, stories.policy.feed_cap), (2, 2));
        assert_eq!(stories.policy.default_ttl_ms, Some(86_400_000));
        let changes = SpaceChanges { feed_cap: Some(0), ..SpaceChanges::default() };
        let command = CatalogCommand::AlterSpace { name: "stories".into(), changes };
        let refused = run(&mut machine, &command);
        assert!(matches!(refused, CatalogOutcome::Refused(CatalogRefusal::Policy(_))));
        assert_eq!(machine.state().space("stories").map(|s| s.version), Some(2));
    }

    #[test]
    fn a_snapshot_restores_the_same_state() {
        let mut machine = founded();
        run(&mut machine, &create("notes", "friends"));
        let disk = FaultFs::new();
        let files = memory_directory(&disk).files(GroupId(0)).unwrap().0;
        machine.begin_cut();
        run(&mut machine, &create("later", "friends"));
        let last = machine.last_bucket().unwrap()();
        machine.end_cut(true);
        let take = |bytes: &[u8]| {
            let mut writer = files.snapshots.begin(None);
            writer.put(last.section, last.number, bytes, &|_| {}).unwrap();
            writer.finish(1, Vec::new(), &|_| {}).unwrap()
        };
        let mut other = CatalogMachine::default();
        other.restore(&files, &take(&last.bytes)).unwrap();
        assert!(other.state().space("notes").is_some() && other.state().space("later").is_none());
        let before = other.state().clone();
        assert!(other.restore(&files, &take(&[1, 2, 3])).is_err());
        assert_eq!(*other.state(), before);
    }

    #[test]
    fn a_committed_batch_that_does_not_decode_stops_all_changes() {
        let mut machine = founded();
        let state = machine.state().clone();
        assert_eq!(machine.apply(9, b"nonsense"), Vec::new());
        assert!(machine.is_damaged());
        let outcome = run(&mut machine, &create("notes", "friends"));
        assert_eq!(outcome, CatalogOutcome::Refused(CatalogRefusal::Malformed));
        assert_eq!(*machine.state(), state);
    }
}
