//! Owns how a feed or timeline differs from the oracle's, in words that lead to the cause.

use std::collections::HashSet;
use std::fmt;

use fanfold_client::Space;
use fanfold_protocol::{EntryId, UserId};

use super::mirror::Mirror;

/// Entries named of each kind of difference; further ones are only counted.
const NAMED_MAX: usize = 5;

/// What was compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// A reader's feed.
    Feed,
    /// An owner's timeline.
    Timeline,
}

/// How one feed or timeline differs from the oracle's.
#[derive(Debug, Clone)]
pub struct Difference {
    /// What was compared.
    pub compared: Compared,
    /// Whose it is.
    pub user: UserId,
    /// Entries that the oracle has and the node did not show.
    pub missing: Listed,
    /// Entries that the node showed and the oracle has not, or that were shown again.
    pub extra: Listed,
    /// Entries shown with another payload, version, author, audience or reference.
    pub altered: Listed,
    /// Whether the same entries were shown in another order.
    pub disordered: bool,
}

/// Entries of one kind of difference.
#[derive(Debug, Clone, Default)]
pub struct Listed {
    /// How many there are.
    pub count: usize,
    /// The first of them.
    pub named: Vec<Named>,
}

/// One entry of a difference.
#[derive(Debug, Clone)]
pub struct Named {
    /// The entry.
    pub id: EntryId,
    /// Its owner, if the oracle knows the entry.
    pub owner: Option<UserId>,
    /// What the node says of it.
    pub explanation: Option<String>,
}

/// Compares what the node showed with what the oracle says, newest first both.
pub(super) fn difference(
    compared: Compared,
    user: UserId,
    expected: &[EntryId],
    got: &[EntryId],
) -> Option<Difference> {
    if expected == got {
        return None;
    }
    let wanted: HashSet<EntryId> = expected.iter().copied().collect();
    let mut shown = HashSet::with_capacity(got.len());
    let extra: Vec<EntryId> =
        got.iter().copied().filter(|id| !shown.insert(*id) || !wanted.contains(id)).collect();
    let missing: Vec<EntryId> = expected.iter().copied().filter(|id| !shown.contains(id)).collect();
    let disordered = missing.is_empty() && extra.is_empty();
    let (missing, extra) = (Listed::of(&missing), Listed::of(&extra));
    Some(Difference { compared, user, missing, extra, altered: Listed::default(), disordered })
}

impl Difference {
    /// The right entries with other contents, if there are any.
    pub(super) fn altered(compared: Compared, user: UserId, altered: &[EntryId]) -> Option<Self> {
        (!altered.is_empty()).then(|| Self {
            compared,
            user,
            missing: Listed::default(),
            extra: Listed::default(),
            altered: Listed::of(altered),
            disordered: false,
        })
    }

    /// Adds the owners that the oracle knows.
    pub(super) fn with_owners(mut self, mirror: &Mirror) -> Self {
        for named in self.lists().flat_map(|listed| &mut listed.named) {
            named.owner = mirror.entry(named.id).map(|entry| UserId(entry.owner.0));
        }
        self
    }

    /// Adds what the node says of the entries of a feed.
    pub(super) async fn explain(&mut self, space: &Space) {
        if self.compared == Compared::Timeline {
            return;
        }
        let reader = self.user;
        for listed in self.lists() {
            for named in &mut listed.named {
                named.explanation = Some(match space.explain(reader, named.id).await {
                    Ok(explanation) => format!("shown: {}, {:?}", explanation.shown, explanation.reasons),
                    Err(error) => format!("not explained: {error}"),
                });
            }
        }
    }

    fn lists(&mut self) -> impl Iterator<Item = &mut Listed> {
        [&mut self.missing, &mut self.extra, &mut self.altered].into_iter()
    }
}

impl Listed {
    fn of(ids: &[EntryId]) -> Self {
        let named =
            ids.iter().take(NAMED_MAX).map(|id| Named { id: *id, owner: None, explanation: None }).collect();
        Self { count: ids.len(), named }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.compared {
            Compared::Feed => "feed",
            Compared::Timeline => "timeline",
        };
        write!(f, "{what} of {}:", self.user)?;
        for (listed, name) in [(&self.missing, "missing"), (&self.extra, "extra"), (&self.altered, "altered")]
        {
            if listed.count > 0 {
                write!(f, " {} {name}", listed.count)?;
            }
        }
        if self.disordered {
            write!(f, " not newest first")?;
        }
        for (listed, name) in [(&self.missing, "missing"), (&self.extra, "extra"), (&self.altered, "altered")]
        {
            for named in &listed.named {
                write!(f, "\n    {name} {} of ", named.id)?;
                match named.owner {
                    Some(owner) => write!(f, "{owner}")?,
                    None => write!(f, "nobody the oracle knows")?,
                }
                if let Some(explanation) = &named.explanation {
                    write!(f, " ({explanation})")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(expected: &[u64], got: &[u64]) -> Option<Difference> {
        let ids = |list: &[u64]| list.iter().copied().map(EntryId).collect::<Vec<_>>();
        difference(Compared::Feed, UserId(1), &ids(expected), &ids(got))
    }

    #[test]
    fn equal_lists_do_not_differ() {
        assert!(compare(&[], &[]).is_none());
        assert!(compare(&[3, 2, 1], &[3, 2, 1]).is_none());
    }

    #[test]
    fn missing_extra_and_repeated_entries_are_told_apart() {
        let found = compare(&[5, 3, 1], &[5, 5, 4, 1]).unwrap();
        let ids = |listed: &Listed| listed.named.iter().map(|named| named.id.0).collect::<Vec<_>>();
        assert_eq!(ids(&found.missing), [3]);
        assert_eq!(ids(&found.extra), [5, 4]);
        assert!(!found.disordered);
        assert!(found.to_string().starts_with("feed of 1: 1 missing 2 extra"));
    }

    #[test]
    fn another_order_is_a_difference() {
        let found = compare(&[2, 1], &[1, 2]).unwrap();
        assert!(found.disordered);
        assert_eq!(found.missing.count + found.extra.count, 0);
    }
}
