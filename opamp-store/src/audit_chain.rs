//! Walking the audit log's hash chains.

use std::collections::BTreeMap;

use crate::AuditEntry;

/// What a walk over the whole audit log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Entries read.
    pub entries: u64,
    /// The end of each writer's chain, as read. Keeping a copy elsewhere anchors the log against somebody who can
    /// rewrite the whole database.
    pub chains: BTreeMap<String, ChainHead>,
    /// The first place where a chain does not hold.
    pub broken: Option<AuditBreak>,
}

impl AuditReport {
    /// Whether every chain holds.
    pub fn is_intact(&self) -> bool {
        self.broken.is_none()
    }
}

/// The end of one writer's chain; of no entries by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChainHead {
    /// Entries in the chain.
    pub length: u64,
    /// `seq` of the last.
    pub seq: u64,
    /// `hash` of the last.
    pub hash: [u8; 32],
}

/// Where and how a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuditBreak {
    /// The entry is not what was hashed: one of its fields was changed.
    #[error("entry {seq} of writer {writer} was altered")]
    Altered {
        /// Whose chain.
        writer: String,
        /// Which entry.
        seq: u64,
    },
    /// The entry does not follow the one before it: something between was removed, inserted or reordered.
    #[error("entry {seq} of writer {writer} does not follow its predecessor")]
    Unlinked {
        /// Whose chain.
        writer: String,
        /// Which entry.
        seq: u64,
    },
    /// The chain ends elsewhere than the store recorded: its last entries were removed or added past the store.
    #[error("the chain of writer {writer} ends at entry {found}, not at {recorded}")]
    WrongEnd {
        /// Whose chain.
        writer: String,
        /// The recorded last entry.
        recorded: u64,
        /// The last entry found; 0 for none.
        found: u64,
    },
}

/// Checks entries one by one, in ascending `seq`, without keeping them.
#[derive(Clone, Debug, Default)]
pub struct ChainVerifier {
    report: AuditReport,
}

impl ChainVerifier {
    /// Takes the next entry. After the first break the rest is only counted.
    pub fn entry(&mut self, entry: &AuditEntry) {
        self.report.entries += 1;
        let head = self.report.chains.get(&entry.writer).copied().unwrap_or_default();
        if self.report.broken.is_none() {
            let (writer, seq) = (&entry.writer, entry.seq);
            if entry.hash != entry.computed_hash() {
                self.report.broken = Some(AuditBreak::Altered { writer: writer.clone(), seq });
            } else if entry.prev_hash != head.hash || seq <= head.seq {
                self.report.broken = Some(AuditBreak::Unlinked { writer: writer.clone(), seq });
            }
        }
        let head = ChainHead { length: head.length + 1, seq: entry.seq, hash: entry.hash };
        self.report.chains.insert(entry.writer.clone(), head);
    }

    /// Compares the ends of the chains with what the store recorded beside the log.
    pub fn finish(mut self, recorded: &BTreeMap<String, ChainHead>) -> AuditReport {
        if self.report.broken.is_none() && self.report.chains != *recorded {
            let writers = recorded.keys().chain(self.report.chains.keys());
            let wrong =
                writers.into_iter().find(|writer| self.report.chains.get(*writer) != recorded.get(*writer));
            self.report.broken = wrong.map(|writer| AuditBreak::WrongEnd {
                writer: writer.clone(),
                recorded: recorded.get(writer).map_or(0, |head| head.seq),
                found: self.report.chains.get(writer).map_or(0, |head| head.seq),
            });
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use opamp_proto::Wall;
    use serde_json::json;

    use super::*;
    use crate::NewAuditEntry;

    fn log() -> (Vec<AuditEntry>, BTreeMap<String, ChainHead>) {
        let mut heads = BTreeMap::<String, ChainHead>::new();
        let mut log = Vec::new();
        for seq in 1..=9 {
            let writer = if seq % 3 == 0 { "b" } else { "a" };
            let new = NewAuditEntry {
                writer: writer.into(),
                at: Wall(1_000 + seq),
                action: "config.publish".into(),
                after: Some(json!({"version": seq, "ratio": 0.1})),
                source: (seq % 2 == 0).then(|| "192.0.2.1".into()),
                ..NewAuditEntry::default()
            };
            let head = heads.get(writer).copied().unwrap_or_default();
            let entry = AuditEntry::seal(new, seq, head.hash);
            heads.insert(writer.into(), ChainHead { length: head.length + 1, seq, hash: entry.hash });
            log.push(entry);
        }
        (log, heads)
    }

    fn verify(log: &[AuditEntry], heads: &BTreeMap<String, ChainHead>) -> AuditReport {
        let mut verifier = ChainVerifier::default();
        log.iter().for_each(|entry| verifier.entry(entry));
        verifier.finish(heads)
    }

    #[test]
    fn an_untouched_log_is_intact() {
        let (log, heads) = log();
        let report = verify(&log, &heads);
        assert_eq!(report, AuditReport { entries: 9, chains: heads, broken: None });
    }

    #[test]
    fn a_change_of_any_field_is_found() {
        let changes: [fn(&mut AuditEntry); 11] = [
            |entry| entry.seq = 40,
            |entry| entry.writer = "b".into(),
            |entry| entry.at = Wall(1),
            |entry| entry.actor.push('x'),
            |entry| entry.role.push('x'),
            |entry| entry.action.push('x'),
            |entry| entry.entity.push('x'),
            |entry| entry.before = Some(json!(null)),
            |entry| entry.after = Some(json!({"version": 4, "ratio": 0.2})),
            |entry| entry.source = Some(String::new()),
            |entry| entry.trace_id = Some(String::new()),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let (mut log, heads) = log();
            change(&mut log[4]);
            let broken = verify(&log, &heads).broken;
            assert!(matches!(broken, Some(AuditBreak::Altered { .. })), "change {index}: {broken:?}");
        }
    }

    #[test]
    fn a_rehashed_change_breaks_the_link_to_its_successor() {
        let (mut log, heads) = log();
        log[3].actor = "mallory".into();
        log[3].hash = log[3].computed_hash();
        assert_eq!(verify(&log, &heads).broken, Some(AuditBreak::Unlinked { writer: "a".into(), seq: 5 }));
    }

    #[test]
    fn removal_and_reordering_are_found() {
        let (full, heads) = log();
        for index in 0..full.len() {
            let mut log = full.clone();
            log.remove(index);
            assert!(!verify(&log, &heads).is_intact(), "without entry {index}");
        }
        let mut log = full.clone();
        log.swap(3, 4);
        assert_eq!(verify(&log, &heads).broken, Some(AuditBreak::Unlinked { writer: "a".into(), seq: 5 }));
        let report = verify(&full[..8], &heads);
        assert_eq!(report.broken, Some(AuditBreak::WrongEnd { writer: "b".into(), recorded: 9, found: 6 }));
    }

    #[test]
    fn the_hash_does_not_depend_on_the_order_of_keys() {
        let seal = |after: &str| {
            let after = Some(serde_json::from_str(after).unwrap());
            AuditEntry::seal(NewAuditEntry { after, ..NewAuditEntry::default() }, 1, [0; 32]).hash
        };
        assert_eq!(seal(r#"{"a":1,"b":{"c":2,"d":3}}"#), seal(r#"{"b":{"d":3,"c":2},"a":1}"#));
        assert_ne!(seal(r#"{"a":1}"#), seal(r#"{"a":"1"}"#));
    }
}
