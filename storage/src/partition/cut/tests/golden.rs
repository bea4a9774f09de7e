//! The bytes of a cut of a partition, every section of it: read, understood, and written again as they are.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use super::*;
use crate::codec::{Encoded, Reader};
use crate::entry::Entry;
use crate::golden::{dump, parse};
use crate::segment::{SegmentError, SegmentInfo};

/// What a line with the name of a part begins with.
const PART: &str = "== ";

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1").join(name)
}

/// Every section, with a head of version 1.
const PLAIN: &str = "partition_buckets.hex";

/// A few owners and readers, with a head of version 2: the fan-out of two owners is paused.
const PAUSED: &str = "partition_buckets_paused.hex";

/// A cut with the segments that it needs.
struct Golden {
    buckets: Buckets,
    infos: Vec<SegmentInfo>,
    /// Under their names.
    files: Vec<(String, Vec<u8>)>,
    answers: String,
}

impl Golden {
    fn of(life: &Life) -> Self {
        let infos: Vec<_> = life.segments.iter().map(|segment| *segment.info()).collect();
        let content = |name: &String| life.disk.content(&Path::new(DIR).join(name)).unwrap();
        let names = infos.iter().map(|info| info.number.file_name());
        let files = names.map(|name| (name.clone(), content(&name))).collect();
        let restored = restore(&life.kept, &life.segments).unwrap();
        Self { buckets: life.kept.clone(), infos, files, answers: answers(&restored) }
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for ((section, number), bytes) in &self.buckets {
            let name = section_name(*section).unwrap();
            write!(text, "{PART}bucket {section} {number} {name}\n{}", dump(bytes)).unwrap();
        }
        for (info, (name, content)) in self.infos.iter().zip(&self.files) {
            let mut detail = Vec::new();
            info.encode(&mut detail);
            write!(text, "{PART}detail {name}\n{}{PART}segment {name}\n{}", dump(&detail), dump(content))
                .unwrap();
        }
        write!(text, "{PART}answers\n{}", self.answers).unwrap();
        text
    }

    fn from_text(text: &str) -> Self {
        let mut golden =
            Self { buckets: Buckets::new(), infos: Vec::new(), files: Vec::new(), answers: String::new() };
        for part in text.split(PART).skip(1) {
            let (title, body) = part.split_once('\n').unwrap();
            let words: Vec<&str> = title.split(' ').collect();
            match words[..] {
                ["bucket", section, number, ..] => {
                    let key = (section.parse().unwrap(), number.parse().unwrap());
                    assert!(golden.buckets.insert(key, parse(body)).is_none());
                }
                ["detail", _] => {
                    let detail = parse(body);
                    let mut from = Reader::new(&detail);
                    golden.infos.push(SegmentInfo::decode(&mut from).unwrap());
                    from.end().unwrap();
                }
                ["segment", name] => golden.files.push((name.to_owned(), parse(body))),
                ["answers"] => body.clone_into(&mut golden.answers),
                _ => panic!("{title}"),
            }
        }
        golden
    }

    /// The partition of the cut, and its segments.
    fn restore(&self) -> (Partition, Vec<Arc<Segment>>) {
        let (disk, dir) = (FaultFs::new(), Path::new(DIR));
        disk.create_dir_all(dir).unwrap();
        for (name, content) in &self.files {
            let file = disk.create(&dir.join(name)).unwrap();
            file.write_at(0, content).unwrap();
        }
        let open = |info| Arc::new(Segment::open(&disk, dir, info).unwrap());
        let segments: Vec<_> = self.infos.iter().map(open).collect();
        (restore(&self.buckets, &segments).unwrap(), segments)
    }
}

/// What a partition says, one fact a line.
fn answers(partition: &Partition) -> String {
    let (mut text, other) = (String::new(), PartitionId(1));
    let took: Result<(), Infallible> = partition.export_edges(|edge| {
        writeln!(text, "{} follows {} since {}", edge.reader, edge.owner, edge.since.0).unwrap();
        Ok(())
    });
    took.unwrap();
    let mut entries = Vec::new();
    let took: Result<(), SegmentError> = partition.export_entries(|entry, key| {
        let Entry { id, space, owner, author, version, expiry, payload, reference, .. } = entry;
        let (expiry, reference) = (expiry.map(|at| at.0), reference.map(|to| (to.owner.0, to.id.0)));
        entries.push(format!(
            "{} {space} {owner} {author} {version} {expiry:?} {reference:?} {payload:?} {key:?}",
            id.0
        ));
        Ok(())
    });
    took.unwrap();
    entries.sort_unstable();
    entries.iter().for_each(|line| writeln!(text, "{line}").unwrap());
    let message = partition.stream_message(other, JournalPosition(0), usize::MAX, usize::MAX);
    for (position, event) in message.into_iter().flat_map(|message| message.events) {
        writeln!(text, "event {}: {event:?}", position.0).unwrap();
    }
    let users = (0..).map(UserId).take(64);
    for owner in users.filter(|owner| partition.follower_count_here(GRAPH, *owner) > 0) {
        let followers = partition.followers_here(GRAPH, owner, None, 100);
        let followers: Vec<u64> = followers.iter().map(|(user, _)| user.0).collect();
        writeln!(text, "{owner} is followed by {followers:?}").unwrap();
    }
    partition.paused().for_each(|owner| writeln!(text, "{owner} is paused").unwrap());
    let due = partition.next_due().map(|due| due.0);
    writeln!(text, "applied {}, stamp {}, due {due:?}", partition.applied(), partition.stamp().0).unwrap();
    text
}

#[test]
fn the_golden_buckets_are_read_and_written_again_as_they_are() {
    let golden = is_written_again(PLAIN);
    assert!((1..=10).all(|section| golden.buckets.keys().any(|(found, _)| *found == section)));
    assert_eq!(golden.buckets[&(1, 0)][0], 1);
}

#[test]
fn so_are_those_of_a_partition_with_a_paused_fan_out() {
    let golden = is_written_again(PAUSED);
    assert_eq!(golden.buckets[&(1, 0)][0], 2);
    assert_eq!(golden.answers.lines().filter(|line| line.ends_with(" is paused")).count(), 2);
}

/// Reads a file, and holds what is written of what it says to it.
fn is_written_again(name: &str) -> Golden {
    let text = fs::read_to_string(path(name)).unwrap();
    let golden = Golden::from_text(&text);
    let (mut partition, segments) = golden.restore();
    assert_eq!(answers(&partition), golden.answers);
    let mut buckets = Buckets::new();
    partition.begin_cut();
    while let Some(bucket) = partition.next_bucket(&|_, _| true) {
        match bucket {
            CutBucket::Unfinished => {}
            CutBucket::Written { section, number, bytes } => _ = buckets.insert((section, number), bytes),
            CutBucket::Unchanged { section, number } => panic!("{section} {number} was to be written"),
        }
    }
    let (timelines, infos) = partition.cut_timelines().expect("all entries are in segments").encode();
    drop(partition.end_cut());
    buckets.insert((TIMELINES_SECTION, 0), timelines);
    for (key, bytes) in &golden.buckets {
        assert_eq!(dump(&buckets[key]), dump(bytes), "section {}, bucket {}", key.0, key.1);
    }
    assert_eq!(buckets.len(), golden.buckets.len());
    assert!(infos.iter().eq(segments.iter().map(|segment| segment.info())));
    let golden = Golden { buckets, ..golden };
    assert_eq!(golden.to_text(), text);
    golden
}

/// Writes the files, if there are none: for the first version of a new format, never for one that exists.
#[test]
#[ignore = "the files of a version are never written again"]
fn write_the_golden_buckets() {
    let write = |name: &str, life: &mut Life| {
        life.cut(0);
        if !path(name).exists() {
            fs::write(path(name), Golden::of(life).to_text()).unwrap();
        }
    };
    let mut life = Life::new(12, 60);
    life.go_on(260);
    write(PLAIN, &mut life);
    let mut life = Life::new(4, 20);
    life.go_on(80);
    let owners = [life.users[0], life.users[1]];
    life.apply(&owners.map(|owner| Command::PauseFanOut { owner, is_paused: true }));
    life.go_on(30);
    // The last one expires, so that the segments are in the order in which a partition that was restored has them.
    let item = Append {
        space: SPACE,
        owner: owners[0],
        author: None,
        audience: Audience::Public,
        ttl: Ttl::Ms { ttl_ms: 3_000 },
        key: None,
        reference: None,
        payload: Bytes::from_static(b"kept back"),
    };
    let last = life.write(Write::Append { items: vec![item] });
    life.apply(&[last]);
    write(PAUSED, &mut life);
}
