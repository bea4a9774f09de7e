//! Owns how the store is laid out in Redis: keys, ids, scripts, and which instance holds what.
//!
//! | key | type | holds |
//! | --- | --- | --- |
//! | `<reader>` | list | the home feed: ids as decimal numbers, the newest at the right end |
//! | `c<celebrity>` | list | the newest ids of an owner who is merged at the read |
//! | `p<id>` | string | the payload of a post |
//! | `w<owner>` | list | the owner's followers of this instance, for the function |
//!
//! - A feed's key is the reader's number alone, so that the function uses what it reads from `w<owner>` as it is.
//! - Ids are 64-bit numbers with 19 decimal digits, as Fanfold's are; a listpack stores them as 8-byte integers.
//! - With two instances each holds the feeds of one half of the users, and the payloads of the posts with even or odd ids;
//!   celebrity lists stand in both.

use super::resp;

/// Letter of a payload's key.
pub const PAYLOAD: u8 = b'p';

/// A list in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// The home feed of this reader.
    Feed(u32),
    /// The newest ids of this celebrity.
    Celebrity(u32),
    /// The followers of this owner.
    Followers(u32),
}

impl List {
    /// Encodes its key as an argument.
    #[inline]
    pub fn key(self, out: &mut Vec<u8>) {
        match self {
            Self::Feed(reader) => resp::number(out, u64::from(reader)),
            Self::Celebrity(owner) => resp::key(out, b'c', u64::from(owner)),
            Self::Followers(owner) => resp::key(out, b'w', u64::from(owner)),
        }
    }
}

/// Entries above the cap at which the scripts trim: RPUSH answers the length, so that a trim is one call in 64.
pub const TRIM_SLACK: u32 = 64;
/// One of so many pushes is followed by a trim, at random, when the client trims.
pub const TRIM_ONE_IN: u64 = 32;

/// The id of the first post of the fill: a moment in late 2026 in the layout of Fanfold's ids.
const FIRST_ID: u64 = 848_000_000_000 << 22;

/// The id of a post. Posts of the fill come first, `fill_posts` of them, then the measured ones.
pub fn id_of(number: u64) -> u64 {
    FIRST_ID + number
}

/// The number of the post with this id; none if it is no id of this harness.
pub fn number_of(id: u64) -> Option<u64> {
    id.checked_sub(FIRST_ID)
}

/// Which of `instances` holds the feed of `reader` of `users`.
#[inline]
pub fn instance_of(reader: u32, users: u32, instances: usize) -> usize {
    usize::from(instances == 2 && reader > users / 2)
}

/// Which of `instances` holds the payload of the post with this id.
pub fn payload_instance_of(id: u64, instances: usize) -> usize {
    (id % instances as u64) as usize
}

/// The script of the Lua way: pushes the id to every key, and trims where the slack is used up. Answers how many were pushed.
pub fn push_script(feed_cap: u32) -> String {
    let limit = feed_cap + TRIM_SLACK;
    format!(
        "local call, id = redis.call, ARGV[1]\n\
         for i = 1, #KEYS do\n\
         local key = KEYS[i]\n\
         if call('RPUSH', key, id) > {limit} then call('LTRIM', key, -{feed_cap}, -1) end\n\
         end\n\
         return #KEYS"
    )
}

/// The library of functions. Keys are made within, as a single instance without cluster mode allows. Before it merges, the home
/// feed is put in the order of ids: posts under way together may have arrived the other way round. Celebrities' lists are in order.
pub fn library(feed_cap: u32) -> String {
    let limit = feed_cap + TRIM_SLACK;
    format!(
        "#!lua name=fanfold_bench\n\
         redis.register_function('fanout', function(keys, args)\n\
         local call = redis.call\n\
         local id = args[1]\n\
         if args[2] then call('SET', 'p' .. id, args[2]) end\n\
         local followers = call('LRANGE', keys[1], 0, -1)\n\
         for i = 1, #followers do\n\
         local key = followers[i]\n\
         if call('RPUSH', key, id) > {limit} then call('LTRIM', key, -{feed_cap}, -1) end\n\
         end\n\
         return #followers\n\
         end)\n\
         local function merge(keys, args)\n\
         local call = redis.call\n\
         local lists, ends, n = {{}}, {{}}, #keys\n\
         for i = 1, n do\n\
         local ids = call('LRANGE', keys[i], args[1], -1)\n\
         lists[i] = ids\n\
         ends[i] = #ids\n\
         end\n\
         local home = lists[1]\n\
         for i = 2, #home do\n\
         local id, j = home[i], i\n\
         while j > 1 and home[j - 1] > id do home[j] = home[j - 1]; j = j - 1 end\n\
         home[j] = id\n\
         end\n\
         local page = {{}}\n\
         for k = 1, -args[1] do\n\
         local best, from = '', 0\n\
         for i = 1, n do\n\
         local id = lists[i][ends[i]]\n\
         if id and id > best then best = id; from = i end\n\
         end\n\
         if from == 0 then break end\n\
         ends[from] = ends[from] - 1\n\
         page[k] = best\n\
         end\n\
         return page\n\
         end\n\
         local function payloads(ids)\n\
         if #ids == 0 then return {{ids, ids}} end\n\
         local names = {{}}\n\
         for i = 1, #ids do names[i] = 'p' .. ids[i] end\n\
         return {{ids, redis.call('MGET', unpack(names))}}\n\
         end\n\
         redis.register_function('merge', merge)\n\
         redis.register_function('merge_hydrate', function(keys, args)\n\
         return payloads(merge(keys, args))\n\
         end)\n\
         redis.register_function('hydrate', function(keys, args)\n\
         return payloads(redis.call('LRANGE', keys[1], args[1], -1))\n\
         end)\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_nineteen_digits_so_that_they_sort_as_text() {
        assert_eq!(id_of(0).to_string().len(), 19);
        assert_eq!(id_of(1 << 40).to_string().len(), 19);
        assert_eq!(number_of(id_of(77)), Some(77));
        assert_eq!(number_of(5), None);
    }

    #[test]
    fn two_instances_hold_one_half_each() {
        let second = (1..=100).filter(|reader| instance_of(*reader, 100, 2) == 1).count();
        assert_eq!(second, 50);
        assert!((1..=100).all(|reader| instance_of(reader, 100, 1) == 0));
    }
}
