//! The allocations of one thread, counted from outside.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

static WATCHED: AtomicI32 = AtomicI32::new(0);
static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OWN: Cell<i32> = const { Cell::new(0) };
}

/// The system's allocator; what the watched thread asks for is counted.
pub struct Counting;

// SAFETY: every call is passed on unchanged to `System`, which keeps the contract; the counter neither allocates
// nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this `layout`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `pointer` came from `System` with this `layout`; the size is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count() {
    let watched = WATCHED.load(Ordering::Relaxed);
    if watched != 0 && own() == watched {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

/// This thread's id; 0 when the thread is about to end.
fn own() -> i32 {
    let cached = OWN.try_with(|own| {
        if own.get() == 0 {
            // SAFETY: `gettid` has no arguments and cannot fail.
            own.set(unsafe { libc::gettid() });
        }
        own.get()
    });
    cached.unwrap_or(0)
}

/// Counts this thread from now on, and no other.
pub fn watch(thread: i32) {
    WATCHED.store(thread, Ordering::Relaxed);
}

/// Allocations of the watched threads so far.
pub fn counted() -> u64 {
    COUNT.load(Ordering::Relaxed)
}
