//! Owns the way from a decoded request to its answer.
//!
//! - A request is checked against the connection's limits before the node sees it.
//! - Every request has a deadline; one that passes it is answered so, and a write may still take effect then.

mod admin;
mod cluster;
mod reads;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use fanfold_cluster::NodeError;
use fanfold_cluster::phases::{Noted, RequestPhase};
use fanfold_protocol::ids::RequestId;
use fanfold_protocol::message::{Request, Response};
use fanfold_protocol::{Reply, Status};
use tokio::time::Instant;

pub(crate) use reads::{feed_request, page_bytes};

use crate::config::ms;
use crate::listener::Shared;
use crate::metrics::Tally;
use crate::names::{RequestKind, status_name};
use crate::translate::{Refused, error_to_status};

/// What a client is told to wait when the node has too many bytes in flight.
pub(crate) const BUSY_DELAY_MS: u32 = 20;

/// What is known of a request besides what it asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) kind: RequestKind,
    pub(crate) opcode: u16,
    pub(crate) id: RequestId,
    pub(crate) received: Instant,
}

/// Where the time of a request went, as far as is known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) phases: Noted,
    /// Partition and index of the Raft entry that a write was applied with; the line of a slow batch names them too.
    pub(crate) applied: Option<(u16, u64)>,
}

impl Spent {
    /// The line of a slow request: who and what for is not in it.
    fn log(&self, id: RequestId, kind: &str, took: Duration, refused: Option<&Status>) {
        let ms = |took: Duration| took.as_millis() as u64;
        let (merge_ms, hydrate_ms) =
            (self.phases.of(RequestPhase::Merge).map(ms), self.phases.of(RequestPhase::Hydrate).map(ms));
        let (partition, index) = self.applied.unzip();
        let (took_ms, status) = (ms(took), refused.map_or("ok", status_name));
        tracing::warn!(
            request = id.0,
            kind,
            status,
            took_ms,
            merge_ms,
            hydrate_ms,
            partition,
            index,
            "slow request"
        );
    }
}

/// Counts an answered request, and logs it if it was slow or refused.
pub(crate) fn note(shared: &Shared, asked: &Asked, refused: Option<&Status>, spent: Spent) {
    let took = asked.received.elapsed();
    shared.metrics.answered(asked.kind, refused, took);
    log(shared, asked, took, refused, spent);
}

/// Requests that are answered at one moment, counted together when it is dropped: who answers many reads the clock once.
pub(crate) struct Answered<'s> {
    shared: &'s Shared,
    now: Instant,
    /// Those of the last kind that were answered well.
    kind: RequestKind,
    tally: Tally,
}

impl<'s> Answered<'s> {
    /// None yet, and now.
    pub(crate) fn now(shared: &'s Shared) -> Self {
        Self { shared, now: Instant::now(), kind: RequestKind::ReadFeed, tally: Tally::default() }
    }

    /// What [`note`] does, for one of them.
    pub(crate) fn note(&mut self, asked: &Asked, refused: Option<&Status>, spent: Spent) {
        let took = self.now.saturating_duration_since(asked.received);
        if refused.is_some() {
            self.shared.metrics.answered(asked.kind, refused, took);
        } else {
            if asked.kind != self.kind {
                self.count();
                self.kind = asked.kind;
            }
            self.tally.note(took);
        }
        log(self.shared, asked, took, refused, spent);
    }

    fn count(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        if tally.count() > 0 {
            self.shared.metrics.answered_together(self.kind, &tally);
        }
    }
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.count();
    }
}

fn log(shared: &Shared, asked: &Asked, took: Duration, refused: Option<&Status>, spent: Spent) {
    if took >= ms(shared.config.slow_request_ms) && !asked.kind.waits() {
        spent.log(asked.id, asked.kind.name(), took, refused);
    }
    let (id, kind) = (asked.id, asked.kind.name());
    match refused {
        // The client is told to look for the request's number here.
        Some(status @ Status::Internal) => tracing::warn!(request = id.0, kind, %status, "refused"),
        Some(status) => tracing::debug!(request = id.0, kind, %status, "refused"),
        None => {}
    }
}

/// Answers a request, which has passed its check.
pub(crate) async fn reply(shared: Arc<Shared>, request: Request) -> Reply {
    let shared = &shared;
    match request {
        Request::Write(write) => writes::write(shared, write).await,
        Request::OpenSession(open) => writes::open_session(shared, open).await,
        Request::CloseSession(close) => writes::close_session(shared, close).await,
        Request::WaitDelivered(wait) => writes::wait_delivered(shared, &wait).await,
        Request::ReadTimeline(read) => reads::timeline(shared, read).await,
        Request::ReadEntries(read) => reads::entries(shared, read).await,
        Request::ReadFeed(read) => reads::feed(shared, read).await,
        Request::ReadFeeds(read) => reads::feeds(shared, read).await,
        Request::GetCounts(get) => reads::counts(shared, get).await,
        Request::ScanFollowees(scan) => reads::followees(shared, scan).await,
        Request::ScanFollowers(scan) => reads::followers(shared, scan).await,
        Request::Explain(explain) => reads::explain(shared, explain).await,
        Request::Ping => Ok(Response::Pong),
        Request::GetMap => Ok(admin::map(shared)),
        Request::ListSpaces => Ok(admin::spaces(shared)),
        Request::CreateSpace(create) => admin::create_space(shared, create).await,
        Request::AlterSpace(alter) => admin::alter_space(shared, alter).await,
        Request::GetStatus => Ok(admin::status(shared)),
        Request::WaitDrained => admin::wait_drained(shared).await,
        Request::AcceptClock => Ok(admin::accept_clock(shared)),
        Request::StartJob(start) => admin::start_job(shared, start),
        Request::GetJob(job) => admin::job(shared.node.job(job)),
        Request::CancelJob(job) => admin::job(shared.node.cancel_job(job)),
        Request::GetCluster => Ok(cluster::view(shared)),
        Request::ChangeCluster(change) => cluster::change(shared, change).await,
        Request::InitCluster(_) => cluster::init(),
        Request::GetHot(get) => Ok(cluster::hot(shared, get)),
        Request::PauseFanOut(pause) => cluster::pause(shared, pause).await,
        Request::ListPaused => cluster::paused(shared),
    }
}

/// The status of a write that was not proposed.
pub(crate) fn failed_write(shared: &Shared, error: NodeError) -> Status {
    status(shared, error, true)
}

/// The status of a failed read or admin call.
fn failed(shared: &Shared, error: NodeError) -> Status {
    status(shared, error, false)
}

fn status(shared: &Shared, error: NodeError, wrote: bool) -> Status {
    let spaces = shared.node.spaces();
    error_to_status(error, &Refused { spaces: &spaces, ttls_ms: &[], expiry: false }, wrote)
}
