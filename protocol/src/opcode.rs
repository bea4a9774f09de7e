//! Owns the opcodes. Numbers are never reused.

/// What a frame asks or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum Opcode {
    /// Asks for a sign of life.
    Ping = 1,
    /// Many requests or many answers in one frame.
    Batch = 2,
    /// Asks for the map.
    GetMap = 3,
    /// Lists spaces.
    ListSpaces = 16,
    /// Makes a space.
    CreateSpace = 17,
    /// Changes a space.
    AlterSpace = 18,
    /// Opens a session.
    OpenSession = 32,
    /// Closes a session.
    CloseSession = 33,
    /// Changes data.
    Write = 34,
    /// Waits until a write has reached everybody.
    WaitDelivered = 35,
    /// Reads a timeline.
    ReadTimeline = 48,
    /// Reads entries by id.
    ReadEntries = 49,
    /// Reads a feed.
    ReadFeed = 50,
    /// Reads many feeds.
    ReadFeeds = 51,
    /// Explains an entry's absence or presence.
    Explain = 52,
    /// Counts edges.
    GetCounts = 64,
    /// Scans followees.
    ScanFollowees = 65,
    /// Scans followers.
    ScanFollowers = 66,
    /// Asks for a node's status.
    GetStatus = 80,
    /// Waits until the fan-out has drained.
    WaitDrained = 81,
    /// Accepts the wall clock after a jump.
    AcceptClock = 82,
    /// Starts a job.
    StartJob = 83,
    /// Asks how a job is.
    GetJob = 84,
    /// Ends a job.
    CancelJob = 85,
    /// Asks for the view of the cluster.
    GetCluster = 86,
    /// Changes the cluster.
    ChangeCluster = 87,
    /// Founds a cluster.
    InitCluster = 88,
    /// Asks what is hot.
    GetHot = 89,
    /// Pauses or resumes an owner's fan-out.
    PauseFanOut = 90,
    /// Lists the owners whose fan-out is paused.
    ListPaused = 91,
}

impl Opcode {
    /// Every opcode of this version.
    pub const ALL: [Self; 30] = [
        Self::Ping,
        Self::Batch,
        Self::GetMap,
        Self::ListSpaces,
        Self::CreateSpace,
        Self::AlterSpace,
        Self::OpenSession,
        Self::CloseSession,
        Self::Write,
        Self::WaitDelivered,
        Self::ReadTimeline,
        Self::ReadEntries,
        Self::ReadFeed,
        Self::ReadFeeds,
        Self::Explain,
        Self::GetCounts,
        Self::ScanFollowees,
        Self::ScanFollowers,
        Self::GetStatus,
        Self::WaitDrained,
        Self::AcceptClock,
        Self::StartJob,
        Self::GetJob,
        Self::CancelJob,
        Self::GetCluster,
        Self::ChangeCluster,
        Self::InitCluster,
        Self::GetHot,
        Self::PauseFanOut,
        Self::ListPaused,
    ];

    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// The opcode with this number, if this version knows it.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|opcode| opcode.code() == code)
    }
}
