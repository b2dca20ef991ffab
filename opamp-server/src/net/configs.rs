//! Equal effective configurations, for all agents of a server: most of a fleet report one of a few.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use opamp_proto::{Part, material};

use super::settings::ServerSettings;

/// The effective configurations reported last, each once, so that agents that report the same bytes share one allocation.
///
/// It keeps none alive: what only the table has is let go with the next sweep. Beyond its bound the one that no second agent
/// reported goes first; those who have it keep it.
#[derive(Debug)]
pub(crate) struct ConfigTable {
    inner: Mutex<Inner>,
    kept: usize,
    bytes_max: usize,
}

/// An effective configuration on its way into a session.
#[derive(Clone, Debug)]
pub(crate) struct SharedConfig {
    pub(crate) bytes: Bytes,
    /// Its [material digest](material::digest).
    pub(crate) digest: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// By material digest.
    known: HashMap<u64, Entry>,
    /// In the order they came.
    order: VecDeque<u64>,
    /// The one shared last: when a fleet is offered a config, one agent after the other reports the same.
    last: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    /// Reported by a second agent since it was looked at last.
    shared: bool,
}

impl ConfigTable {
    pub(crate) fn new(settings: &ServerSettings) -> Self {
        let (kept, bytes_max) = (settings.shared_configs_max, settings.shared_configs_bytes_max);
        Self { inner: Mutex::default(), kept, bytes_max }
    }

    /// These bytes, shared with all that reported the same.
    pub(crate) fn share(&self, encoded: &[u8]) -> SharedConfig {
        if let Some(last) = self.lock().last(encoded) {
            return last;
        }
        let digest = material::digest(Part::EffectiveConfig, encoded);
        if self.kept == 0 || encoded.len() > self.bytes_max {
            return SharedConfig { bytes: Bytes::copy_from_slice(encoded), digest };
        }
        let mut inner = self.lock();
        if let Some(entry) = inner.known.get_mut(&digest) {
            if entry.bytes == encoded {
                entry.shared = true;
                let bytes = entry.bytes.clone();
                inner.last = digest;
                return SharedConfig { bytes, digest };
            }
            // The same in another order, or a collision: everybody keeps what he said.
            drop(inner);
            return SharedConfig { bytes: Bytes::copy_from_slice(encoded), digest };
        }
        let bytes = Bytes::copy_from_slice(encoded);
        inner.make_room(self.kept, self.bytes_max - bytes.len());
        inner.order.push_back(digest);
        inner.bytes += bytes.len();
        inner.known.insert(digest, Entry { bytes: bytes.clone(), shared: false });
        SharedConfig { bytes, digest }
    }

    /// Lets go of what no agent has any more.
    pub(crate) fn sweep(&self) {
        let Inner { known, order, bytes, .. } = &mut *self.lock();
        order.retain(|digest| {
            let unused = known.get(digest).is_none_or(|entry| entry.bytes.is_unique());
            if unused && let Some(entry) = known.remove(digest) {
                *bytes -= entry.bytes.len();
            }
            !unused
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The one shared last, if it is this: comparing is cheaper than a digest.
    fn last(&mut self, encoded: &[u8]) -> Option<SharedConfig> {
        let digest = self.last;
        let entry = self.known.get_mut(&digest).filter(|entry| entry.bytes == encoded)?;
        entry.shared = true;
        Some(SharedConfig { bytes: entry.bytes.clone(), digest })
    }

    /// Ends because every round takes an entry out, or the mark that saves it once.
    fn make_room(&mut self, kept: usize, bytes_left: usize) {
        while self.known.len() >= kept || self.bytes > bytes_left {
            let Some(oldest) = self.order.pop_front() else { break };
            match self.known.get_mut(&oldest) {
                Some(entry) if entry.shared => {
                    entry.shared = false;
                    self.order.push_back(oldest);
                }
                _ => {
                    let gone = self.known.remove(&oldest);
                    self.bytes -= gone.map_or(0, |entry| entry.bytes.len());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use opamp_proto::pb;
    use prost::Message as _;

    use super::*;

    fn table(kept: usize) -> ConfigTable {
        ConfigTable::new(&ServerSettings { shared_configs_max: kept, ..ServerSettings::default() })
    }

    fn kept(table: &ConfigTable) -> (usize, usize) {
        let inner = table.lock();
        (inner.known.len(), inner.order.len())
    }

    fn config(body: &str) -> Vec<u8> {
        let file = pb::AgentConfigObject { body: body.as_bytes().to_vec().into(), ..Default::default() };
        let config_map = [(String::new(), file)].into();
        pb::EffectiveConfig { config_map: Some(pb::AgentConfigMap { config_map }) }.encode_to_vec()
    }

    #[test]
    fn equal_configs_are_one_allocation_that_goes_with_the_last_agent() {
        let table = table(10);
        let agents: Vec<_> = (0..3).map(|_| table.share(&config("a")).bytes).collect();
        assert!(agents.iter().all(|bytes| bytes.as_ptr() == agents[0].as_ptr()));
        let other = table.share(&config("b"));
        assert_ne!(other.bytes.as_ptr(), agents[0].as_ptr());
        assert_eq!(other.digest, material::digest(Part::EffectiveConfig, &other.bytes));
        for name in ["a", "a", "b", "b", "a"] {
            let again = table.share(&config(name));
            let first = if name == "a" { &agents[0] } else { &other.bytes };
            assert_eq!(again.bytes.as_ptr(), first.as_ptr());
            assert_eq!(again.digest, material::digest(Part::EffectiveConfig, first));
        }
        table.sweep();
        assert_eq!(kept(&table), (2, 2), "they are in use");
        drop(agents);
        table.sweep();
        assert_eq!(kept(&table), (1, 1));
        drop(other);
        table.sweep();
        assert_eq!(kept(&table), (0, 0));
    }

    #[test]
    fn the_bound_holds_and_what_many_have_outlives_what_one_has() {
        let table = table(4);
        let shared = table.share(&config("everybody's"));
        table.share(&config("everybody's"));
        for n in 0..100 {
            if n % 3 == 0 {
                assert_eq!(table.share(&config("everybody's")).bytes.as_ptr(), shared.bytes.as_ptr());
            }
            table.share(&config(&n.to_string()));
            let (known, order) = kept(&table);
            assert!(known <= 4 && order <= 4);
        }
    }

    /// What is counted is what is known, and everything known is in order to be looked at.
    fn assert_in_order(table: &ConfigTable) {
        let inner = table.lock();
        assert_eq!(inner.bytes, inner.known.values().map(|entry| entry.bytes.len()).sum::<usize>());
        assert!(inner.order.len() == inner.known.len());
        assert!(inner.order.iter().all(|digest| inner.known.contains_key(digest)));
    }

    /// Shares a config until it is the one that is looked at first.
    fn shared_last(table: &ConfigTable, config: &[u8]) -> Bytes {
        let shared = table.share(config);
        assert_eq!(table.share(config).bytes.as_ptr(), shared.bytes.as_ptr());
        assert_eq!(table.lock().last, shared.digest);
        shared.bytes
    }

    #[test]
    fn the_one_shared_last_is_shared_anew_once_it_was_driven_out_or_swept() {
        let digest = material::digest(Part::EffectiveConfig, &config("a"));
        let table = table(1);
        let gone = shared_last(&table, &config("a"));
        table.share(&config("b"));
        assert!(!table.lock().known.contains_key(&digest) && table.lock().last == digest, "driven out");
        let again = table.share(&config("a"));
        assert_eq!((&again.bytes, again.digest), (&gone, digest));
        assert_ne!(again.bytes.as_ptr(), gone.as_ptr(), "whoever has it keeps it");
        assert_eq!(shared_last(&table, &config("a")).as_ptr(), again.bytes.as_ptr());
        assert_in_order(&table);

        drop((gone, again));
        table.sweep();
        assert_eq!((kept(&table), table.lock().last), ((0, 0), digest), "swept");
        let again = table.share(&config("a"));
        assert_eq!((&again.bytes[..], again.digest), (&config("a")[..], digest));
        assert_eq!(shared_last(&table, &config("a")).as_ptr(), again.bytes.as_ptr());
        assert_in_order(&table);
    }

    #[test]
    fn neither_one_that_is_too_large_nor_one_in_another_order_takes_the_place_of_the_one_shared_last() {
        let file = |name: &str| {
            let config_map = [(name.to_owned(), pb::AgentConfigObject::default())].into();
            pb::AgentConfigMap { config_map }.encode_to_vec()
        };
        let of = |names: [&str; 2]| {
            let mut encoded = Vec::new();
            opamp_proto::encode::bytes_field(1, &names.map(file).concat(), &mut encoded);
            encoded
        };
        let settings = ServerSettings { shared_configs_bytes_max: 100, ..ServerSettings::default() };
        let table = ConfigTable::new(&settings);
        let last = shared_last(&table, &of(["a", "b"]));
        for other in [of(["b", "a"]), config(&"x".repeat(100))] {
            for _ in 0..2 {
                let shared = table.share(&other);
                assert_eq!(shared.bytes, other);
                assert_eq!(shared.digest, material::digest(Part::EffectiveConfig, &other));
                assert_ne!(shared.bytes.as_ptr(), table.share(&other).bytes.as_ptr());
            }
            assert_eq!(kept(&table), (1, 1));
            assert_eq!(shared_last(&table, &of(["a", "b"])).as_ptr(), last.as_ptr());
        }
        assert_in_order(&table);
    }

    #[test]
    fn without_room_nothing_is_shared() {
        let table = table(0);
        assert_ne!(table.share(&config("a")).bytes.as_ptr(), table.share(&config("a")).bytes.as_ptr());
        assert!(table.lock().known.is_empty());
    }

    #[test]
    fn large_configs_are_bounded_by_their_bytes_and_one_that_is_too_large_is_not_kept() {
        let each = config(&"x".repeat(1_000)).len();
        let settings = ServerSettings { shared_configs_bytes_max: 3 * each, ..ServerSettings::default() };
        let table = ConfigTable::new(&settings);
        let large = |n: usize| config(&format!("{n:04}{}", "x".repeat(996)));
        let shared = table.share(&large(0));
        for n in 1..20 {
            assert_eq!(table.share(&large(0)).bytes.as_ptr(), shared.bytes.as_ptr());
            table.share(&large(n));
            let inner = table.lock();
            assert!(inner.known.len() <= 3 && inner.order.len() <= 3);
            assert_eq!(inner.bytes, inner.known.values().map(|entry| entry.bytes.len()).sum::<usize>());
        }
        let before = kept(&table);
        let larger = config(&"x".repeat(4_000));
        assert_ne!(table.share(&larger).bytes.as_ptr(), table.share(&larger).bytes.as_ptr());
        assert_eq!(kept(&table), before, "it drives nothing out");
        drop(shared);
        table.sweep();
        assert_eq!((kept(&table), table.lock().bytes), ((0, 0), 0));
    }
}
