//! Owns the operations a workload is made of, and what they wait for.
//!
//! - Operations have an order, that of the file or of the generator. Two that share a lane take effect in it;
//!   others may overtake each other, because the outcome does not depend on which came first.
//! - An entry that does not exist yet is named by the number of the append that makes it.

use bytes::Bytes;
use fanfold_protocol::UserId;
use fanfold_protocol::message::Audience;

/// The number of an append within its run, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendNumber(pub usize);

/// An entry by the append that makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Made {
    /// Whose timeline it is in.
    pub owner: UserId,
    /// Which append makes it.
    pub by: AppendNumber,
}

/// An entry to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Post {
    /// Whose timeline.
    pub owner: UserId,
    /// Who wrote it; `None` is the owner.
    pub author: Option<UserId>,
    /// Who may see it.
    pub audience: Audience,
    /// The earlier entry that it replies to or repeats.
    pub reference: Option<Made>,
    /// Its payload.
    pub payload: Bytes,
}

/// One thing that an application does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Appends an entry.
    Append(Post),
    /// Replaces a payload, if the entry still has the version.
    Amend {
        /// The entry.
        entry: Made,
        /// The version it has by then.
        version: u32,
        /// The new payload.
        payload: Bytes,
    },
    /// Deletes an entry.
    Delete {
        /// The entry.
        entry: Made,
    },
    /// Makes a reader follow owners.
    Follow {
        /// The reader.
        reader: UserId,
        /// The owners.
        owners: Vec<UserId>,
    },
    /// Makes a reader follow an owner no more.
    Unfollow {
        /// The reader.
        reader: UserId,
        /// The owner.
        owner: UserId,
    },
    /// Changes what a user sees of another.
    Relate {
        /// The user.
        user: UserId,
        /// The other one.
        target: UserId,
        /// The change.
        change: Relation,
    },
}

/// A change between two users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The user hides the target from its feeds.
    Mute,
    /// Undoes it.
    Unmute,
    /// The user hides itself and the target from each other.
    Block,
    /// Undoes it.
    Unblock,
}

/// What operations must not overtake each other on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The entries of one owner.
    Timeline(UserId),
    /// The edges, mutes and blocks of one user.
    Edges(UserId),
}

impl Operation {
    /// The lanes of this operation.
    pub fn lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        let (first, second) = match self {
            Self::Append(post) => (Lane::Timeline(post.owner), None),
            Self::Amend { entry, .. } | Self::Delete { entry } => (Lane::Timeline(entry.owner), None),
            Self::Follow { reader, .. } | Self::Unfollow { reader, .. } => (Lane::Edges(*reader), None),
            // A block decides which follows are refused, on both sides.
            Self::Relate { user, target, change: Relation::Block | Relation::Unblock } if user != target => {
                (Lane::Edges(*user), Some(Lane::Edges(*target)))
            }
            Self::Relate { user, .. } => (Lane::Edges(*user), None),
        };
        std::iter::once(first).chain(second)
    }

    /// The entry that must exist before this operation can be sent.
    pub fn needs(&self) -> Option<Made> {
        match self {
            Self::Append(post) => post.reference,
            Self::Amend { entry, .. } | Self::Delete { entry } => Some(*entry),
            Self::Follow { .. } | Self::Unfollow { .. } | Self::Relate { .. } => None,
        }
    }
}
