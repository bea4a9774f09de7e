//! Owns how the C library's allocator is set for a node with a memory budget.
//!
//! - It is set before other threads exist, and once.
//! - Without a budget, or with another C library, nothing is set.

/// Allocations of at least so many bytes get pages of their own, which go back to the system when they are freed.
const OWN_PAGES_BYTES: i32 = 128 << 10;

/// Makes memory that is freed leave the process: what stays in the allocator counts for the budget, and cannot be shed.
///
/// By itself the library keeps eight arenas for each core, and learns from large blocks that are freed to keep larger ones; an import
/// of 16 KiB payloads left half of the resident size free inside it.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the settings are functions of the C library")]
pub(crate) fn give_back_what_is_freed(threads: usize) {
    let arenas = i32::try_from(threads.max(2)).unwrap_or(i32::MAX);
    let settings = [
        (libc::M_ARENA_MAX, arenas),
        (libc::M_MMAP_THRESHOLD, OWN_PAGES_BYTES),
        (libc::M_TRIM_THRESHOLD, OWN_PAGES_BYTES),
    ];
    for (setting, value) in settings {
        // SAFETY: it takes two numbers and locks for itself; a setting it does not know it refuses.
        let done = unsafe { libc::mallopt(setting, value) };
        if done == 0 {
            tracing::warn!(
                setting,
                value,
                "the allocator refuses a setting; it may keep more memory than the budget"
            );
        }
    }
}

/// Other C libraries have no such settings.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back_what_is_freed(_threads: usize) {}
