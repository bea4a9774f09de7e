//! Owns the requests that write, and the wait for what they wrote.

use std::sync::Arc;

use fanfold_protocol::Reply;
use fanfold_protocol::ids::SessionId;
use fanfold_protocol::message::{CloseSession, OpenSession, Response, WaitDelivered, Write, WriteOp};
use fanfold_storage::ids as stored;

use super::failed;
use crate::listener::Shared;
use crate::translate;

/// A write that does not go with others of its connection.
pub(super) async fn write(shared: &Arc<Shared>, write: Write) -> Reply {
    let partition = translate::partition_id(write.partition);
    let tag = translate::tag(write.tag);
    let ttls_ms = translate::named_ttls(&write.op);
    let is_expiry = matches!(write.op, WriteOp::SetExpiry(_));
    let node = shared.node.clone();
    let op = translate::write(write.op);
    // A write that was proposed runs to its end even if its caller's deadline passes, so its task is its own; the wait for
    // other partitions, which may be long, ends with the deadline.
    let ran = tokio::spawn(async move { node.begin_write(partition, tag, op).await }).await;
    let Ok(begun) = ran else {
        tracing::error!("a write ended badly");
        return Err(fanfold_protocol::Status::Internal);
    };
    let written = match begun {
        Ok(written) => shared.node.end_write(written).await,
        Err(error) => Err(error),
    };
    let refused = translate::WriteRefused { ttls_ms: &ttls_ms, is_expiry };
    translate::receipt(written, &refused, || shared.node.spaces())
}

pub(super) async fn open_session(shared: &Arc<Shared>, open: OpenSession) -> Reply {
    let session = shared.node.open_session(translate::partition_id(open.partition)).await;
    session.map(|id| Response::SessionOpened(SessionId(id.0))).map_err(|error| failed(shared, error))
}

pub(super) async fn close_session(shared: &Arc<Shared>, close: CloseSession) -> Reply {
    let session = stored::SessionId(close.session.0);
    let closed = shared.node.close_session(translate::partition_id(close.partition), session).await;
    closed.map(|()| Response::Done).map_err(|error| failed(shared, error))
}

pub(super) async fn wait_delivered(shared: &Arc<Shared>, wait: &WaitDelivered) -> Reply {
    let waited = shared.node.wait_delivered(&translate::position(&wait.token)).await;
    waited.map(|()| Response::Done).map_err(|error| failed(shared, error))
}
