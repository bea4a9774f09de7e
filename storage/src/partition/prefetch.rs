//! Owns the hint to the processor that a place in memory is about to be used.
//!
//! - A hint never changes what a program computes, and where there is none it is nothing.
//! - Besides the regions of `feed/` it is the only unsafe code of the partition. Each follower's head is a cache miss; a prototype of the loop over
//!   the followers stored 10 to 40 % more references with the hint.

/// Bytes of a cache line.
pub(super) const LINE_BYTES: usize = 64;

/// Asks for the cache line at the start of `value`, without waiting for it.
#[inline]
pub(super) fn prefetch<T>(value: &T) {
    prefetch_at(std::ptr::from_ref(value).cast());
}

/// Asks for all cache lines that `value` lies in, but for what it points to.
#[inline]
pub(super) fn prefetch_whole<T: ?Sized>(value: &T) {
    let first = std::ptr::from_ref(value).cast::<i8>();
    let last = size_of_val(value).saturating_sub(1);
    (0..last).step_by(LINE_BYTES).for_each(|offset| prefetch_at(first.wrapping_add(offset)));
    prefetch_at(first.wrapping_add(last));
}

#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "the prefetch intrinsic takes a raw pointer")]
#[inline]
fn prefetch_at(at: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: the instruction reads nothing and never faults, wherever it points.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at) }
}

/// Does nothing where the processor's hint is not known.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch_at(_at: *const i8) {}
