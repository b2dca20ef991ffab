//! Marks on probes, by which this process knows that they arrived here and nowhere else.
//!
//! A probe carries a fresh random word in a header. Whoever else answers it, in whatever way, that word does not show
//! up at the authenticator of this process. It proves nothing but that, and opens nothing.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use data_encoding::BASE32_NOPAD;
use http::HeaderMap;

/// The header that carries it.
pub(crate) const HEADER: &str = "opamp-self-probe";
const RANDOM_BYTES: usize = 20;

/// The marks of the probes that are under way; only these are looked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(Arc<Mutex<Vec<Arc<Expected>>>>);

#[derive(Debug)]
struct Expected {
    word: String,
    arrived: AtomicBool,
    recognised: AtomicBool,
}

/// The mark of one probe, looked for until it is dropped.
#[derive(Debug)]
pub(crate) struct Mark {
    own: Arc<Expected>,
    all: Marks,
}

impl Marks {
    /// A mark for a probe to come.
    ///
    /// # Errors
    /// No random numbers.
    pub(crate) fn expect(&self) -> Result<Mark, getrandom::Error> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random)?;
        let own = Arc::new(Expected {
            word: BASE32_NOPAD.encode(&random),
            arrived: AtomicBool::new(false),
            recognised: AtomicBool::new(false),
        });
        self.expected().push(Arc::clone(&own));
        Ok(Mark { own, all: self.clone() })
    }

    /// A request with these headers is here, and shows a credential of this process or does not.
    pub(crate) fn note(&self, headers: &HeaderMap, recognised: bool) {
        for shown in headers.get_all(HEADER) {
            for expected in self.expected().iter().filter(|expected| expected.word.as_bytes() == shown) {
                expected.arrived.store(true, Ordering::Release);
                expected.recognised.fetch_or(recognised, Ordering::AcqRel);
            }
        }
    }

    fn expected(&self) -> MutexGuard<'_, Vec<Arc<Expected>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    /// The value of the header.
    pub(crate) fn word(&self) -> &str {
        &self.own.word
    }

    /// Whether the probe that carries it came with its credential.
    pub(crate) fn is_recognised(&self) -> bool {
        self.own.recognised.load(Ordering::Acquire)
    }

    /// Whether the probe that carries it was here.
    pub(crate) fn has_arrived(&self) -> bool {
        self.own.arrived.load(Ordering::Acquire)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.all.expected().retain(|expected| !Arc::ptr_eq(expected, &self.own));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(words: &[&str]) -> HeaderMap {
        words.iter().map(|word| (HEADER.parse().unwrap(), word.parse().unwrap())).collect()
    }

    #[test]
    fn a_probe_has_arrived_when_its_own_mark_has_and_nothing_else_is_kept() {
        let marks = Marks::default();
        let (first, second) = (marks.expect().unwrap(), marks.expect().unwrap());
        assert_ne!(first.word(), second.word());
        for other in [&[][..], &["", "x"], &[&first.word()[1..]]] {
            marks.note(&headers(other), true);
            assert!(!first.has_arrived() && !second.has_arrived(), "{other:?}");
        }
        marks.note(&headers(&["x", second.word()]), false);
        assert!(!first.has_arrived() && second.has_arrived() && !second.is_recognised());
        marks.note(&headers(&[second.word()]), true);
        assert!(second.is_recognised() && !first.is_recognised());
        drop((first, second));
        assert!(marks.expected().is_empty());
    }
}
