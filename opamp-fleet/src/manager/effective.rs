//! Effective configs that were stored lately: most agents of a fleet report one of a few, in the same bytes.

use std::collections::VecDeque;

use bytes::Bytes;
use opamp_proto::{ConfigHash, hash, pb};
use opamp_store::Blob;
use prost::Message as _;

/// Different reports remembered.
const KEPT: usize = 64;

/// Bytes of all of them together; a longer report is looked at each time.
const BYTES_MAX: usize = 4 << 20;

/// A report as it is stored.
#[derive(Clone, Debug)]
pub(super) struct Effective {
    /// The canonical encoding.
    pub(super) blob: Blob,
    /// The hash of what is in it.
    pub(super) hash: ConfigHash,
}

/// What the last reports are stored as, so that equal ones are decoded and hashed once. They are told by where their bytes
/// lie, because the server lets all agents with the same report share one copy.
#[derive(Debug, Default)]
pub(super) struct EffectiveConfigs {
    kept: VecDeque<(Bytes, Effective)>,
    bytes: usize,
}

impl EffectiveConfigs {
    /// What a report is stored as; none for one that cannot be decoded, which no accepted message holds.
    ///
    /// Encoders that keep no order of map entries encode one configuration in many ways. It is stored in the one way of
    /// ours, so that agents with equal configurations share a blob, and a repeated report is none.
    pub(super) fn stored(&mut self, reported: &Bytes) -> Option<Effective> {
        let same = |(known, _): &(Bytes, Effective)| {
            known.as_ptr() == reported.as_ptr() && known.len() == reported.len()
        };
        if let Some(place) = self.kept.iter().rposition(same) {
            return self.kept.get(place).map(|(_, effective)| effective.clone());
        }
        let decoded = pb::EffectiveConfig::decode(reported.clone()).ok()?;
        let canonical = Bytes::from(decoded.encode_to_vec());
        // Mostly it came in our way, and then it need not lie in memory twice.
        let canonical = if canonical == *reported { reported.clone() } else { canonical };
        let hash = hash::config_hash(&decoded.config_map.unwrap_or_default());
        let effective = Effective { blob: Blob::new(canonical), hash };
        self.remember(reported.clone(), effective.clone());
        Some(effective)
    }

    fn remember(&mut self, reported: Bytes, effective: Effective) {
        if reported.len() > BYTES_MAX {
            return;
        }
        self.bytes += reported.len();
        self.kept.push_back((reported, effective));
        while self.kept.len() > KEPT || self.bytes > BYTES_MAX {
            let Some((oldest, _)) = self.kept.pop_front() else { break };
            self.bytes -= oldest.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(files: &[&str]) -> Bytes {
        let file = |body: &str| pb::AgentConfigObject {
            body: Bytes::copy_from_slice(body.as_bytes()),
            ..pb::AgentConfigObject::default()
        };
        let config_map = files.iter().map(|body| ((*body).to_owned(), file(body))).collect();
        pb::EffectiveConfig { config_map: Some(pb::AgentConfigMap { config_map }) }.encode_to_vec().into()
    }

    #[test]
    fn what_came_in_our_encoding_is_stored_without_a_copy() {
        let (mut configs, reported) = (EffectiveConfigs::default(), report(&["a", "b"]));
        let stored = configs.stored(&reported).unwrap();
        assert_eq!(stored.blob.bytes().as_ptr(), reported.as_ptr());
        assert_eq!(stored.blob.id(), opamp_store::BlobId::of(&reported));
    }

    #[test]
    fn entries_in_another_order_are_the_same_config() {
        let (one, other) = (report(&["a"]), report(&["b"]));
        // The map is field 1 of field 1: two entries behind one another, in either order.
        let entries = |first: &Bytes, second: &Bytes| {
            let both = [&first[2..], &second[2..]].concat();
            Bytes::from([&[0x0a, u8::try_from(both.len()).unwrap()], &both[..]].concat())
        };
        let mut configs = EffectiveConfigs::default();
        let (sorted, turned) = (entries(&one, &other), entries(&other, &one));
        assert_ne!(sorted, turned);
        let (sorted, turned) = (configs.stored(&sorted).unwrap(), configs.stored(&turned).unwrap());
        assert_eq!((sorted.blob, sorted.hash), (turned.blob, turned.hash));
    }

    #[test]
    fn the_same_bytes_are_looked_at_once_and_neither_bound_is_exceeded() {
        let mut configs = EffectiveConfigs::default();
        let reported = report(&["shared"]);
        let first = configs.stored(&reported).unwrap();
        for _ in 0..3 {
            assert_eq!(configs.stored(&reported.clone()).unwrap().hash, first.hash);
        }
        assert_eq!(configs.kept.len(), 1);
        let all: Vec<_> = (0..KEPT + 10).map(|n| report(&[&n.to_string()])).collect();
        all.iter().for_each(|reported| drop(configs.stored(reported)));
        assert_eq!(configs.kept.len(), KEPT);
        configs.stored(&report(&["x".repeat(BYTES_MAX - 100).as_str()]));
        assert!(configs.bytes <= BYTES_MAX);
    }
}
