//! Owns the software of a node: its log, whose work is a task like any other, a replica of each partition, and their
//! upkeep.
//!
//! - A node ends when its log or one of its groups does, as a process would.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fanfold_cluster::NodeError;
use fanfold_cluster::blocking::open_log;
use fanfold_cluster::clock::{StampSource, Stamps};
use fanfold_cluster::raft::{
    FileError, FileSettings, Fills, Formation, GroupDirectory, GroupSpec, LogStoreError, OpenError,
    RaftSettings, ReplicaAddress, ReplicaId, group_dir,
};
use fanfold_cluster::simulation::{Means, Replica};
use fanfold_storage::command::{Command, encode_batch};
use fanfold_storage::ids::{EntryId, PartitionId, Stamp};
use fanfold_storage::log::{GroupId, Log, LogError, LogOptions};
use futures_util::future::{BoxFuture, select_all};

use crate::broken;
use crate::client::SPACE;
use crate::plan::{Control, NODES, PARTITIONS};
use crate::wire::{Answer, Peers, Request, Service, Streams, Wire, name_of};
use crate::world::{NodeClock, World, lock};

/// Small, so that segments, snapshots and merges come soon.
const FILES: FileSettings = FileSettings {
    table_bytes: 8 << 10,
    unflushed_bytes_max: 16 << 10,
    segment_bytes_max: 64 << 10,
    cache_bytes: 8 << 10,
    cut_bytes_max: 2 << 10,
};

/// A leader's stamps: as R2 says, or as its clock says.
enum LeaderStamps {
    Bounded(Stamps),
    Local(NodeClock),
}

impl StampSource for LeaderStamps {
    fn next_stamp(&self) -> u64 {
        match self {
            Self::Bounded(stamps) => stamps.now(),
            Self::Local(clock) => clock.log_ms(),
        }
    }
}

/// Runs a node until its process ends.
pub async fn run(world: Arc<World>, node: usize) -> turmoil::Result {
    world.note(format_args!("node {node} starts"));
    if let Err(error) = serve(&world, node).await {
        let machine = &world.machines[node];
        world.note(format_args!("node {node} ends: {error}"));
        if !machine.is_faulty.load(Ordering::Relaxed) {
            world.violate(format!("node {node} ends, and its disk has done nothing wrong: {error}"));
        }
    }
    world.note(format_args!("node {node} has ended"));
    Ok(())
}

type Ended = Box<dyn std::error::Error>;

async fn serve(world: &Arc<World>, node: usize) -> Result<(), Ended> {
    let fs = world.file_system(node);
    let options = LogOptions {
        segment_bytes: 128 << 10,
        recent_bytes_max: 32 << 10,
        salt: node as u64 + 77,
        idle_mark_after: Duration::from_millis(10),
        ..LogOptions::default()
    };
    let data_dir = Path::new("/").join(name_of(node));
    let (log, recovered) = open_log(fs.clone(), data_dir.join("log"), options).await??;
    world.note(format_args!("node {node} recovered {recovered:?}"));
    broken::forget_votes(world, node, &log)?;
    let wire = Wire::start(world.clone(), node, service(world, node)).await?;
    let (mut replicas, fills) = (Vec::new(), Fills::default());
    for partition in (0..PARTITIONS).map(PartitionId) {
        let group = GroupId(u32::from(partition.0) + 1);
        let dir = group_dir(&data_dir, group);
        let directory = GroupDirectory { fs: fs.clone(), dir, pace: Arc::new(|_| {}), fills: fills.clone() };
        match open(world, node, partition, log.clone(), directory, &wire).await {
            Ok(replica) => {
                let replica = Arc::new(replica);
                lock(&world.replicas).insert((node, partition), replica.clone());
                tokio::spawn(keep_up(world.clone(), node, replica.clone()));
                tokio::spawn(broken::trim_early(world.clone(), replica.clone()));
                replicas.push(replica);
            }
            Err(OpenError::Log(LogStoreError::Log(error @ LogError::Quarantined { .. })))
                if world.machines[node].is_rotten.load(Ordering::Relaxed) =>
            {
                world.note(format_args!("node {node}: partition {} is quarantined: {error}", partition.0));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let stopped = replicas.iter().map(|replica| {
        let replica = replica.clone();
        let stopped: BoxFuture<'static, String> =
            Box::pin(async move { replica.stopped().await.to_string() });
        stopped
    });
    let never: BoxFuture<'static, String> = Box::pin(std::future::pending());
    let (reason, ..) = select_all(stopped.chain([never])).await;
    Err(reason.into())
}

async fn open(
    world: &Arc<World>,
    node: usize,
    partition: PartitionId,
    log: Log,
    directory: GroupDirectory,
    wire: &Arc<Wire>,
) -> Result<Replica, OpenError> {
    let members: BTreeMap<_, _> =
        (1..=NODES as u64).map(|id| (ReplicaId(id), ReplicaAddress(format!("node:{id}")))).collect();
    let spec = GroupSpec {
        group: GroupId(u32::from(partition.0) + 1),
        replica: ReplicaId(node as u64 + 1),
        members,
        formation: Formation::New,
    };
    let clock = || NodeClock::new(world, node);
    let stamps = if world.breaks(Control::LocalTtl) {
        LeaderStamps::Local(clock())
    } else {
        LeaderStamps::Bounded(Stamps::new(Arc::new(clock()), 0))
    };
    let encoder = {
        let world = world.clone();
        move |stamp_ms: u64, commands: &[Bytes]| {
            encode_batch(Stamp(stamp_ms), &broken::without_sessions(&world, stamp_ms, commands))
        }
    };
    let means = Means {
        partitions: PARTITIONS,
        raft: RaftSettings { message_entries_max: 16, ..RaftSettings::default() },
        peers: Arc::new(Peers(Arc::downgrade(wire))),
        streams: Arc::new(Streams::new(Arc::downgrade(wire))),
        clock: Arc::new(clock()),
        encoder,
        stamps,
        journal_events_max: 1 << 20,
    };
    Replica::open(partition, log, spec, directory, means).await
}

/// Does the work on files, and takes snapshots, now and then.
async fn keep_up(world: Arc<World>, node: usize, replica: Arc<Replica>) {
    loop {
        tokio::time::sleep(Duration::from_millis(1_500 + world.draw(5_000))).await;
        match replica.keep_up(&FILES).await {
            Ok(()) => world.note(format_args!("node {node} took a snapshot")),
            Err(FileError::Stopped) => return,
            Err(error) if error.is_full() => {}
            Err(error) if world.machines[node].is_faulty.load(Ordering::Relaxed) => {
                world.note(format_args!("node {node} could not take a snapshot: {error}"));
            }
            Err(error) => return world.violate(format!("node {node} could not take a snapshot: {error}")),
        }
    }
}

/// What a node does with requests.
fn service(world: &Arc<World>, node: usize) -> Service {
    let world = world.clone();
    Arc::new(move |request| {
        let world = world.clone();
        Box::pin(async move { answer(&world, node, request).await.unwrap_or(Answer::Refused) })
    })
}

async fn answer(world: &Arc<World>, node: usize, request: Request) -> Option<Answer> {
    match request {
        Request::Raft { group, target, kind, body, .. } => {
            let replica = world.replica(node, PartitionId(group.0 as u16 - 1))?;
            if target.0 != node as u64 + 1 {
                return None;
            }
            replica.endpoint().handle(kind, body).await.ok().map(Answer::Raft)
        }
        Request::Stream { destination, message } => {
            let replica = world.replica(node, destination)?;
            if !replica.metrics().is_leader {
                return None;
            }
            let message = broken::stream_message(world, &replica, destination, message);
            Some(Answer::Stream(replica.receive(message).await))
        }
        Request::Propose { partition, command } => propose(world, node, partition, &command).await,
        Request::Timeline { partition, owner } => {
            let replica = world.replica(node, partition)?;
            replica.confirm().await.ok()?;
            let read = replica.read(|state| state.timeline(SPACE, owner, EntryId::MAX, 10_000).entries);
            Some(Answer::Timeline(broken::hide_by_clock(world, node, damaged(world, node, read)?)))
        }
    }
}

async fn propose(
    world: &Arc<World>,
    node: usize,
    partition: PartitionId,
    command: &Command,
) -> Option<Answer> {
    let proposed = world.replica(node, partition)?.propose(command).await;
    if let Err(NodeError::Damaged { .. }) = proposed {
        return damaged(world, node, proposed.map(|(_, outcome)| Answer::Proposed(outcome)));
    }
    proposed.ok().map(|(_, outcome)| Answer::Proposed(outcome))
}

/// A partition is never damaged by what was committed.
fn damaged<T>(world: &World, node: usize, read: Result<T, NodeError>) -> Option<T> {
    if let Err(NodeError::Damaged { partition, .. }) = &read {
        world.violate(format!("partition {} is damaged on node {node}", partition.0));
    }
    read.ok()
}
