//! Buffers that a thread's connections take turns with, so that none has its own while it is idle.

use std::cell::Cell;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

/// The most that one read takes from the network.
const INCOMING_BYTES: usize = 64 * 1024;

/// The plaintext of one record (RFC 8446 §5.1).
pub(super) const RECORD_BYTES: usize = 16 * 1024;

/// One record of ciphertext, and a key update before it. Where a caller's configuration asks for tiny records
/// (`max_fragment_size`), what they add to the plaintext takes more, at most as much as the plaintext once again or so.
const OUTGOING_BYTES: usize = RECORD_BYTES + 4 * 1024;

thread_local! {
    static INCOMING: Cell<Box<[u8]>> = Cell::default();
    static OUTGOING: Cell<Box<[u8]>> = Cell::default();
    static GATHERED: Cell<Box<[u8]>> = Cell::default();
}

/// A buffer of this thread, put back when it is dropped. Its contents are what somebody left there.
pub(super) struct Scratch {
    bytes: Box<[u8]>,
    home: &'static LocalKey<Cell<Box<[u8]>>>,
}

impl Scratch {
    /// For what is read from the network.
    pub(super) fn incoming() -> Self {
        Self::take(&INCOMING, INCOMING_BYTES)
    }

    /// For what is written to the network.
    pub(super) fn outgoing() -> Self {
        Self::take(&OUTGOING, OUTGOING_BYTES)
    }

    /// For the plaintext of a record that comes in pieces.
    pub(super) fn gathered() -> Self {
        Self::take(&GATHERED, RECORD_BYTES)
    }

    /// Makes it at least this long, from now on also for those who use it next.
    pub(super) fn extend_to(&mut self, bytes: usize) {
        if bytes > self.bytes.len() {
            self.bytes = vec![0; bytes].into_boxed_slice();
        }
    }

    /// Whoever asks while it is taken, a stream within a stream, gets another one.
    fn take(home: &'static LocalKey<Cell<Box<[u8]>>>, bytes: usize) -> Self {
        let mut taken = home.take();
        if taken.is_empty() {
            taken = vec![0; bytes].into_boxed_slice();
        }
        Self { bytes: taken, home }
    }
}

impl Deref for Scratch {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let bytes = mem::take(&mut self.bytes);
        // A thread that ends has no place for it any more.
        let _ = self.home.try_with(|home| home.set(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_is_nobodys_twice() {
        let mut first = Scratch::outgoing();
        first[7] = 7;
        let second = Scratch::outgoing();
        assert_ne!(first.as_ptr(), second.as_ptr());
        drop(second);
        drop(first);
        assert_eq!(Scratch::outgoing()[7], 7, "the last one that was put back");
        assert_eq!(Scratch::outgoing()[7], 7);
    }
}
