//! Owns the writes that relate one user to others: mutes and blocks.

use std::sync::Arc;

use fanfold_protocol::message::{Targets, WriteOp, WriteResult, Written};
use fanfold_protocol::{Token, UserId};

use crate::call::Call;
use crate::core::Core;
use crate::error::Error;

/// What came of a follow, unfollow, mute, unmute, block or unblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Related {
    /// How many of the users named were changed; the others were so already.
    pub changed: u32,
    /// Whom a block or a limit kept from being followed. Empty for everything but follows.
    pub refused: Vec<UserId>,
    /// What later reads and waits refer to.
    pub token: Token,
}

impl Related {
    pub(crate) fn of(written: Written) -> Result<Self, Error> {
        match written.result {
            WriteResult::Related { changed, refused } => Ok(Self { changed, refused, token: written.token }),
            _ => Err(Error::unexpected_write()),
        }
    }
}

/// A write that relates a user to targets, sent to the user's home.
pub(crate) fn relate(
    core: &Arc<Core>,
    user: UserId,
    targets: Vec<UserId>,
    op: fn(Targets) -> WriteOp,
) -> Call<Related> {
    Call::new(core.clone(), move |core, deadline| async move {
        let written = core.write(user, op(Targets { user, targets }), deadline).await?;
        Related::of(written)
    })
}
