//! Owns the way from a decoded request to its answer.
//!
//! - A request is checked against the connection's limits before the node sees it.
//! - Every request has a deadline; one that passes it is answered so, and a write may still take effect then.

mod admin;
mod reads;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use fanfold_cluster::NodeError;
use fanfold_protocol::call::Call;
use fanfold_protocol::frame::Frame;
use fanfold_protocol::ids::RequestId;
use fanfold_protocol::message::{Request, Response};
use fanfold_protocol::{Reply, Status};
use tokio::time::{Instant, timeout_at};

use crate::config::ms;
use crate::listener::Shared;
use crate::names::request_name;
use crate::translate::{Refused, error_to_status};

/// What a client is told to wait when the node has too many bytes in flight.
pub(crate) const BUSY_DELAY_MS: u32 = 20;

/// Answers a request; with `Busy` if it is a read and `has_room` says that there is none for the bytes of its answer.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    call: Call,
    opcode: u16,
    id: RequestId,
    received: Instant,
    has_room: impl FnOnce(usize) -> bool,
) -> Frame {
    // Only reads can be told to come again: what has taken effect is answered so, and its answer is small.
    let is_read = matches!(
        call.request,
        Request::ReadFeed(_) | Request::ReadFeeds(_) | Request::ReadTimeline(_) | Request::ReadEntries(_)
    );
    let kind = request_name(&call.request);
    let longest = ms(shared.config.request_timeout_ms);
    let wanted = call.deadline_ms.map_or(longest, |ms| Duration::from_millis(u64::from(ms)).min(longest));
    let reply = if let Err(status) = call.request.check(&shared.limits) {
        Err(status)
    } else {
        let replied = timeout_at(received + wanted, reply(shared, call.request)).await;
        replied.unwrap_or(Err(Status::DeadlineExceeded))
    };
    let reply = reply.map(|response| Frame::response(opcode, id, &response)).and_then(|frame| {
        let fits = has_room(frame.encoded_len()) || !is_read;
        if fits { Ok(frame) } else { Err(Status::Busy { delay_ms: BUSY_DELAY_MS }) }
    });
    let took = received.elapsed();
    shared.metrics.answered(kind, reply.as_ref().err(), took.as_secs_f64());
    if took >= ms(shared.config.slow_request_ms) && !kind.starts_with("wait") {
        tracing::warn!(request = id.0, kind, took_ms = took.as_millis() as u64, "slow request");
    }
    match reply {
        Ok(frame) => frame,
        Err(status) => {
            if status == Status::Internal {
                // The client is told to look for the request's number here.
                tracing::warn!(request = id.0, kind, %status, "refused");
            } else {
                tracing::debug!(request = id.0, kind, %status, "refused");
            }
            Frame::refusal(opcode, id, &status)
        }
    }
}

async fn reply(shared: &Arc<Shared>, request: Request) -> Reply {
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
    }
}

/// The status of a failed read or admin call.
fn failed(shared: &Shared, error: NodeError) -> Status {
    status(shared, error, false)
}

fn status(shared: &Shared, error: NodeError, wrote: bool) -> Status {
    let spaces = shared.node.spaces();
    error_to_status(error, &Refused { spaces: &spaces, ttls_ms: &[], expiry: false }, wrote)
}
