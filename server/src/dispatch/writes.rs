//! Owns the requests that write, and the wait for what they wrote.

use std::sync::Arc;

use fanfold_protocol::Reply;
use fanfold_protocol::ids::SessionId;
use fanfold_protocol::message::{
    CloseSession, OpenSession, Response, WaitDelivered, Write, WriteOp, Written,
};
use fanfold_storage::command::WriteResult;
use fanfold_storage::ids as stored;

use super::failed;
use crate::listener::Shared;
use crate::translate::{self, Refused};

pub(super) async fn write(shared: &Arc<Shared>, write: Write) -> Reply {
    let partition = translate::partition_id(write.partition);
    let tag = translate::tag(write.tag);
    let ttls_ms = translate::named_ttls(&write.op);
    let expiry = matches!(write.op, WriteOp::SetExpiry(_));
    let node = shared.node.clone();
    let op = translate::write(write.op);
    // A write that was proposed runs to its end even if its caller's deadline passes, so its task is its own.
    let ran = tokio::spawn(async move { node.write(partition, tag, op).await }).await;
    let spaces = || shared.node.spaces();
    match ran {
        Ok(Ok(receipt)) => {
            // The spaces are needed only to word the refusal of an item.
            let has_items = matches!(receipt.result, WriteResult::Appended { .. });
            let spaces = if has_items { spaces() } else { Vec::new() };
            let refused = Refused { spaces: &spaces, ttls_ms: &ttls_ms, expiry };
            let result = translate::write_result_to_wire(receipt.result, &refused);
            Ok(Response::Written(Written { token: translate::token(&receipt.position), result }))
        }
        Ok(Err(error)) => {
            let spaces = spaces();
            let refused = Refused { spaces: &spaces, ttls_ms: &ttls_ms, expiry };
            Err(translate::error_to_status(error, &refused, true))
        }
        Err(error) => {
            tracing::error!(%error, "a write ended badly");
            Err(fanfold_protocol::Status::Internal)
        }
    }
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
