//! Values read off the bytes that the fuzzer hands over.
//!
//! Everything is drawn from the front, byte by byte, so that a small change of the input is a small change of what it means;
//! past the end there are zeros, which choose the first of everything and then nothing.

/// The bytes of one input, and how far they are used up.
#[derive(Debug)]
pub struct Tape<'a> {
    rest: &'a [u8],
}

impl<'a> Tape<'a> {
    /// A tape at its beginning.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether everything was used.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        byte
    }

    /// One in two.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `bound`, which is at most 256.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A number in two bytes.
    pub fn short(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number whose size is drawn too: small ones, edges of types, and any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => small.into(),
            200..=219 => self.short().into(),
            220..=239 => u64::MAX >> self.below(64),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    /// At most `max` bytes; how many is drawn first.
    pub fn bytes(&mut self, max: usize) -> &'a [u8] {
        let wanted = if max < 256 { self.below(max + 1) } else { usize::from(self.short()) % (max + 1) };
        let (bytes, rest) = self.rest.split_at(wanted.min(self.rest.len()));
        self.rest = rest;
        bytes
    }

    /// A short text of few letters, so that the same one comes up again; some with letters that need care.
    pub fn text(&mut self) -> String {
        const LETTERS: [char; 8] = ['a', 'b', 'c', '.', '/', 'é', '\u{0}', '𝄞'];
        (0..self.below(5)).map(|_| self.pick(&LETTERS)).collect()
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_end_there_are_zeros_and_nothing() {
        let mut tape = Tape::new(&[7, 255, 1, 2, 3]);
        assert_eq!((tape.byte(), tape.number()), (7, 0x0102_0300_0000_0000));
        assert!(tape.is_empty());
        assert_eq!((tape.byte(), tape.number(), tape.pick(&[5, 6]), tape.flag()), (0, 0, 5, false));
        assert_eq!((tape.bytes(9), tape.rest(), tape.text().as_str()), (&[][..], &[][..], ""));
    }

    #[test]
    fn bytes_are_as_many_as_drawn_and_there_are() {
        let mut tape = Tape::new(&[2, 10, 11, 9, 12]);
        assert_eq!(tape.bytes(9), [10, 11]);
        assert_eq!(tape.bytes(9), [12]);
    }
}
