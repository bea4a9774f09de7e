//! Owns the allocator of the programs: jemalloc, whose threads do not wait for each other.
//!
//! - With the C library's, whoever freed the state of a replica in the background held the lock of an arena, and left it hundreds of
//!   thousands of small pieces to sort: requests on the same node waited for 30 to 80 ms.
//! - What is freed leaves the process within a second or so; with a memory budget at once: what stays in the allocator counts for
//!   that, and cannot be shed.

use tikv_jemalloc_ctl::{epoch, raw};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// Pages that nobody uses any more go back to the system within this time, by a thread for that. What a thread keeps of what it freed
/// is small pieces only: with larger ones, thirty threads kept 10 MiB of a budget of 96.
#[expect(unsafe_code, reason = "the allocator looks for its settings under this name before anything runs")]
// SAFETY: nothing else has this name; the allocator reads the first word, which points to text that ends with a zero and never goes.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: &[u8] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,tcache_max:4096\0";

/// Pieces of memory that the process has asked for so far; none if the allocator does not count them.
pub(crate) fn allocations() -> Option<u64> {
    // 4096 is all arenas together.
    let [small, large] =
        told([b"stats.arenas.4096.small.nrequests\0", b"stats.arenas.4096.large.nrequests\0"])?;
    Some(small + large)
}

/// Two figures of the allocator, as of now. The names end with a zero, and the figures have 64 bits.
fn told([one, other]: [&[u8]; 2]) -> Option<[u64; 2]> {
    // The figures are those of the last epoch.
    epoch::advance().ok()?;
    // SAFETY: whoever calls this names figures of that type.
    #[expect(unsafe_code, reason = "the allocator tells its figures by name")]
    let read = |name: &[u8]| unsafe { raw::read::<u64>(name) }.ok();
    Some([read(one)?, read(other)?])
}

/// Bytes that the allocator has and nobody uses: freed and not given back yet, left over in pages, and its own; none if it does not say.
pub(crate) fn unused_bytes() -> Option<u64> {
    let [resident, allocated] = told([b"stats.resident\0", b"stats.allocated\0"])?;
    Some(resident.saturating_sub(allocated))
}

/// From now on pages that nobody uses any more leave the process at once. To be told before other threads are there.
#[expect(unsafe_code, reason = "the allocator takes its settings by name")]
pub(crate) fn give_back_what_is_freed() {
    let now: isize = 0;
    for setting in [&b"arenas.dirty_decay_ms\0"[..], b"arena.0.dirty_decay_ms\0"] {
        // SAFETY: both names end with a zero, and their values are of that type.
        if let Err(error) = unsafe { raw::write(setting, now) } {
            tracing::warn!(%error, "the allocator refuses a setting; it may keep more memory than the budget");
        }
    }
}
