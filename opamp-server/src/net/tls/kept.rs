//! Bytes that wait for somebody to take them.

/// A buffer that exists only while there is something in it.
#[derive(Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    taken: usize,
}

impl Kept {
    pub(super) fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// What nobody has taken yet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    /// The memory it holds.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }

    /// Takes the first `count` bytes, at most all; the buffer goes with the last one.
    pub(super) fn take(&mut self, count: usize) {
        self.taken = self.bytes.len().min(self.taken + count);
        if self.is_empty() {
            *self = Self::default();
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.reserve_exact(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_gone_and_the_memory_with_the_last_of_it() {
        let mut kept = Kept::default();
        assert!(kept.is_empty() && kept.held() == 0);
        kept.push(b"abcdef");
        assert_eq!((kept.rest(), kept.held()), (&b"abcdef"[..], 6));
        kept.take(2);
        assert_eq!(kept.rest(), b"cdef");
        kept.push(b"gh");
        assert_eq!(kept.rest(), b"cdefgh");
        kept.take(5);
        assert_eq!(kept.rest(), b"h");
        kept.take(9);
        assert!(kept.is_empty() && kept.held() == 0);
    }
}
