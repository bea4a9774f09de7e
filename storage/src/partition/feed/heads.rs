//! Owns the heads of the feeds of a space, by local user index, in chunks that are never moved.

use super::head::Head;

/// Heads of a chunk: 256 KiB.
const CHUNK_HEADS: usize = 4_096;

#[derive(Debug, Default)]
pub(super) struct Heads {
    /// Made when the first of their users is stored something.
    chunks: Vec<Option<Box<[Head]>>>,
    made: usize,
}

impl Heads {
    #[inline]
    pub(super) fn get(&self, user: u32) -> Option<&Head> {
        let chunk = self.chunks.get(user as usize / CHUNK_HEADS)?.as_ref()?;
        Some(&chunk[user as usize % CHUNK_HEADS])
    }

    #[inline]
    pub(super) fn get_mut(&mut self, user: u32) -> Option<&mut Head> {
        let chunk = self.chunks.get_mut(user as usize / CHUNK_HEADS)?.as_mut()?;
        Some(&mut chunk[user as usize % CHUNK_HEADS])
    }

    /// The head of a user, made if there is none.
    pub(super) fn make(&mut self, user: u32) -> &mut Head {
        let chunk = user as usize / CHUNK_HEADS;
        if self.chunks.len() <= chunk {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let chunk = self.chunks[chunk].get_or_insert_with(|| {
            self.made += 1;
            vec![Head::default(); CHUNK_HEADS].into_boxed_slice()
        });
        &mut chunk[user as usize % CHUNK_HEADS]
    }

    /// All heads there are, by ascending local index.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Head)> {
        let chunks = self.chunks.iter().enumerate().filter_map(|(n, chunk)| Some((n, chunk.as_ref()?)));
        chunks.flat_map(|(n, chunk)| {
            chunk.iter().enumerate().map(move |(m, head)| ((n * CHUNK_HEADS + m) as u32, head))
        })
    }

    /// Bytes of memory they hold.
    pub(super) fn memory(&self) -> usize {
        self.made * CHUNK_HEADS * size_of::<Head>()
            + self.chunks.capacity() * size_of::<Option<Box<[Head]>>>()
    }
}
