//! Owns the seam between the streams and what carries their messages.

use std::sync::{Arc, OnceLock};

use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::PartitionId;
use futures_util::future::BoxFuture;
use thiserror::Error;

use crate::partition::{PartitionHandle, ReceiveError, receive};

/// Carries stream messages to the leaders of their destinations.
pub trait StreamTransport: Send + Sync + 'static {
    /// Hands a message to its destination and returns where the stream stands there. A future that is dropped gives
    /// the answer up, not the message.
    fn send(
        &self,
        destination: PartitionId,
        message: StreamMessage,
    ) -> BoxFuture<'static, Result<StreamAnswer, StreamError>>;
}

/// Why a stream message has no answer; it may have been applied all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The destination does not know a space yet.
    #[error("partition {destination} does not know a space yet")]
    UnknownSpace {
        /// The destination.
        destination: PartitionId,
    },
    /// The destination cannot be reached or cannot serve.
    #[error("partition {destination} cannot be reached or cannot serve")]
    Unavailable {
        /// The destination.
        destination: PartitionId,
    },
}

/// The partitions of this node, by number; none where one is damaged.
pub(crate) type Partitions = Arc<[Option<Arc<PartitionHandle>>]>;

/// Carries stream messages between the partitions of one node.
#[derive(Clone, Default)]
pub(crate) struct InProcessStreams {
    partitions: Arc<OnceLock<Partitions>>,
}

impl InProcessStreams {
    /// Makes the partitions reachable, once they are open.
    pub fn connect(&self, partitions: Partitions) {
        let _ = self.partitions.set(partitions);
    }
}

impl StreamTransport for InProcessStreams {
    fn send(
        &self,
        destination: PartitionId,
        message: StreamMessage,
    ) -> BoxFuture<'static, Result<StreamAnswer, StreamError>> {
        let partitions = self.partitions.get().cloned();
        Box::pin(async move {
            let found = partitions.as_ref().and_then(|all| all.get(usize::from(destination.0)));
            let Some(Some(partition)) = found else { return Err(StreamError::Unavailable { destination }) };
            receive(partition, message).await.map_err(|error| match error {
                ReceiveError::UnknownSpace { .. } => StreamError::UnknownSpace { destination },
                ReceiveError::Node(error) => {
                    tracing::debug!(destination = destination.0, %error, "a stream message was not applied");
                    StreamError::Unavailable { destination }
                }
            })
        })
    }
}
