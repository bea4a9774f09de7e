//! Owns how far a long piece of work has come: its progress, its pace, and the wish to end it.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use crate::pacer::Pacer;

/// What a long piece of work is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Phase {
    /// It looks at what there is to do.
    #[default]
    Begins = 1,
    /// Every group takes a snapshot.
    Snapshots = 2,
    /// The files of the groups are read, linked or copied.
    Groups = 3,
    /// The log is read or copied.
    Log = 4,
}

/// How far a piece of work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What it is at.
    pub phase: Phase,
    /// Bytes that are done.
    pub done_bytes: u64,
    /// Bytes that there are, as far as is known.
    pub total_bytes: u64,
}

/// Somebody wished the work to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was cancelled")]
pub struct Cancelled;

/// Shared by who works and who watches.
#[derive(Debug)]
pub struct Meter {
    phase: AtomicU8,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    is_cancelled: AtomicBool,
    was_let_go: AtomicBool,
    pacer: Pacer,
}

impl Meter {
    /// For work at so many bytes a second; none: as fast as it goes.
    pub fn new(bytes_per_second: Option<u64>) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Begins as u8),
            done_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            is_cancelled: AtomicBool::new(false),
            was_let_go: AtomicBool::new(false),
            pacer: Pacer::new(bytes_per_second.unwrap_or(u64::MAX)),
        }
    }

    /// How far the work has come.
    pub fn progress(&self) -> Progress {
        let phase = match self.phase.load(Ordering::Relaxed) {
            2 => Phase::Snapshots,
            3 => Phase::Groups,
            4 => Phase::Log,
            _ => Phase::Begins,
        };
        let done_bytes = self.done_bytes.load(Ordering::Relaxed);
        Progress { phase, done_bytes, total_bytes: self.total_bytes.load(Ordering::Relaxed).max(done_bytes) }
    }

    /// Ends the work soon.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.pacer.stop();
    }

    /// Ends the work soon, because what it reads is not kept for it any more.
    pub(crate) fn let_go(&self) {
        self.was_let_go.store(true, Ordering::Relaxed);
        self.cancel();
    }

    /// Whether it was ended so.
    pub(crate) fn was_let_go(&self) -> bool {
        self.was_let_go.load(Ordering::Relaxed)
    }

    /// Whether it goes on.
    ///
    /// # Errors
    /// It was cancelled.
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled.load(Ordering::Relaxed) { Err(Cancelled) } else { Ok(()) }
    }

    /// The work is at something else now.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// So many bytes are to be done, besides what was known.
    pub(crate) fn expect(&self, bytes: u64) {
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Like [`Meter::take`], with an error when the work is to end.
    pub(crate) fn take_or_end(&self, bytes: u64) -> io::Result<()> {
        self.take(bytes);
        self.check().map_err(|cancelled| io::Error::new(io::ErrorKind::Interrupted, cancelled))
    }

    /// Waits until so many more bytes may be done, and counts them.
    pub(crate) fn take(&self, bytes: u64) {
        self.pacer.take(bytes);
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
