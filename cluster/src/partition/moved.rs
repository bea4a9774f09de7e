//! Tests of partitions whose state comes from a peer's snapshot: its files get numbers of the directory they come to.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fanfold_storage::command::{Append, Command, Ttl, Write, WriteTag, encode_batch};
use fanfold_storage::entry::Audience;
use fanfold_storage::fs::{FaultFs, PowerLoss};
use fanfold_storage::ids::{GraphId, PartitionId, Sequence, SessionId, SpaceId, Stamp, UserId};
use fanfold_storage::log::{GroupId, Log};
use fanfold_storage::space::{SpaceDefinition, SpacePolicy};
use futures_util::FutureExt;

use super::handle::{PartitionHandle, position_of};
use super::machine::PartitionMachine;
use crate::clock::{Stamps, SystemClock};
use crate::options::DiskOptions;
use crate::position::Position;
use crate::proposer::Proposer;
use crate::raft::testing::{directory, open_memory_log, quick};
use crate::raft::{
    Batch, FileSettings, Formation, Group, GroupSpec, InProcessTransport, Machine, PeerEndpoint,
    RaftSettings, ReplicaAddress, ReplicaId,
};

const GROUP: GroupId = GroupId(1);
const SPACE: SpaceId = SpaceId(1);

struct Node {
    disk: FaultFs,
    log: Log,
    group: Group<PartitionMachine>,
    _endpoint: Arc<dyn PeerEndpoint>,
}

/// Keeps no log for followers, so that they need snapshots.
fn settings() -> RaftSettings {
    RaftSettings { lagging_log_bytes_max: 0, ..quick() }
}

async fn open(disk: FaultFs, transport: &InProcessTransport, replica: u64, formation: Formation) -> Node {
    let log = open_memory_log(&disk);
    let members = BTreeMap::from([(ReplicaId(replica), ReplicaAddress::default())]);
    let spec = GroupSpec { group: GROUP, replica: ReplicaId(replica), members, formation };
    let files = directory(Arc::new(disk.clone()), std::path::Path::new("/groups/0001"));
    let machine = PartitionMachine::new(PartitionId(0), 1);
    let wire = Arc::new(transport.clone());
    let group = Group::open(log.clone(), spec, files.load(GROUP, machine), &settings(), wire).await.unwrap();
    let endpoint = group.endpoint();
    transport.register(GROUP, ReplicaId(replica), &endpoint);
    Node { disk, log, group, _endpoint: endpoint }
}

impl Node {
    async fn apply(&self, stamp: u64, commands: Vec<Command>) {
        let commands: Vec<Bytes> = commands.iter().map(Command::to_bytes).collect();
        let batch = Batch(encode_batch(Stamp(stamp), &commands));
        while self.group.propose(batch.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Appends entries of several owners, and writes them to segments.
    async fn post(&self, sequence: u64) {
        let items = (0..20).map(|number| Append {
            space: SPACE,
            owner: UserId(1 + number % 7),
            author: None,
            audience: Audience::Public,
            ttl: Ttl::SpaceDefault,
            key: None,
            reference: None,
            payload: Bytes::from(format!("entry {number} of {sequence}")),
        });
        let number = Sequence(sequence);
        let tag = WriteTag { session: SessionId(1), sequence: number, lowest_unanswered: number };
        let write = Write::Append { items: items.collect() };
        self.apply(1_000_000 + sequence, vec![Command::Write { tag, write }]).await;
        let settings =
            FileSettings { table_bytes: 0, segment_bytes_max: 1 << 20, ..DiskOptions::default().files };
        let turn = self.group.turn().await;
        while self.group.flush(&settings).await.unwrap() {}
        while let Some(work) = self.group.change(|machine| machine.file_work(&settings)).await {
            self.group.work(&turn, work).await.unwrap();
        }
    }

    fn checksum(&self) -> u128 {
        self.group.read(|machine| machine.state().unwrap().checksum())
    }

    async fn snapshot(&self) {
        let turn = self.group.turn().await;
        self.group.snapshot(&turn).await.unwrap();
    }

    fn handle(&self) -> PartitionHandle {
        let stamps = Stamps::new(Arc::new(SystemClock::new()), 0);
        let encode = |stamp_ms, commands: &[Bytes]| encode_batch(Stamp(stamp_ms), commands);
        let proposer = Proposer::spawn(self.group.clone(), encode, stamps, Box::new(|_| Vec::new()));
        PartitionHandle::new(PartitionId(0), self.group.clone(), proposer, Arc::default())
    }

    fn position(&self) -> Position {
        self.group.read(|machine| position_of(machine.state_as_is()))
    }

    async fn purged(&self, index: u64) {
        while self.log.group_state(GROUP).unwrap().first < index {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a member holds this leader's log, and compares the states.
    async fn is_followed_by(&self, other: &Self) {
        let replica = other.group.replica();
        loop {
            let held = self.group.replication().unwrap().get(&replica).copied().flatten();
            if held.is_some() && held == self.group.metrics().last_log_index && self.group.is_ready(replica) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let index = self.group.read_index().await.unwrap();
        other.group.wait_applied(index).await.unwrap();
        assert_eq!(other.checksum(), self.checksum());
        assert!(other.group.read(|machine| machine.state_as_is().segments().count()) > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_moves_with_its_segments_from_node_to_node() {
    let transport = InProcessTransport::default();
    let first = open(FaultFs::new(), &transport, 1, Formation::New).await;
    let definition = SpaceDefinition {
        id: SPACE,
        name: "posts".into(),
        graph: GraphId(1),
        graph_name: "follows".into(),
        version: 1,
        policy: SpacePolicy::default(),
    };
    first.apply(1_000_000, vec![Command::DefineSpace { definition }, Command::OpenSession]).await;
    let mut sequence = 0;
    for _ in 0..3 {
        for _ in 0..3 {
            sequence += 1;
            first.post(sequence).await;
        }
        first.snapshot().await;
    }
    first.purged(3).await;
    let second = open(FaultFs::new(), &transport, 2, Formation::Joining).await;
    // Numbers are in use there that the sender uses for other files.
    for _ in 0..3 {
        second.group.files().snapshots.take_number();
    }
    first.group.add_learner(ReplicaId(2), ReplicaAddress::default()).await.unwrap();
    first.is_followed_by(&second).await;

    // Far behind, with files of its own, it gets another snapshot beside them.
    second.snapshot().await;
    transport.isolate(GROUP, ReplicaId(2), true);
    for _ in 0..3 {
        sequence += 1;
        first.post(sequence).await;
        first.snapshot().await;
    }
    first.purged(second.group.applied_index() + 1).await;
    transport.isolate(GROUP, ReplicaId(2), false);
    first.is_followed_by(&second).await;

    // A restart begins with what was installed; and what was installed goes on to a third as it is.
    let disk = second.disk.lose_power(PowerLoss::LoseAll);
    drop(second);
    let second = open(disk, &transport, 2, Formation::Joining).await;
    first.is_followed_by(&second).await;
    first.group.change_voters([ReplicaId(1), ReplicaId(2)].into()).await.unwrap();
    first.group.transfer_leader(ReplicaId(2)).await.unwrap();
    let third = open(FaultFs::new(), &transport, 3, Formation::Joining).await;
    while second.group.add_learner(ReplicaId(3), ReplicaAddress::default()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sequence += 1;
    second.post(sequence).await;
    second.is_followed_by(&third).await;
    assert!(third.group.newest_snapshot().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_behind_waits_for_a_later_incarnation() {
    let transport = InProcessTransport::default();
    let first = open(FaultFs::new(), &transport, 1, Formation::New).await;
    let second = open(FaultFs::new(), &transport, 2, Formation::Joining).await;
    first.group.add_learner(ReplicaId(2), ReplicaAddress::default()).await.unwrap();
    let index = first.group.read_index().await.unwrap();
    second.group.wait_applied(index).await.unwrap();
    transport.isolate(GROUP, ReplicaId(2), true);
    first.apply(1_000_000, vec![Command::Reincarnate { incarnation: 7 }]).await;
    first.apply(1_000_001, vec![Command::Tick]).await;
    let position = first.position();

    let behind = second.handle();
    let mut waits = pin!(behind.wait_position(position.incarnation, position.index));
    assert!(waits.as_mut().now_or_never().is_none(), "it shows less than the position names");
    transport.isolate(GROUP, ReplicaId(2), false);
    waits.await.unwrap();
    assert_eq!(second.position(), position);
    behind.wait_position(6, u64::MAX).await.unwrap();
    // A leader has heard of everything there is.
    first.handle().wait_position(8, u64::MAX).await.unwrap();
}
