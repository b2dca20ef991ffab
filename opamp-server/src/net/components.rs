//! Lists of components by their hash, for all agents of a server: agents of one build have the same (R-COMP-05, R-COMP-09).

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use opamp_proto::pb;
use prost::Message as _;

use super::settings::ServerSettings;

/// A cache with two bounds. The hash is the agents' own making and cannot be checked: an agent that reports a false list under
/// the hash of a build nobody reported yet has that list shown for every agent that reports the hash alone. What was remembered first is thrown out first; an agent that needs it again is asked again.
#[derive(Debug)]
pub(crate) struct ComponentCache {
    inner: Mutex<Inner>,
    kept: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// Encoded `AvailableComponents` by their hash.
    lists: HashMap<Bytes, Bytes>,
    /// In the order they came.
    order: VecDeque<Bytes>,
    bytes: usize,
}

impl ComponentCache {
    pub(crate) fn new(settings: &ServerSettings) -> Self {
        Self {
            inner: Mutex::default(),
            kept: settings.components_kept,
            bytes_max: settings.components_bytes_max,
        }
    }

    /// What the server knows for a report: the list under its hash if it has only that, or the list itself, from now on
    /// shared by all that reported the same.
    pub(crate) fn resolve(&self, encoded: &[u8]) -> Option<Bytes> {
        let report = pb::AvailableComponents::decode(encoded).ok()?;
        if report.hash.is_empty() {
            return None;
        }
        if report.components.is_empty() {
            return self.lock().lists.get(&report.hash).cloned();
        }
        Some(self.remember(Bytes::copy_from_slice(&report.hash), Bytes::copy_from_slice(encoded)))
    }

    /// Remembers a list from an earlier process.
    pub(crate) fn prime(&self, encoded: &Bytes) -> Option<Bytes> {
        self.resolve(encoded)
    }

    /// The first list that came under a hash stays; one that differs from it is its agent's own business.
    fn remember(&self, hash: Bytes, list: Bytes) -> Bytes {
        let mut inner = self.lock();
        match inner.lists.get(&hash) {
            Some(known) if *known == list => return known.clone(),
            Some(_) => return list,
            None => {}
        }
        let bytes = hash.len() + list.len();
        if self.kept == 0 || bytes > self.bytes_max {
            return list;
        }
        while inner.lists.len() >= self.kept || inner.bytes + bytes > self.bytes_max {
            let Some(oldest) = inner.order.pop_front() else { break };
            if let Some(removed) = inner.lists.remove(&oldest) {
                inner.bytes -= oldest.len() + removed.len();
            }
        }
        inner.bytes += bytes;
        inner.order.push_back(hash.clone());
        inner.lists.insert(hash, list.clone());
        list
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(kept: usize, bytes_max: usize) -> ComponentCache {
        ComponentCache::new(&ServerSettings {
            components_kept: kept,
            components_bytes_max: bytes_max,
            ..ServerSettings::default()
        })
    }

    fn report(hash: &[u8], name: Option<&str>) -> Vec<u8> {
        let components = name.map(|name| (name.to_owned(), pb::ComponentDetails::default()));
        let components = components.into_iter().collect();
        pb::AvailableComponents { hash: Bytes::copy_from_slice(hash), components }.encode_to_vec()
    }

    #[test]
    fn a_list_is_found_by_its_hash_whatever_its_length() {
        let cache = cache(10, 10_000);
        for hash in [&b"h"[..], &[7; 100]] {
            assert!(cache.resolve(&report(hash, None)).is_none());
            cache.resolve(&report(hash, Some("otlp")));
            assert_eq!(cache.resolve(&report(hash, None)).unwrap(), report(hash, Some("otlp")));
        }
        assert!(cache.resolve(&report(b"", Some("otlp"))).is_none(), "no hash, nothing to find it by");
    }

    #[test]
    fn equal_lists_share_their_memory_and_another_one_does_not_displace_the_first() {
        let cache = cache(10, 10_000);
        let first = cache.resolve(&report(b"h", Some("otlp"))).unwrap();
        let second = cache.resolve(&report(b"h", Some("otlp"))).unwrap();
        assert_eq!(first.as_ptr(), second.as_ptr());
        let forged = cache.resolve(&report(b"h", Some("forged"))).unwrap();
        assert_eq!(forged, report(b"h", Some("forged")), "its own agent keeps what it said");
        assert_eq!(cache.resolve(&report(b"h", None)).unwrap(), first);
    }

    #[test]
    fn neither_bound_is_exceeded() {
        let by_count = cache(2, usize::MAX);
        for hash in 0..10u8 {
            by_count.resolve(&report(&[hash], Some("a")));
        }
        assert_eq!(by_count.lock().lists.len(), 2);
        assert!(
            by_count.resolve(&report(&[9], None)).is_some()
                && by_count.resolve(&report(&[7], None)).is_none()
        );
        let by_bytes = cache(100, 50);
        for hash in 0..10u8 {
            by_bytes.resolve(&report(&[hash], Some("a-component")));
            assert!(by_bytes.lock().bytes <= 50);
        }
        by_bytes.resolve(&report(b"x", Some(&"n".repeat(100))));
        assert!(by_bytes.resolve(&report(b"x", None)).is_none(), "larger than all there is room for");
        assert!(by_bytes.resolve(&report(&[9], None)).is_some(), "and it displaces nothing");
        let off = cache(0, 1_000);
        off.resolve(&report(b"x", Some("a")));
        assert!(off.resolve(&report(b"x", None)).is_none());
    }
}
