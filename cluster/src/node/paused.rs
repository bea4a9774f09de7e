//! Owns the calls about owners whose fan-out is paused.

use fanfold_storage::command::{Command, Outcome};
use fanfold_storage::ids::UserId;

use super::Node;
use crate::error::NodeError;

impl Node {
    /// Pauses the fan-out of an owner's new entries, or lets it go on. Twice is fine.
    pub async fn pause_fan_out(&self, owner: UserId, is_paused: bool) -> Result<(), NodeError> {
        let _pass = self.enter()?;
        let command = Command::PauseFanOut { owner, is_paused };
        match self.home(owner)?.propose(&command).await?.1 {
            Outcome::Refused { refusal } => Err(NodeError::Refused { refusal }),
            _ => Ok(()),
        }
    }

    /// The owners whose fan-out is paused, of the partitions that this node has, as far as it has applied them.
    pub fn paused(&self) -> Result<Vec<UserId>, NodeError> {
        let _pass = self.enter()?;
        let mut all = Vec::new();
        for partition in self.partitions.all() {
            all.extend(partition.read(|partition| partition.paused().collect::<Vec<_>>())?);
        }
        Ok(all)
    }
}
