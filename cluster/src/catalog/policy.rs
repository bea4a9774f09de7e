//! Owns the rules for names and policies of spaces.

use fanfold_storage::command::TTL_MS_MAX;
use fanfold_storage::space::SpacePolicy;

use crate::error::{NodeError, RangeField};

/// The longest name of a space or graph, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// The largest feed cap.
const FEED_CAP_MAX: u64 = 100_000;

/// The largest payload limit, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 1 << 20;

/// A value of a policy that is outside its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PolicyRefusal {
    /// Which value.
    pub field: RangeField,
    /// The smallest accepted one.
    pub min: u64,
    /// The largest accepted one.
    pub max: u64,
    /// What came.
    pub got: u64,
}

impl From<PolicyRefusal> for NodeError {
    fn from(PolicyRefusal { field, min, max, got }: PolicyRefusal) -> Self {
        Self::OutOfRange { field, min, max, got }
    }
}

/// What is wrong with the name of a space or graph, if anything.
pub fn name_refusal(name: &str) -> Option<NodeError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        let (field, got) = (RangeField::NameBytes, name.len() as u64);
        return Some(NodeError::OutOfRange { field, min: 1, max: NAME_BYTES_MAX as u64, got });
    }
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    name.bytes().position(|byte| !allowed(byte)).map(|at| NodeError::NameByte { at })
}

/// The first value of a policy that is outside its range, if there is one.
pub(crate) fn policy_refusal(policy: &SpacePolicy) -> Option<PolicyRefusal> {
    let ranges = [
        (RangeField::DefaultTtlMs, policy.default_ttl_ms, 1, TTL_MS_MAX),
        (RangeField::FeedCap, Some(u64::from(policy.feed_cap)), 1, FEED_CAP_MAX),
        (RangeField::HorizonMs, policy.horizon_ms, 1, TTL_MS_MAX),
        (RangeField::PullThreshold, Some(u64::from(policy.pull_threshold)), 1, u64::from(u32::MAX)),
        (RangeField::PayloadBytesMax, Some(u64::from(policy.payload_bytes_max)), 1, PAYLOAD_BYTES_MAX),
    ];
    ranges.into_iter().find_map(|(field, got, min, max)| {
        let got = got.filter(|got| !(min..=max).contains(got))?;
        Some(PolicyRefusal { field, min, max, got })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!(name_refusal("a-z_09"), None);
        assert_eq!(name_refusal("Posts"), Some(NodeError::NameByte { at: 0 }));
        assert!(matches!(name_refusal(""), Some(NodeError::OutOfRange { got: 0, .. })));
        assert!(matches!(name_refusal(&"x".repeat(65)), Some(NodeError::OutOfRange { got: 65, .. })));
        assert_eq!(name_refusal(&"x".repeat(64)), None);
    }

    #[test]
    fn each_limit_of_a_policy_is_named() {
        let good = SpacePolicy::default();
        assert_eq!(policy_refusal(&good), None);
        let bad = [
            (SpacePolicy { default_ttl_ms: Some(0), ..good.clone() }, RangeField::DefaultTtlMs),
            (SpacePolicy { default_ttl_ms: Some(TTL_MS_MAX + 1), ..good.clone() }, RangeField::DefaultTtlMs),
            (SpacePolicy { feed_cap: 0, ..good.clone() }, RangeField::FeedCap),
            (SpacePolicy { feed_cap: 100_001, ..good.clone() }, RangeField::FeedCap),
            (SpacePolicy { horizon_ms: Some(0), ..good.clone() }, RangeField::HorizonMs),
            (SpacePolicy { pull_threshold: 0, ..good.clone() }, RangeField::PullThreshold),
            (SpacePolicy { payload_bytes_max: 0, ..good.clone() }, RangeField::PayloadBytesMax),
            (SpacePolicy { payload_bytes_max: (1 << 20) + 1, ..good }, RangeField::PayloadBytesMax),
        ];
        for (policy, field) in bad {
            assert_eq!(policy_refusal(&policy).map(|refusal| refusal.field), Some(field));
        }
    }
}
