//! Owns turning recorded actions into follow links and operations.
//!
//! - "A follows B" for each different pair of actor A and target B, A not B. These links are inferred, not recorded.
//! - Every line becomes an entry of its actor, in the order of the file. A repost or reply refers to the target's newest
//!   entry so far, if it has one; a mention refers to nothing.

use std::collections::HashMap;

use bytes::Bytes;
use fanfold_protocol::UserId;
use fanfold_protocol::message::Audience;
use fanfold_server::workload::operation::{AppendNumber, Made, Operation, Post};

use crate::tsv::{ActionKind, ActionLine};

/// The follow links that actions suggest, repeats included.
pub fn inferred_follows(actions: &[ActionLine]) -> impl Iterator<Item = (UserId, UserId)> {
    let others = actions.iter().filter(|action| action.actor != action.target);
    others.map(|action| (action.actor, action.target))
}

/// The operations that actions become.
pub fn operations(actions: &[ActionLine]) -> impl Iterator<Item = Operation> {
    let mut newest: HashMap<UserId, AppendNumber> = HashMap::new();
    actions.iter().enumerate().map(move |(number, action)| {
        let reference = match action.kind {
            ActionKind::Repost | ActionKind::Reply => {
                newest.get(&action.target).map(|by| Made { owner: action.target, by: *by })
            }
            ActionKind::Mention => None,
        };
        newest.insert(action.actor, AppendNumber(number));
        Operation::Append(Post {
            owner: action.actor,
            author: None,
            audience: Audience::Public,
            reference,
            payload: text(action),
        })
    })
}

/// The files hold no texts: an entry says what is known of it.
fn text(action: &ActionLine) -> Bytes {
    format!("{} {} {}", action.kind.name(), action.target, action.unix_s).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(kind: ActionKind, actor: u64, target: u64) -> ActionLine {
        ActionLine { unix_s: 0, kind, actor: UserId(actor), target: UserId(target) }
    }

    fn references(actions: &[ActionLine]) -> Vec<Option<usize>> {
        let reference = |operation| match operation {
            Operation::Append(post) => post.reference.map(|made| made.by.0),
            other => panic!("{other:?}"),
        };
        operations(actions).map(reference).collect()
    }

    #[test]
    fn newest_is_fixed_by_the_order_of_the_file() {
        use ActionKind::{Mention, Reply, Repost};
        let actions = [
            action(Repost, 1, 2),  // 2 has nothing yet
            action(Mention, 2, 1), // a mention refers to nothing
            action(Repost, 3, 2),
            action(Reply, 2, 3),
            action(Repost, 1, 2),
            action(Reply, 1, 1), // one's own newest
        ];
        assert_eq!(references(&actions), [None, None, Some(1), Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn nobody_is_inferred_to_follow_oneself() {
        let actions = [action(ActionKind::Mention, 1, 1), action(ActionKind::Mention, 1, 2)];
        assert_eq!(inferred_follows(&actions).collect::<Vec<_>>(), [(UserId(1), UserId(2))]);
    }
}
