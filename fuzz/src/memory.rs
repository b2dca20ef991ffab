//! What a call allocates.

pub use allocation_counter::AllocationInfo as Allocated;

use crate::tape::Tape;

/// Things that happen, of one input.
const STEPS_MAX: usize = 48;
/// How much a session may grow when the same events come a third time: the room its queues keep.
const GROWTH_BYTES_MAX: i64 = 16 << 10;

/// Runs a call and says what it allocated.
pub fn measured<T>(call: impl FnOnce() -> T) -> (T, Allocated) {
    let mut value = None;
    let allocated = allocation_counter::measure(|| value = Some(call()));
    let Some(value) = value else { unreachable!("the call was made") };
    (value, allocated)
}

/// Lets the same events happen three times, one by each call, and asserts that whoever takes them does not hold more every time.
pub(crate) fn repeated(events: &[u8], mut step: impl FnMut(&mut Tape<'_>)) {
    // What each round leaves allocated, everything in it counted.
    let mut round = || {
        let mut tape = Tape::new(events);
        let steps = || {
            for _ in 0..STEPS_MAX {
                if tape.is_empty() {
                    break;
                }
                step(&mut tape);
            }
        };
        measured(steps).1.bytes_current
    };
    let grown = [round(), round(), round()];
    assert!(grown[2] <= GROWTH_BYTES_MAX, "it grows with every round: {grown:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_at_one_time_is_counted() {
        let (bytes, allocated) = measured(|| {
            drop(std::hint::black_box(vec![1_u8; 5_000]));
            std::hint::black_box(vec![1_u8; 3_000])
        });
        assert_eq!((bytes.len(), allocated.bytes_max, allocated.bytes_current), (3_000, 5_000, 3_000));
        assert_eq!(measured(|| ()).1.count_total, 0);
    }
}
