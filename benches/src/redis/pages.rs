//! Owns the usual ways to read a page of a feed, and the merge in the client.
//!
//! | way | commands of a page |
//! | --- | --- |
//! | LRANGE | the newest of the home feed |
//! | pipeline | LRANGE of the home feed and of each followed celebrity's list in one round trip, merged in the client |
//! | merge in the server | one FCALL with all those keys |
//! | cached | LRANGE of the home feed, merged with celebrity lists that the client keeps for a second |
//! | hydrated | LRANGE, pipeline or cached, then MGET of the payloads; one SORT that fetches them; or one FCALL that does LRANGE, or the merge, and MGET |
//!
//! - Which celebrities a reader follows is known to the client for nothing; an application would have to ask for that, too.

use super::keys::List;
use super::oracle;
use super::resp;

/// How a page is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadWay {
    /// The home feed alone.
    Home,
    /// All lists in one round trip, merged in the client.
    Pipeline,
    /// One call of the function that merges.
    Merge,
    /// The home feed, merged with cached lists.
    Cached,
    /// One call of the function that reads the home feed and its payloads.
    HydrateFunction,
    /// One SORT of the home feed that does not sort, and fetches the payloads: on a list it takes the newest without looking at the others.
    HydrateSort,
    /// One call of the function that merges and reads the payloads.
    HydrateMerge,
}

impl ReadWay {
    /// The ways for readers with or without celebrities, and with or without payloads.
    pub fn all(celebrities: bool, hydrate: bool, instances: usize) -> &'static [Self] {
        match (celebrities, hydrate) {
            // With two instances neither a function nor SORT sees the other half of the payloads.
            (false, true) if instances == 1 => &[Self::Home, Self::HydrateFunction, Self::HydrateSort],
            (true, true) if instances == 1 => &[Self::Pipeline, Self::Cached, Self::HydrateMerge],
            (false, _) => &[Self::Home],
            (true, false) => &[Self::Pipeline, Self::Merge, Self::Cached],
            (true, true) => &[Self::Pipeline, Self::Cached],
        }
    }

    /// Its name in reports.
    pub fn name(self, hydrate: bool) -> &'static str {
        match (self, hydrate) {
            (Self::Home, false) => "LRANGE",
            (Self::Home, true) => "LRANGE, then MGET",
            (Self::Pipeline, false) => "LRANGEs in one round trip, merged in the client",
            (Self::Pipeline, true) => "LRANGEs in one round trip, merged in the client, then MGET",
            (Self::Merge, _) => "function merges in the server",
            (Self::Cached, false) => "LRANGE, celebrities cached for a second",
            (Self::Cached, true) => "LRANGE, celebrities cached for a second, then MGET",
            (Self::HydrateFunction, _) => "function: LRANGE and MGET",
            (Self::HydrateSort, _) => "SORT BY nosort GET # GET p*",
            (Self::HydrateMerge, _) => "function merges in the server and does MGET",
        }
    }

    /// Encodes the first round trip; how many replies it has.
    pub fn encode(self, out: &mut Vec<u8>, reader: u32, celebrities: &[u32], limit: u32) -> u32 {
        match self {
            Self::Home | Self::Cached => {
                oracle::read_newest(out, List::Feed(reader), limit);
                1
            }
            Self::Pipeline => {
                oracle::read_newest(out, List::Feed(reader), limit);
                celebrities.iter().for_each(|who| oracle::read_newest(out, List::Celebrity(*who), limit));
                celebrities.len() as u32 + 1
            }
            Self::Merge => {
                call(out, b"merge", reader, celebrities, limit);
                1
            }
            Self::HydrateFunction => {
                call(out, b"hydrate", reader, &[], limit);
                1
            }
            Self::HydrateSort => {
                sort(out, reader, limit);
                1
            }
            Self::HydrateMerge => {
                call(out, b"merge_hydrate", reader, celebrities, limit);
                1
            }
        }
    }
}

fn call(out: &mut Vec<u8>, function: &[u8], reader: u32, celebrities: &[u32], limit: u32) {
    resp::begin(out, 5 + celebrities.len());
    resp::argument(out, b"FCALL");
    resp::argument(out, function);
    resp::number(out, celebrities.len() as u64 + 1);
    List::Feed(reader).key(out);
    celebrities.iter().for_each(|who| List::Celebrity(*who).key(out));
    let mut digits = itoa::Buffer::new();
    resp::argument(out, digits.format(-i64::from(limit)).as_bytes());
}

fn sort(out: &mut Vec<u8>, reader: u32, limit: u32) {
    resp::begin(out, 12);
    resp::argument(out, b"SORT");
    List::Feed(reader).key(out);
    for word in ["BY", "nosort", "DESC", "LIMIT", "0"] {
        resp::argument(out, word.as_bytes());
    }
    resp::number(out, u64::from(limit));
    for word in ["GET", "#", "GET", "p*"] {
        resp::argument(out, word.as_bytes());
    }
}

/// Leaves the newest `limit` ids, the newest first.
pub fn newest(ids: &mut Vec<u64>, limit: usize) {
    // Only the page is put in order; most of what was fetched is thrown away.
    if ids.len() > limit && limit > 0 {
        ids.select_nth_unstable_by(limit - 1, |a, b| b.cmp(a));
        ids.truncate(limit);
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sort_that_does_not_sort_is_one_command() {
        let mut out = Vec::new();
        assert_eq!(ReadWay::HydrateSort.encode(&mut out, 7, &[], 20), 1);
        let said = String::from_utf8(out).unwrap();
        let words: Vec<&str> = said.split("\r\n").filter(|word| !word.starts_with(['$', '*'])).collect();
        assert_eq!(words.join(" ").trim(), "SORT 7 BY nosort DESC LIMIT 0 20 GET # GET p*");
        assert!(said.starts_with("*12\r\n"), "{said}");
    }

    #[test]
    fn the_newest_are_kept_newest_first() {
        let mut ids = vec![3, 9, 1, 7, 5];
        newest(&mut ids, 3);
        assert_eq!(ids, [9, 7, 5]);
        newest(&mut ids, 20);
        assert_eq!(ids, [9, 7, 5]);
    }
}
