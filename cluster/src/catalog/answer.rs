//! Owns the encoding of what a command of the catalog answers, for a node that proposed it elsewhere.

use bytes::Bytes;
use fanfold_storage::codec::{Encoded, Malformed, Reader};
use fanfold_storage::space::SpaceDefinition;

use super::command::{CatalogOutcome, CatalogRefusal};
use super::policy::PolicyRefusal;
use crate::error::RangeField;

/// What a policy can have wrong, in the order of the numbers.
const FIELDS: [RangeField; 5] = [
    RangeField::DefaultTtlMs,
    RangeField::FeedCap,
    RangeField::HorizonMs,
    RangeField::PullThreshold,
    RangeField::PayloadBytesMax,
];

impl Encoded for CatalogRefusal {
    fn encode(&self, out: &mut Vec<u8>) {
        let (tag, node) = match self {
            Self::Founded => (1, None),
            Self::UnknownSpace => (2, None),
            Self::SpaceExists => (3, None),
            Self::Exhausted => (4, None),
            Self::Policy(_) => (5, None),
            Self::Malformed => (6, None),
            Self::NotFounded => (7, None),
            Self::UnknownNode { node } => (8, Some(node)),
            Self::NodeRemoved { node } => (9, Some(node)),
            Self::OtherDirectory { node } => (10, Some(node)),
            Self::AddressTaken { node } => (11, Some(node)),
            Self::Stale => (12, None),
            Self::FeatureLevel { .. } => (13, None),
        };
        out.push(tag);
        if let Some(node) = node {
            node.encode(out);
        }
        if let Self::FeatureLevel { needed } = self {
            needed.encode(out);
        }
        if let Self::Policy(PolicyRefusal { field, min, max, got }) = self {
            let number = FIELDS.iter().position(|known| known == field).unwrap_or_default();
            out.push(number as u8);
            [min, max, got].into_iter().for_each(|value| value.encode(out));
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.byte()? {
            1 => Self::Founded,
            2 => Self::UnknownSpace,
            3 => Self::SpaceExists,
            4 => Self::Exhausted,
            5 => {
                let number = usize::from(from.byte()?);
                let field = *FIELDS.get(number).ok_or_else(|| from.malformed("field of a policy"))?;
                Self::Policy(PolicyRefusal { field, min: from.u64()?, max: from.u64()?, got: from.u64()? })
            }
            6 => Self::Malformed,
            7 => Self::NotFounded,
            8 => Self::UnknownNode { node: from.u64()? },
            9 => Self::NodeRemoved { node: from.u64()? },
            10 => Self::OtherDirectory { node: from.u64()? },
            11 => Self::AddressTaken { node: from.u64()? },
            12 => Self::Stale,
            13 => Self::FeatureLevel { needed: from.u32()? },
            _ => return Err(from.malformed("refusal of the catalog")),
        })
    }
}

impl Encoded for CatalogOutcome {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Done => out.push(1),
            Self::Space(definition) => {
                out.push(2);
                definition.encode(out);
            }
            Self::Node { node } => {
                out.push(3);
                node.encode(out);
            }
            Self::Refused(refusal) => {
                out.push(4);
                refusal.encode(out);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match from.byte()? {
            1 => Self::Done,
            2 => Self::Space(SpaceDefinition::decode(from)?),
            3 => Self::Node { node: from.u64()? },
            4 => Self::Refused(CatalogRefusal::decode(from)?),
            _ => return Err(from.malformed("outcome of the catalog")),
        })
    }
}

/// The outcome of a proposal with the epoch that it made, or found.
pub(super) fn to_bytes(outcome: &CatalogOutcome, epoch: u64) -> Bytes {
    let mut out = Vec::new();
    epoch.encode(&mut out);
    outcome.encode(&mut out);
    out.into()
}

/// Reads what [`to_bytes`] made.
pub(super) fn from_bytes(bytes: &[u8]) -> Result<(CatalogOutcome, u64), Malformed> {
    let mut from = Reader::new(bytes);
    let epoch = from.u64()?;
    let outcome = CatalogOutcome::decode(&mut from)?;
    from.end()?;
    Ok((outcome, epoch))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_answer_returns_from_its_encoding() {
        use CatalogRefusal as R;
        let policy = FIELDS.map(|field| R::Policy(PolicyRefusal { field, min: 1, max: 2, got: 3 }));
        let node = 7;
        let others = [
            R::Founded,
            R::UnknownSpace,
            R::SpaceExists,
            R::Exhausted,
            R::Malformed,
            R::NotFounded,
            R::UnknownNode { node },
            R::NodeRemoved { node },
            R::OtherDirectory { node },
            R::AddressTaken { node },
            R::Stale,
            R::FeatureLevel { needed: 7 },
        ];
        let refused = policy.into_iter().chain(others).map(CatalogOutcome::Refused);
        for outcome in refused.chain([CatalogOutcome::Done, CatalogOutcome::Node { node }]) {
            assert_eq!(from_bytes(&to_bytes(&outcome, 9)).unwrap(), (outcome, 9));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = from_bytes(&bytes);
        }
    }
}
