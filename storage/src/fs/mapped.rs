//! Owns the view of a whole file as memory.
//!
//! - What is mapped is never written again: only files that have their final name are mapped.
//! - Slices of the bytes keep the mapping alive, also behind the removal of the file's name.

use std::fs;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::{Mmap, UncheckedAdvice};

/// The bytes of a file, read from the disk where they are touched. Clones share the mapping.
///
/// A page that the disk cannot read ends the process (SIGBUS), as does a file that somebody cuts while it is mapped; so what must not end it is
/// read instead. The program names the file before its end.
#[derive(Debug, Clone)]
pub struct Mapped {
    bytes: Bytes,
    map: Option<Arc<Mmap>>,
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapped {
    /// Maps the whole of `file`, as long as it is now.
    #[expect(unsafe_code, reason = "the compiler cannot know that nobody writes the file")]
    pub(super) fn file(file: &fs::File) -> io::Result<Self> {
        // SAFETY: the bytes must not change while they are borrowed. Files are mapped only after they have got their final
        // name, and from then on no code of ours writes or cuts them; removing the name leaves the content to the mapping.
        let map = Arc::new(unsafe { Mmap::map(file)? });
        Ok(Self { bytes: Bytes::from_owner(Owner(Arc::clone(&map))), map: Some(map) })
    }

    /// Bytes that are in memory anyhow, for file systems that are.
    pub(super) fn copied(bytes: Vec<u8>) -> Self {
        Self { bytes: bytes.into(), map: None }
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Tells the operating system that the pages are not needed soon: they leave the process's resident size and stay in
    /// the page cache as long as there is room. What is touched later is mapped again.
    #[expect(unsafe_code, reason = "the advice destroys the content of other kinds of mappings")]
    pub fn forget_pages(&self) -> io::Result<()> {
        match &self.map {
            // SAFETY: this is a shared, read-only mapping of a file, without pages of its own; what is dropped is read
            // from the same file again, which does not change (see `file`), so that borrowed slices stay as they are.
            Some(map) => unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) },
            None => Ok(()),
        }
    }
}
