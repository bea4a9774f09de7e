//! Owns what the hosts of a run share beside the network: disks and clocks, the replicas to look at, the model, and what
//! was found to be wrong.

use std::collections::BTreeMap;
use std::fmt::{Arguments, Display};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use std::time::Duration;

use bytes::Bytes;
use fanfold_cluster::clock::{Clock, LOG_EPOCH_UNIX_MS};
use fanfold_cluster::simulation::Replica;
use fanfold_cluster::{Node, NodeError};
use fanfold_storage::fs::{FaultFs, FileSystem};
use fanfold_storage::ids::{Generation, PartitionId, UserId};
use fanfold_storage::partition::Partition;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::disk::ForgetfulFs;
use crate::model::Model;
use crate::plan::{Control, NODES, Plan};
use crate::trace::Trace;
use crate::whole;
use crate::wire::{Table, name_of};

/// The wall clock at the beginning, in milliseconds of log time.
const START_MS: i64 = 840_000_000_000;

/// The node that a control breaks, if it breaks only one.
pub const BROKEN: usize = 1;

/// Everything that the hosts of a run share.
pub struct World {
    pub plan: Plan,
    trace: Trace,
    now_ms: AtomicU64,
    pub machines: [Machine; NODES],
    chance: Mutex<ChaCha8Rng>,
    pub table: Mutex<Table>,
    pub replicas: Mutex<BTreeMap<(usize, PartitionId), Arc<Replica>>>,
    /// Nodes that run, if they are whole ones.
    pub nodes: Mutex<BTreeMap<usize, Arc<Node>>>,
    /// The last generation of each subscription, for the control that ignores them.
    pub generations: Mutex<BTreeMap<(PartitionId, UserId), Generation>>,
    /// Messages of streams to a partition take so much longer.
    pub stream_delay_ms: [AtomicU64; 2],
    /// Of so many messages of streams one is lost; 0: none.
    pub stream_loss: AtomicU64,
    pub model: Mutex<Model>,
    violations: Mutex<Vec<String>>,
}

/// A node's disk and clock.
pub struct Machine {
    pub disk: Mutex<FaultFs>,
    /// How long a sync takes.
    pub sync_ms: AtomicU64,
    /// The wall clock's error.
    pub offset_ms: AtomicI64,
    /// Whether the disk was made to fail since the last start, so that errors are no surprise.
    pub is_faulty: AtomicBool,
    /// Whether bits of its log were flipped: groups may be quarantined from then on.
    pub is_rotten: AtomicBool,
    /// The votes found at the last start, by group.
    pub votes: Mutex<BTreeMap<u32, Bytes>>,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            trace: Trace::new(plan.is_traced),
            now_ms: AtomicU64::new(0),
            machines: std::array::from_fn(|_| Machine::new()),
            chance: Mutex::new(ChaCha8Rng::seed_from_u64(plan.seed)),
            table: Mutex::default(),
            replicas: Mutex::default(),
            nodes: Mutex::default(),
            generations: Mutex::default(),
            stream_delay_ms: Default::default(),
            stream_loss: AtomicU64::new(0),
            model: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    /// Whether this is broken on purpose.
    pub fn breaks(&self, control: Control) -> bool {
        self.plan.control == Some(control)
    }

    /// The simulation's time.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    /// Lets time pass.
    pub fn set_now_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    /// Notes an event in the trace.
    pub fn note(&self, event: Arguments<'_>) {
        self.trace.note(self.now_ms(), event);
    }

    /// The number of events so far and their hash.
    pub fn trace(&self) -> (u64, u64) {
        self.trace.summary()
    }

    /// A number below `below`, from the seed.
    pub fn draw(&self, below: u64) -> u64 {
        lock(&self.chance).random_range(0..below)
    }

    /// Whether something happens that happens once in so many times; never for 0.
    pub fn happens_once_in(&self, times: u64) -> bool {
        times > 0 && self.draw(times) == 0
    }

    /// Notes that something is wrong.
    pub fn violate(&self, what: impl Display) {
        self.note(format_args!("VIOLATION {what}"));
        lock(&self.violations).push(format!("{} ms: {what}", self.now_ms()));
    }

    /// What is wrong so far.
    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// A node's file system as its software sees it.
    pub fn file_system(&self, node: usize) -> Arc<dyn FileSystem> {
        let disk = lock(&self.machines[node].disk).clone();
        let forgets = node == BROKEN && self.breaks(Control::NoFsync);
        if forgets { Arc::new(ForgetfulFs(disk)) } else { Arc::new(disk) }
    }

    /// How long a node's disk takes for the next batch of the log in this directory.
    pub fn disk_time(&self, dir: &Path) -> Duration {
        let names = (0..NODES).map(|node| (node, name_of(node)));
        let node = names.into_iter().find(|(_, name)| dir.iter().any(|part| part == name.as_str()));
        let sync_ms = node.map_or(1, |(node, _)| self.machines[node].sync_ms.load(Ordering::Relaxed));
        Duration::from_millis(1 + self.draw(sync_ms))
    }

    /// A replica that runs.
    pub fn replica(&self, node: usize, partition: PartitionId) -> Option<Arc<Replica>> {
        lock(&self.replicas).get(&(node, partition)).cloned()
    }

    /// A replica that runs, of a whole node or by itself, to be looked at.
    pub fn standing(&self, node: usize, partition: PartitionId) -> Option<Standing> {
        if !self.plan.is_whole {
            return self.replica(node, partition).map(Standing::Alone);
        }
        let node = lock(&self.nodes).get(&node).cloned()?;
        let is_here = !matches!(node.read_partition(partition, |_| ()), Err(NodeError::NotLeader { .. }));
        is_here.then_some(Standing::Hosted(node, partition))
    }

    /// Forgets a node's replicas: its process has ended.
    pub fn forget_replicas(&self, node: usize) {
        let gone = lock(&self.nodes).remove(&node);
        drop(gone);
        let mut replicas = lock(&self.replicas);
        let (gone, kept): (BTreeMap<_, _>, _) =
            std::mem::take(&mut *replicas).into_iter().partition(|((of, _), _)| *of == node);
        *replicas = kept;
        drop(replicas);
        drop(gone);
    }
}

/// A replica of a partition, looked at from outside.
pub enum Standing {
    Alone(Arc<Replica>),
    Hosted(Arc<Node>, PartitionId),
}

impl Standing {
    /// Reads what is applied; an error if it is damaged.
    pub fn read<T>(&self, read: impl FnOnce(&Partition) -> T) -> Result<T, NodeError> {
        match self {
            Self::Alone(replica) => replica.read(read),
            Self::Hosted(node, partition) => node.read_partition(*partition, read),
        }
    }

    /// Whether it leads, as it says.
    pub fn leads(&self) -> bool {
        match self {
            Self::Alone(replica) => replica.metrics().is_leader,
            Self::Hosted(node, partition) => whole::leads(node, *partition),
        }
    }

    /// Whether it has applied all that is in its log, as far as can be seen.
    pub fn has_applied_all(&self) -> bool {
        match self {
            Self::Alone(replica) => {
                let metrics = replica.metrics();
                metrics.last_log_index == Some(metrics.applied_index)
            }
            Self::Hosted(..) => true,
        }
    }
}

impl Machine {
    fn new() -> Self {
        Self {
            disk: Mutex::default(),
            sync_ms: AtomicU64::new(1),
            offset_ms: AtomicI64::new(0),
            is_faulty: AtomicBool::new(false),
            is_rotten: AtomicBool::new(false),
            votes: Mutex::default(),
        }
    }
}

/// Locks what no panic can leave half done.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clocks of a node.
pub struct NodeClock {
    world: Arc<World>,
    node: usize,
}

impl NodeClock {
    /// The clocks of this node.
    pub fn new(world: &Arc<World>, node: usize) -> Self {
        Self { world: world.clone(), node }
    }

    /// The wall clock, in milliseconds of log time.
    pub fn log_ms(&self) -> u64 {
        let offset_ms = self.world.machines[self.node].offset_ms.load(Ordering::Relaxed);
        (START_MS + self.world.now_ms() as i64 + offset_ms) as u64
    }
}

impl std::fmt::Debug for NodeClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "clock of node {}", self.node)
    }
}

impl Clock for NodeClock {
    fn wall_unix_ms(&self) -> i64 {
        self.log_ms() as i64 + LOG_EPOCH_UNIX_MS
    }

    fn monotonic_ms(&self) -> u64 {
        self.world.now_ms()
    }
}
