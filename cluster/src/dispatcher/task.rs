//! Owns the task that dispatches one partition's journal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::command::Command;
use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::{JournalPosition, PartitionId};
use fanfold_storage::partition::{Partition, StreamVerdict};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::destination::Destination;
use super::transport::{StreamError, StreamTransport};
use crate::error::NodeError;
use crate::partition::{PartitionHandle, Progress};

/// Delivered events that are trimmed at once.
const TRIM_EVENTS: u64 = 1_024;

/// How long delivered events wait to be trimmed while fewer than [`TRIM_EVENTS`] gather.
const TRIM_AFTER: Duration = Duration::from_millis(50);

/// How long a message may be under way before it counts as lost.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of a dispatcher.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DispatcherSettings {
    /// Events a journal keeps for a destination that does not answer (R10).
    pub journal_events_max: usize,
}

/// Dispatches one partition's journal.
pub(crate) struct Dispatcher {
    partition: Arc<PartitionHandle>,
    transport: Arc<dyn StreamTransport>,
    settings: DispatcherSettings,
    destinations: BTreeMap<PartitionId, Destination>,
    under_way: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// The term in which this replica leads; none if it does not.
    led: Option<u64>,
    /// Whether a trim is under way.
    is_trimming: bool,
    /// When what is delivered is trimmed even though it is little.
    trim_at: Option<Instant>,
}

/// Something that was under way and is done.
enum Finished {
    /// A message was answered, or not.
    Sent {
        destination: PartitionId,
        last: Option<JournalPosition>,
        result: Result<StreamAnswer, StreamError>,
    },
    /// A stream began anew, or not.
    Resumed { destination: PartitionId, result: Result<(), NodeError> },
    /// A destination was dropped, or not.
    Dropped { destination: PartitionId },
    /// The journal was trimmed, or not.
    Trimmed,
}

/// What one look at the journal found to do.
struct Look {
    messages: Vec<(PartitionId, StreamMessage)>,
    journal_len: usize,
    journal_next: JournalPosition,
    incarnation: u64,
    applied: u64,
}

impl Dispatcher {
    /// The dispatcher of `partition`, which sends over `transport`.
    pub fn new(
        partition: Arc<PartitionHandle>,
        transport: Arc<dyn StreamTransport>,
        settings: DispatcherSettings,
    ) -> Self {
        Self {
            partition,
            transport,
            settings,
            destinations: BTreeMap::new(),
            under_way: FuturesUnordered::new(),
            led: None,
            is_trimming: false,
            trim_at: None,
        }
    }

    /// Runs until it is stopped. While the partition is damaged here, nothing is sent.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut applied = self.partition.group().watch_applied();
        let mut leadership = self.partition.group().watch_leadership();
        self.lead(leadership.led());
        loop {
            applied.borrow_and_update();
            let mut wake = None;
            if self.led.is_some()
                && let Ok(look) = self.look()
            {
                self.partition.note_incarnation(look.incarnation);
                self.publish(&look);
                self.send(look.messages);
                self.drop_silent(look.journal_len);
                self.trim(look.journal_next, look.journal_len);
                let retries = self.destinations.values().filter_map(Destination::retry_at);
                wake = retries.chain(self.trim_at).min();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                goes_on = leadership.changed() => {
                    if !goes_on { return }
                    self.lead(leadership.led());
                }
                Some(finished) = self.under_way.next() => {
                    self.finish(&finished);
                    while let Some(Some(finished)) = futures_util::FutureExt::now_or_never(self.under_way.next()) {
                        self.finish(&finished);
                    }
                }
                changed = applied.changed() => if changed.is_err() { return },
                () = wait_until(wake) => {}
            }
        }
    }

    /// Takes note of whether this replica leads. What a leader knows of its streams is lost with its term: another one may
    /// have begun them anew since, so the next asks where they stand. What is under way may arrive all the same.
    fn lead(&mut self, led: Option<u64>) {
        if led == self.led {
            return;
        }
        self.led = led;
        self.destinations.clear();
        self.under_way = FuturesUnordered::new();
        (self.is_trimming, self.trim_at) = (false, None);
        self.partition.progress().send_replace(Progress::default());
    }

    /// Looks at the journal once for all destinations.
    fn look(&mut self) -> Result<Look, NodeError> {
        let now = Instant::now();
        let destinations = &mut self.destinations;
        self.partition.read(|state: &Partition| {
            for id in state.destinations() {
                destinations.entry(id).or_default();
            }
            let messages =
                destinations.iter_mut().filter_map(|(id, d)| Some((*id, d.next(*id, state, now)?)));
            Look {
                messages: messages.collect(),
                journal_len: state.journal_len(),
                journal_next: state.journal_next(),
                incarnation: state.incarnation(),
                applied: state.applied(),
            }
        })
    }

    fn send(&mut self, messages: Vec<(PartitionId, StreamMessage)>) {
        for (destination, message) in messages {
            let last = message.events.last().map(|(position, _)| *position);
            self.destination(destination).begin(last);
            let answer = self.transport.send(destination, message);
            self.under_way.push(Box::pin(async move {
                let answered = tokio::time::timeout(SEND_TIMEOUT, answer).await;
                let result = answered.unwrap_or(Err(StreamError::Unavailable { destination }));
                Finished::Sent { destination, last, result }
            }));
        }
    }

    fn finish(&mut self, finished: &Finished) {
        let now = Instant::now();
        match finished {
            Finished::Sent { destination, last, .. } if !self.destination(*destination).end(*last) => {}
            Finished::Sent { destination, last, result } => match result {
                Ok(answer) => self.answered(*destination, *last, answer),
                Err(error) => {
                    let source = self.partition.id().0;
                    tracing::debug!(source, destination = destination.0, %error, "a stream message was not answered");
                    self.destination(*destination).fail(now);
                }
            },
            Finished::Resumed { destination, result: Ok(()) } => {
                tracing::warn!(
                    source = self.partition.id().0,
                    destination = destination.0,
                    "a stream began anew; its subscriptions are renewed"
                );
                self.destination(*destination).reset();
            }
            // One that was dropped is asked where it stands after the usual delay, and resumed when it answers.
            Finished::Resumed { destination, result: Err(_) } | Finished::Dropped { destination } => {
                self.destination(*destination).fail(now);
            }
            Finished::Trimmed => self.is_trimming = false,
        }
    }

    fn destination(&mut self, id: PartitionId) -> &mut Destination {
        self.destinations.entry(id).or_default()
    }

    /// Goes on from where the destination says the stream stands, or begins the stream anew.
    fn answered(&mut self, id: PartitionId, sent: Option<JournalPosition>, answer: &StreamAnswer) {
        let Ok(verdict) = self.partition.read(|state| state.stream_verdict(id, answer)) else { return };
        match verdict {
            StreamVerdict::SendAfter(position) => {
                self.destination(id).acknowledge(position, sent, Instant::now());
            }
            StreamVerdict::Resume { incarnation } => {
                self.destination(id).hold();
                let partition = self.partition.clone();
                self.under_way.push(Box::pin(async move {
                    let command = Command::ResumeDestination { destination: id, incarnation };
                    let result = partition.propose(&command).await.map(|_| ());
                    Finished::Resumed { destination: id, result }
                }));
            }
        }
    }

    /// Tells those who wait how far the journal has been delivered.
    fn publish(&self, look: &Look) {
        let considered = JournalPosition(look.journal_next.0.saturating_sub(1));
        let streams: BTreeMap<_, _> = self.destinations.iter().map(|(id, d)| (*id, d.progress())).collect();
        let settled = streams.values().all(|stream| stream.is_settled);
        let delivered = streams.values().map(|stream| stream.delivered).min().unwrap_or(considered);
        self.partition.progress().send_if_modified(|progress| {
            // While a stream waits for its reset, nothing new counts as delivered everywhere.
            let delivered = if settled { delivered.min(considered) } else { progress.delivered };
            let new = Progress { is_leading: true, looked_at: look.applied, considered, delivered, streams };
            let changed = *progress != new;
            *progress = new;
            changed
        });
    }

    /// Drops the destination that holds the journal up most, if the journal passes its limit and it does not answer.
    fn drop_silent(&mut self, journal_len: usize) {
        if journal_len <= self.settings.journal_events_max {
            return;
        }
        let silent = self.destinations.iter().filter(|(_, d)| d.is_silent() && d.retry_at().is_some());
        let Some(id) = silent.min_by_key(|(_, d)| d.holds()).map(|(id, _)| *id) else { return };
        tracing::warn!(
            source = self.partition.id().0,
            destination = id.0,
            journal_len,
            "the journal passes its limit for a destination that does not answer; its stream begins anew later"
        );
        self.destination(id).hold();
        let partition = self.partition.clone();
        self.under_way.push(Box::pin(async move {
            if let Err(error) = partition.propose(&Command::DropDestination { destination: id }).await {
                tracing::debug!(%error, "dropping a destination failed");
            }
            Finished::Dropped { destination: id }
        }));
    }

    /// Trims what every destination has applied, once it is worth an entry of the log.
    fn trim(&mut self, journal_next: JournalPosition, journal_len: usize) {
        let first = journal_next.0 - journal_len as u64;
        let last = JournalPosition(journal_next.0.saturating_sub(1));
        let held = self.destinations.values().filter_map(Destination::holds).min();
        let through = held.unwrap_or(last).min(last);
        let trimmable = (through.0 + 1).saturating_sub(first);
        if self.is_trimming || trimmable == 0 {
            self.trim_at = None;
            return;
        }
        let now = Instant::now();
        let at = *self.trim_at.get_or_insert(now + TRIM_AFTER);
        if trimmable < TRIM_EVENTS && at > now {
            return;
        }
        (self.is_trimming, self.trim_at) = (true, None);
        let partition = self.partition.clone();
        self.under_way.push(Box::pin(async move {
            if let Err(error) = partition.propose(&Command::Trim { through }).await {
                tracing::debug!(%error, "trimming the journal failed");
            }
            Finished::Trimmed
        }));
    }
}

/// Waits until a moment; for ever, if there is none.
async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
