//! Owns the seam between the streams and what carries their messages, and the way to the leaders of destinations.
//!
//! - A message for a partition that is led here is handed over in this process, any other by a call to the node that leads;
//!   one that does not says who does, and is believed a few times.
//! - Nothing is repeated here but what was refused. A message that may have arrived is the dispatcher's to repeat: whether
//!   it is applied again is decided by where the stream stands (R8).

use std::sync::Arc;
use std::time::Duration;

use fanfold_storage::event::{StreamAnswer, StreamMessage};
use fanfold_storage::ids::PartitionId;
use futures_util::future::BoxFuture;
use thiserror::Error;

use crate::error::NodeError;
use crate::map::group_of;
use crate::partition::{Partitions, ReceiveError, receive};
use crate::peer::{PeerAnswer, PeerCall, PeerError, PeerRefusal};

/// How long a message to another node may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How many nodes are believed to lead a destination, one after another.
const ATTEMPTS: usize = 3;

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

/// Carries stream messages to partitions wherever they are led.
#[derive(Clone)]
pub(crate) struct ClusterStreams {
    partitions: Arc<Partitions>,
}

impl ClusterStreams {
    /// The streams between these partitions.
    pub fn new(partitions: Arc<Partitions>) -> Self {
        Self { partitions }
    }
}

impl StreamTransport for ClusterStreams {
    fn send(
        &self,
        destination: PartitionId,
        message: StreamMessage,
    ) -> BoxFuture<'static, Result<StreamAnswer, StreamError>> {
        let partitions = self.partitions.clone();
        Box::pin(async move {
            send(&partitions, destination, message).await.map_err(|refusal| {
                tracing::debug!(destination = destination.0, %refusal, "a stream message was not applied");
                match refusal {
                    PeerRefusal::UnknownSpace => StreamError::UnknownSpace { destination },
                    _ => StreamError::Unavailable { destination },
                }
            })
        })
    }
}

/// Hands a message to whoever leads its destination.
async fn send(
    partitions: &Partitions,
    destination: PartitionId,
    message: StreamMessage,
) -> Result<StreamAnswer, PeerRefusal> {
    let own = partitions.own_node();
    let mut refusal = PeerRefusal::NotLeader { leader: None };
    // Whom the last answer named.
    let mut named = None;
    for _ in 0..ATTEMPTS {
        let here = partitions.get(destination);
        let is_led = here.as_ref().is_ok_and(|partition| partition.group().is_leader());
        let leader = match &here {
            Ok(_) if is_led => None,
            Ok(partition) => named.or_else(|| partition.known_leader().map(|leader| leader.node)),
            Err(NodeError::NotLeader { leader }) => named.or(leader.as_ref().map(|leader| leader.node)),
            Err(error) => return Err(PeerRefusal::from(error)),
        };
        let sent = match (here, leader.filter(|leader| Some(*leader) != own), partitions.network()) {
            (_, Some(node), Some(network)) => {
                let call = PeerCall::Stream { destination, message: message.clone() };
                match network.call(node, call, CALL_TIMEOUT).await {
                    Ok(PeerAnswer::Stream(answer)) => return Ok(answer),
                    Err(PeerError::Refused(refusal)) => {
                        if matches!(refusal, PeerRefusal::NotLeader { .. } | PeerRefusal::NotHosted) {
                            let group = group_of(Some(destination));
                            partitions.whereabouts().leaders.forget(group, node);
                        }
                        Err(refusal)
                    }
                    Ok(_) => Err(PeerRefusal::Malformed),
                    Err(error) => {
                        Err(PeerRefusal::Unavailable { may_have_applied: error.may_have_applied() })
                    }
                }
            }
            // Led here, as far as is known, a message is not needed again: nothing is copied on the usual way.
            (Ok(_), _, _) if is_led => return take_in(partitions, destination, message).await,
            (Ok(_), _, _) => take_in(partitions, destination, message.clone()).await,
            _ => Err(PeerRefusal::NotLeader { leader: None }),
        };
        match sent {
            Ok(answer) => return Ok(answer),
            Err(PeerRefusal::NotLeader { leader: Some(leader) }) => {
                named = Some(leader);
                refusal = PeerRefusal::NotLeader { leader: named };
            }
            Err(error) => return Err(error),
        }
    }
    Err(refusal)
}

/// Takes a stream message in at its destination here.
pub(crate) async fn take_in(
    partitions: &Partitions,
    destination: PartitionId,
    message: StreamMessage,
) -> Result<StreamAnswer, PeerRefusal> {
    let partition = partitions.get(destination).map_err(|error| PeerRefusal::from(&error))?;
    receive(&partition, message).await.map_err(|error| match error {
        ReceiveError::UnknownSpace { .. } => PeerRefusal::UnknownSpace,
        ReceiveError::Node(error) => PeerRefusal::from(&error),
    })
}
