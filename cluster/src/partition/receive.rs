//! Owns the receiving end of a stream: what a partition does with a message of another one.

use std::time::Duration;

use fanfold_storage::command::{Command, Outcome};
use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::PartitionId;
use thiserror::Error;

use super::handle::PartitionHandle;
use crate::error::NodeError;

/// How long a message waits for the definition of a space that it names before the sender is told to try again.
const SPACE_WAIT: Duration = Duration::from_secs(1);

/// Why a stream message was not applied; the sender tries again later.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ReceiveError {
    /// It names a space that is not defined at the destination yet (R3).
    #[error("partition {destination} does not know a space that the message names yet")]
    UnknownSpace {
        /// The destination.
        destination: PartitionId,
    },
    /// The destination cannot serve.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Applies a stream message at its destination and answers where the stream stands; a message without events is only
/// answered.
pub(crate) async fn receive(
    destination: &PartitionHandle,
    message: StreamMessage,
) -> Result<StreamAnswer, ReceiveError> {
    let source = message.source;
    if message.events.is_empty() {
        destination.confirm().await?;
        return Ok(destination.read(|state| state.stream_answer(source))?);
    }
    wait_for_spaces(destination, &message).await?;
    let (_, outcome) = destination.propose(&Command::Stream { message }).await?;
    match outcome {
        Outcome::Stream { answer } if !answer.unknown_space => Ok(answer),
        _ => Err(ReceiveError::UnknownSpace { destination: destination.id() }),
    }
}

async fn wait_for_spaces(destination: &PartitionHandle, message: &StreamMessage) -> Result<(), ReceiveError> {
    let mut applied = destination.group().watch_applied();
    let known = async {
        loop {
            applied.borrow_and_update();
            if destination.read(|state| state.knows_spaces_of(message))? {
                return Ok(());
            }
            let changed = applied.changed().await;
            let partition = destination.id();
            changed.map_err(|_| NodeError::Unavailable { partition, may_have_applied: false })?;
        }
    };
    let waited = tokio::time::timeout(SPACE_WAIT, known).await;
    let unknown = |_| ReceiveError::UnknownSpace { destination: destination.id() };
    waited.map_err(unknown)?
}
