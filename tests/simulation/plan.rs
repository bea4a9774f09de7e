//! Owns what a run is: its seed, how long it takes, which faults there are, and what is broken on purpose.

use std::fmt;
use std::str::FromStr;

use crate::whole;

/// Nodes of the cluster.
pub const NODES: usize = 3;

/// Partitions of the cluster.
pub const PARTITIONS: u16 = 2;

/// How far the stamps may be from the simulation's time: the clocks' skew and the margin of R2, and what a read or a
/// write takes beside its own time.
pub const SLACK_MS: u64 = 3_000;

/// The longest time to live that is written.
pub const TTL_MAX_MS: u64 = 12_000;

/// Something that is broken on purpose: a negative control, which the simulation has to notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// One node's disk answers syncs without doing them.
    NoFsync,
    /// One node comes back with the vote that it had when it started before.
    VotesNotSaved,
    /// Repeated requests are new ones.
    SessionsOff,
    /// Stamps are the leader's wall clock as it is.
    LocalTtl,
    /// One node's log is cut at the first checksum error.
    TruncateOnDamage,
    /// The journal is trimmed before anybody has applied what goes.
    EarlyTrim,
    /// A stream message is applied whatever its predecessor was.
    StreamGaps,
    /// The answer to an old subscription counts for the current one.
    GenerationsIgnored,
    /// Reads hide what has expired by the clock of whoever answers.
    ReadsByLocalClock,
}

impl Control {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::NoFsync,
        Self::VotesNotSaved,
        Self::SessionsOff,
        Self::LocalTtl,
        Self::TruncateOnDamage,
        Self::EarlyTrim,
        Self::StreamGaps,
        Self::GenerationsIgnored,
        Self::ReadsByLocalClock,
    ];
}

impl FromStr for Weather {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|weather| format!("{weather:?}").eq_ignore_ascii_case(name));
        found.ok_or_else(|| format!("there is no weather {name}"))
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoFsync => "no-fsync",
            Self::VotesNotSaved => "votes-not-saved",
            Self::SessionsOff => "sessions-off",
            Self::LocalTtl => "local-ttl",
            Self::TruncateOnDamage => "truncate-on-damage",
            Self::EarlyTrim => "early-trim",
            Self::StreamGaps => "stream-gaps",
            Self::GenerationsIgnored => "generations-ignored",
            Self::ReadsByLocalClock => "reads-by-local-clock",
        })
    }
}

impl FromStr for Control {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|control| control.to_string() == name);
        found.ok_or_else(|| format!("there is no control {name}"))
    }
}

/// Which faults come more often than others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// All kinds.
    Mixed,
    /// Loss of power, of all nodes too, and leaders cut off.
    Power,
    /// A leader is cut off, the node that stays with the next one loses its power, and comes back with the old leader.
    Elections,
    /// Clocks jump.
    Clocks,
    /// Bits of one node's log flip while it is down.
    Rot,
    /// Messages of streams are lost and late.
    Streams,
}

impl Weather {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Mixed, Self::Power, Self::Elections, Self::Clocks, Self::Rot, Self::Streams];

    /// What shows a control best.
    pub fn of(control: Control) -> Self {
        match control {
            Control::SessionsOff => Self::Mixed,
            Control::NoFsync => Self::Power,
            Control::VotesNotSaved => Self::Elections,
            Control::LocalTtl | Control::ReadsByLocalClock => Self::Clocks,
            Control::TruncateOnDamage => Self::Rot,
            Control::EarlyTrim | Control::StreamGaps | Control::GenerationsIgnored => Self::Streams,
        }
    }
}

/// What a run is.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Everything follows from it.
    pub seed: u64,
    /// What is broken on purpose.
    pub control: Option<Control>,
    /// Which faults there are.
    pub weather: Weather,
    /// The simulated time in which all is to be done.
    pub length_ms: u64,
    /// Whether the nodes are whole ones, instead of a log with a replica of each partition.
    pub is_whole: bool,
    /// Whether events are printed.
    pub is_traced: bool,
}

impl Plan {
    /// The run of a seed. Every other seed has all kinds of faults, the others one of the kinds; every fourth has whole nodes.
    pub fn new(seed: u64, control: Option<Control>) -> Self {
        let kinds = Weather::ALL.len() as u64;
        let weather = match control {
            Some(control) => Weather::of(control),
            None if seed.is_multiple_of(2) => Weather::Mixed,
            None => Weather::ALL[(seed / 2 % kinds) as usize],
        };
        Self {
            seed,
            control,
            weather,
            length_ms: 60_000,
            is_whole: control.is_none() && seed.is_multiple_of(4),
            is_traced: false,
        }
    }

    /// When the first fault may come: whole nodes form their cluster before.
    pub fn first_fault_ms(&self) -> u64 {
        if self.is_whole { whole::FORMING.as_millis() as u64 } else { 2_000 }
    }

    /// When the faults end.
    pub fn heal_ms(&self) -> u64 {
        self.length_ms * 6 / 10
    }

    /// When everything with a time to live has expired, and the run may end.
    pub fn end_ms(&self) -> u64 {
        self.length_ms.max(self.last_write_ms() + TTL_MAX_MS + SLACK_MS)
    }

    /// When the last write begins.
    pub fn last_write_ms(&self) -> u64 {
        self.heal_ms() + 2_000
    }
}
