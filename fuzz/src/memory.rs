//! What a call allocates.

pub use allocation_counter::AllocationInfo as Allocated;

/// Runs a call and says what it allocated.
pub fn measured<T>(call: impl FnOnce() -> T) -> (T, Allocated) {
    let mut value = None;
    let allocated = allocation_counter::measure(|| value = Some(call()));
    let Some(value) = value else { unreachable!("the call was made") };
    (value, allocated)
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
