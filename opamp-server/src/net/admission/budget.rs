//! Memory that peers can make the server hold: one number of bytes for all of them together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A number of bytes that every connection draws from. Cheap to clone.
///
/// Charged is what has arrived and has to be kept across a wait, never what was only announced; so an announcement costs
/// nothing, and the sum of what is kept stays within the budget however many peers there are.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    used: AtomicUsize,
    peak: AtomicUsize,
    denied: AtomicU64,
}

/// Bytes drawn from a [`Budget`]; they go back when this is dropped.
#[derive(Debug)]
#[must_use = "dropping a charge gives its bytes back"]
pub(crate) struct Charge {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// A budget of `max` bytes.
    pub(crate) fn new(max: usize) -> Self {
        let (used, peak, denied) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicU64::new(0));
        Self(Arc::new(Inner { max, used, peak, denied }))
    }

    /// Draws `bytes`, if there are as many left; a refusal is counted. A charge of nothing, to grow later, is always had.
    pub(crate) fn try_charge(&self, bytes: usize) -> Option<Charge> {
        self.draw(bytes).then(|| Charge { budget: self.clone(), bytes })
    }

    /// A charge of nothing, to grow later.
    pub(crate) fn nothing(&self) -> Charge {
        Charge { budget: self.clone(), bytes: 0 }
    }

    /// All that may be drawn.
    pub(crate) fn max(&self) -> usize {
        self.0.max
    }

    /// What is drawn now.
    pub(crate) fn current(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// The most that was drawn at one time.
    pub(crate) fn peak(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// How often there was not enough left.
    pub(crate) fn denied(&self) -> u64 {
        self.0.denied.load(Ordering::Relaxed)
    }

    fn draw(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.0.max);
        match self.0.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            Ok(before) => {
                let used = before + bytes;
                if used > self.peak() {
                    self.0.peak.fetch_max(used, Ordering::Relaxed);
                }
                true
            }
            Err(_) => {
                self.0.denied.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    fn give_back(&self, bytes: usize) {
        if bytes > 0 {
            self.0.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

impl Charge {
    /// Draws `by` more bytes. Without them it stays as it is: what the bytes were for must not be kept.
    #[must_use = "bytes that were not drawn must not be kept"]
    pub(crate) fn grow(&mut self, by: usize) -> bool {
        let drawn = self.budget.draw(by);
        if drawn {
            self.bytes += by;
        }
        drawn
    }

    /// Gives bytes back, at most all of them.
    pub(crate) fn shrink(&mut self, by: usize) {
        let by = by.min(self.bytes);
        self.bytes -= by;
        self.budget.give_back(by);
    }

    /// All of it, in a charge of its own; what is left is nothing, to grow again.
    pub(crate) fn take(&mut self) -> Self {
        Self { budget: self.budget.clone(), bytes: std::mem::take(&mut self.bytes) }
    }

    /// How many bytes it is.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_drawn_goes_back_when_its_holder_is_gone() {
        let budget = Budget::new(100);
        let mut first = budget.try_charge(60).unwrap();
        assert!(budget.try_charge(41).is_none());
        assert!(first.grow(40) && !first.grow(1));
        assert_eq!((first.bytes(), budget.current(), budget.peak(), budget.denied()), (100, 100, 100, 2));
        first.shrink(70);
        let second = budget.try_charge(70).unwrap();
        assert_eq!(budget.current(), 100);
        drop(first);
        assert_eq!(budget.current(), 70);
        drop(second);
        assert_eq!((budget.current(), budget.peak(), budget.max()), (0, 100, 100));
    }

    #[test]
    fn nothing_may_be_drawn_from_an_empty_budget_and_no_sum_overflows() {
        let budget = Budget::new(0);
        assert!(budget.try_charge(1).is_none());
        let mut nothing = budget.try_charge(0).unwrap();
        assert!(!nothing.grow(usize::MAX));
        let whole = Budget::new(usize::MAX);
        let mut most = whole.try_charge(usize::MAX - 1).unwrap();
        assert!(!most.grow(2) && most.grow(1));
        most.shrink(usize::MAX);
        assert_eq!((most.bytes(), whole.current()), (0, 0));
    }

    #[test]
    fn many_threads_never_draw_more_than_there_is() {
        let budget = Budget::new(1_000);
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let budget = budget.clone();
                scope.spawn(move || {
                    for _ in 0..5_000 {
                        let charge = budget.try_charge(100 * thread);
                        assert!(budget.current() <= 1_000);
                        if let Some(mut charge) = charge {
                            let _ = charge.grow(300);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.current(), 0);
        assert!(budget.peak() <= 1_000);
    }

    proptest! {
        #[test]
        fn the_sum_of_all_charges_is_what_is_drawn(steps in proptest::collection::vec((0usize..4, 0usize..60), 0..80)) {
            let budget = Budget::new(200);
            let mut charges: Vec<Charge> = Vec::new();
            for (step, bytes) in steps {
                match step {
                    0 => charges.extend(budget.try_charge(bytes)),
                    1 => { let _ = charges.last_mut().map(|charge| charge.grow(bytes)); }
                    2 => { if let Some(charge) = charges.first_mut() { charge.shrink(bytes); } }
                    _ => { if !charges.is_empty() { drop(charges.remove(bytes % charges.len())); } }
                }
                prop_assert_eq!(budget.current(), charges.iter().map(Charge::bytes).sum::<usize>());
                prop_assert!(budget.current() <= budget.peak() && budget.peak() <= 200);
            }
        }
    }
}
