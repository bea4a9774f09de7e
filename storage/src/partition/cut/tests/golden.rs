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

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/v1/partition_buckets.hex")
}

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
    let due = partition.next_due().map(|due| due.0);
    writeln!(text, "applied {}, stamp {}, due {due:?}", partition.applied(), partition.stamp().0).unwrap();
    text
}

#[test]
fn the_golden_buckets_are_read_and_written_again_as_they_are() {
    let text = fs::read_to_string(path()).unwrap();
    let golden = Golden::from_text(&text);
    assert!((1..=10).all(|section| golden.buckets.keys().any(|(found, _)| *found == section)));
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
    assert_eq!(Golden { buckets, ..golden }.to_text(), text);
}

/// Writes the file, if there is none: for the first version of a new format, never for one that exists.
#[test]
#[ignore = "the file of version 1 is never written again"]
fn write_the_golden_buckets() {
    assert!(!path().exists(), "the file of a version is written once");
    let mut life = Life::new(12, 60);
    life.go_on(260);
    life.cut(0);
    fs::write(path(), Golden::of(&life).to_text()).unwrap();
}
