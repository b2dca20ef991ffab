//! One buffer per thread that every connection reads into and writes from, so that none has its own.

use std::cell::Cell;

/// Its size: what one `recv` takes at most, and one `send`.
pub(super) const SCRATCH_BYTES: usize = 64 << 10;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Lends the buffer, with whatever is in it. Never across an await; inside another loan it is another buffer.
pub(super) fn with<T>(borrow: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
    let result = borrow(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loan_inside_a_loan_is_another_buffer() {
        with(|outer| {
            outer[0] = 1;
            with(|inner| inner[0] = 2);
            assert_eq!(outer[0], 1);
        });
    }

    #[test]
    fn the_buffer_outlives_its_loans() {
        with(|scratch| scratch[7] = 7);
        let report = allocation_counter::measure(|| with(|scratch| assert_eq!(scratch[7], 7)));
        assert_eq!(report.count_total, 0);
    }
}
