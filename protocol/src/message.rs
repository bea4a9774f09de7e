//! Owns the requests and their answers: one file per group, one enum for each direction.

mod admin;
mod change;
mod check;
mod cluster;
mod codec;
mod explain;
mod graph;
mod hot;
mod import;
mod job;
mod map;
mod page;
mod read;
mod session;
mod space;
mod write;
mod written;

pub use admin::{
    KeptLog, LogStatus, MemoryBudget, MemoryPart, MemoryState, MemoryUse, NodeStatus, PartitionStatus,
    ProcessMemory, StreamStatus,
};
pub use change::{
    CHANGE_LOSSES_MAX, CHANGE_STEPS_MAX, ChangeCluster, ChangeLoss, ChangeRefusal, ChangeStep, ClusterChange,
    ClusterChanged, InitCluster,
};
pub use check::{
    ADDRESS_BYTES_MAX, FEED_CAP_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, REPAIR_AFTER_MS_MAX, REPAIR_AFTER_MS_MIN,
    REPLICAS_MAX, SPACE_PAYLOAD_BYTES_MAX, TTL_MS_MAX,
};
pub use cluster::{
    ClusterNode, ClusterSettings, ClusterView, GroupHealth, GroupName, GroupView, NodeState, ReplicaRole,
    ReplicaView,
};
pub use explain::{Explain, Explanation, Reason};
pub use graph::{Counts, Edge, EdgePage, GetCounts, PAGE_USERS_MAX, ScanEdges};
pub use hot::{GetHot, HOT_USERS_MAX, Hot, HotBy, HotList, PAUSED_MAX, PauseFanOut};
pub use import::{
    IMPORT_EDGES_MAX, IMPORT_ENTRIES_MAX, ImportEdge, ImportEntry, ImportExpiry, ImportFollows, ImportPlace,
};
pub use job::{
    JOB_FINDINGS_MAX, JOB_PATH_BYTES_MAX, JobFinding, JobKind, JobPhase, JobState, JobStatus, StartJob,
};
pub use map::{Map, NodeAddress};
pub(crate) use page::PageSeals;
pub use page::{
    Budget, EntryParts, EntryView, PAGE_ENTRIES_MAX, Page, ReferenceState, ReferenceView, ShortReason,
};
pub use read::{
    Consistency, READ_ENTRIES_MAX, READ_FEEDS_MAX, ReadEntries, ReadFeed, ReadFeeds, ReadTimeline,
    WaitDelivered,
};
pub use session::{CloseSession, OpenSession, WriteTag};
pub use space::{AlterSpace, CreateSpace, FanOut, SpaceChanges, SpaceInfo, SpacePolicy};
pub use write::{
    APPEND_ITEMS_MAX, Amend, AppendItem, Audience, Edges, EntryName, EntryRef, ExpiryChoice, SetExpiry,
    Targets, TtlChoice, Write, WriteOp,
};
pub use written::{AppendOutcome, WriteResult, Written};

use crate::ids::{SessionId, UserId};
use crate::status::Status;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Answered with `Pong`.
    Ping,
    /// Answered with `Map`.
    GetMap,
    /// Answered with `Spaces`.
    ListSpaces,
    /// Answered with `Space`.
    CreateSpace(CreateSpace),
    /// Answered with `Space`.
    AlterSpace(AlterSpace),
    /// Answered with `SessionOpened`.
    OpenSession(OpenSession),
    /// Answered with `Done`.
    CloseSession(CloseSession),
    /// Answered with `Written`.
    Write(Write),
    /// Answered with `Done`.
    WaitDelivered(WaitDelivered),
    /// Answered with `Page`.
    ReadTimeline(ReadTimeline),
    /// Answered with `Entries`.
    ReadEntries(ReadEntries),
    /// Answered with `Page`.
    ReadFeed(ReadFeed),
    /// Answered with `Pages`.
    ReadFeeds(ReadFeeds),
    /// Answered with `Counts`.
    GetCounts(GetCounts),
    /// Scans the owners whom a reader follows; answered with `Edges`.
    ScanFollowees(ScanEdges),
    /// Scans the readers who follow an owner; answered with `Edges`.
    ScanFollowers(ScanEdges),
    /// Answered with `Explanation`.
    Explain(Explain),
    /// Answered with `NodeStatus`.
    GetStatus,
    /// Waits until the fan-out of every partition of the node has drained; answered with `Done`.
    WaitDrained,
    /// Accepts the wall clock after a jump (R2); answered with `Done`.
    AcceptClock,
    /// Answered with `Job`.
    StartJob(StartJob),
    /// Asks for the job of that number; answered with `Job`.
    GetJob(u64),
    /// Ends the job of that number soon; answered with `Job`.
    CancelJob(u64),
    /// Answered with `Cluster`.
    GetCluster,
    /// Answered with `ClusterChanged`.
    ChangeCluster(ChangeCluster),
    /// Answered with `Done` once the node has founded the cluster.
    InitCluster(InitCluster),
    /// Answered with `Hot`.
    GetHot(GetHot),
    /// Answered with `Done`.
    PauseFanOut(PauseFanOut),
    /// Answered with `Paused`.
    ListPaused,
}

impl Request {
    /// Whether the answer comes only when something has happened that may take long.
    pub fn waits(&self) -> bool {
        matches!(self, Self::WaitDelivered(_) | Self::WaitDrained)
    }
}

/// What a server answers when it does not refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// To `Ping`.
    Pong,
    /// To requests that have nothing else to say.
    Done,
    /// To `GetMap`.
    Map(Map),
    /// To `ListSpaces`.
    Spaces(Vec<SpaceInfo>),
    /// To `CreateSpace` and `AlterSpace`.
    Space(SpaceInfo),
    /// To `OpenSession`.
    SessionOpened(SessionId),
    /// To `Write`.
    Written(Written),
    /// To `ReadTimeline` and `ReadFeed`.
    Page(Page),
    /// To `ReadEntries`, in the order asked; `None` where there is no such entry for the viewer.
    Entries(Vec<Option<EntryView>>),
    /// To `ReadFeeds`, in the order asked.
    Pages(Vec<Result<Page, Status>>),
    /// To `GetCounts`.
    Counts(Counts),
    /// To `ScanFollowees` and `ScanFollowers`.
    Edges(EdgePage),
    /// To `Explain`.
    Explanation(Explanation),
    /// To `GetStatus`.
    NodeStatus(NodeStatus),
    /// To `StartJob`, `GetJob` and `CancelJob`.
    Job(JobStatus),
    /// To `GetCluster`.
    Cluster(ClusterView),
    /// To `ChangeCluster`.
    ClusterChanged(ClusterChanged),
    /// To `GetHot`.
    Hot(HotList),
    /// To `ListPaused`: the owners homed in partitions that the node leads.
    Paused(Vec<UserId>),
}
