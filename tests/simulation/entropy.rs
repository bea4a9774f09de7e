//! Owns all chance of the process: whoever asks the operating system for random bytes gets a sequence of the seed's.
//!
//! - Hash maps' keys, the runtime's choice between ready branches and Raft's election timeouts all begin there, so that a
//!   process that does everything on one thread does the same for the same seed.
#![expect(unsafe_code, reason = "a function of the C library is replaced, for this binary alone")]

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

static STATE: AtomicU64 = AtomicU64::new(0);

/// What all other threads get: what they draw must not move the sequence on.
static ELSEWHERE: AtomicU64 = AtomicU64::new(1);

thread_local! {
    static IS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Begins the sequence of a seed, for this thread.
pub fn seed(seed: u64) {
    IS_HERE.set(true);
    STATE.store(seed ^ 0x5eed_0f0f_a11c_0de5, Ordering::Relaxed);
}

/// The next number of the sequence (SplitMix64).
fn next() -> u64 {
    let state = if IS_HERE.get() { &STATE } else { &ELSEWHERE };
    let z = state.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Takes the place of the C library's function of this name.
///
/// # Safety
/// As there: `buffer` is valid for writes of so many `bytes`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, bytes: usize, _flags: u32) -> isize {
    for at in 0..bytes {
        // SAFETY: the caller promises that so many bytes may be written.
        unsafe { buffer.add(at).write(next() as u8) };
    }
    bytes as isize
}
