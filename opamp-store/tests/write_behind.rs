//! Grouping of record writes, against a real store.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use opamp_proto::{AgentId, ConfigHash, Mono, Wall};
use opamp_store::{
    AgentRecord, AgentStore as _, BatchContents, BlobId, BlobStore as _, CommitError, DesiredSettings,
    FailureRecord, MemoryStore, Store as _, WriteBatch, WriteBehind, WriteBehindLimits,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use self::common::{agent, agent_id};

const LIMITS: WriteBehindLimits = WriteBehindLimits {
    delay: Duration::from_millis(100),
    retry_delay: Duration::from_millis(1_000),
    records_max: 3,
    bytes_max: 10_000,
};

/// A record of which one can tell when it was pushed.
fn pushed(number: u64, mark: u64) -> AgentRecord {
    AgentRecord { desired_generation: mark, ..agent(number) }
}

/// The memory store answers at once.
fn ready<T>(future: BoxFuture<'_, T>) -> T {
    future.now_or_never().unwrap()
}

fn contents(batch: WriteBatch) -> BatchContents {
    batch.into_contents().unwrap()
}

/// How many blobs are held in memory.
fn blobs_kept(behind: &WriteBehind) -> usize {
    let text = format!("{behind:?}");
    let (_, count) = text.split_once("blobs: ").unwrap();
    count.split(',').next().unwrap().parse().unwrap()
}

/// Settings whose blob no store has.
fn missing_settings() -> DesiredSettings {
    DesiredSettings {
        hash: ConfigHash::default(),
        blob: BlobId::of(b"missing"),
        generation: 1,
        assigned_by: "olga".into(),
        assigned_at: Wall(1),
    }
}

fn marks(batch: WriteBatch) -> Vec<(AgentId, u64)> {
    contents(batch)
        .agents
        .into_values()
        .flatten()
        .map(|record| (record.id, record.desired_generation))
        .collect()
}

#[test]
fn nothing_is_due_for_a_steady_fleet() {
    let mut behind = WriteBehind::new(LIMITS);
    assert_eq!(behind.deadline(), None);
    assert!(behind.take(Mono(u64::MAX)).is_none() && behind.take_now().is_none() && behind.is_empty());
    // After a change is written, nothing is due again.
    behind.push(pushed(1, 1), Mono(5));
    assert!(behind.take(Mono(105)).is_some());
    behind.committed();
    assert_eq!(behind.deadline(), None);
    assert!(behind.take(Mono(u64::MAX)).is_none() && behind.take_now().is_none() && behind.is_empty());
}

#[test]
fn a_change_waits_for_the_delay_and_the_newest_wins() {
    let mut behind = WriteBehind::new(LIMITS);
    behind.push(pushed(1, 1), Mono(10));
    behind.push(pushed(1, 2), Mono(90));
    assert_eq!((behind.deadline(), behind.len()), (Some(Mono(110)), 1));
    assert!(behind.take(Mono(109)).is_none());
    assert_eq!(marks(behind.take(Mono(110)).unwrap()), [(agent_id(1), 2)]);
}

#[test]
fn a_full_batch_is_due_at_once_and_oldest_first() {
    let mut behind = WriteBehind::new(LIMITS);
    for number in (0..7).rev() {
        behind.push(pushed(number, number), Mono(10 - number));
    }
    assert!(behind.deadline() <= Some(Mono(10)));
    let first = marks(behind.take(Mono(10)).unwrap());
    assert_eq!(first, [4, 5, 6].map(|number| (agent_id(number), number)));
    // One batch at a time.
    assert_eq!(behind.deadline(), None);
    assert!(behind.take(Mono(10)).is_none() && behind.take_now().is_none());
    behind.committed();
    assert_eq!(marks(behind.take(Mono(10)).unwrap()), [1, 2, 3].map(|number| (agent_id(number), number)));
    behind.committed();
    assert_eq!(behind.deadline(), Some(Mono(110)));
    assert_eq!(marks(behind.take_now().unwrap()), [(agent_id(0), 0)]);
}

#[test]
fn many_bytes_are_due_at_once_and_split() {
    let mut behind = WriteBehind::new(LIMITS);
    let large = |number: u64, size: usize| {
        let mut record = pushed(number, number);
        record.parts.health = Some(Bytes::from(vec![0; size]));
        record
    };
    behind.push(large(1, 6_000), Mono(0));
    assert_eq!(behind.deadline(), Some(Mono(100)));
    behind.push(large(2, 6_000), Mono(1));
    behind.push(large(3, 50_000), Mono(2));
    for number in 1..=3 {
        // The second does not fit beside the first; the third fits nowhere and goes alone.
        assert_eq!(marks(behind.take(Mono(2)).unwrap()), [(agent_id(number), number)]);
        behind.committed();
    }
    assert!(behind.is_empty());
}

#[test]
fn a_failed_batch_waits_and_comes_back_unless_newer() {
    let mut behind = WriteBehind::new(LIMITS);
    behind.push(pushed(1, 1), Mono(0));
    behind.push(pushed(2, 1), Mono(0));
    assert!(behind.take(Mono(100)).is_some());
    behind.push(pushed(2, 2), Mono(120));
    behind.push(pushed(3, 2), Mono(130));
    assert_eq!(behind.len(), 3);
    behind.failed(Mono(150));
    assert_eq!((behind.deadline(), behind.len()), (Some(Mono(1_150)), 3));
    assert!(behind.take(Mono(1_149)).is_none());
    let again = marks(behind.take(Mono(1_150)).unwrap());
    assert_eq!(again, [(agent_id(1), 1), (agent_id(2), 2), (agent_id(3), 2)]);
    behind.committed();
    assert!(behind.is_empty());
}

#[test]
fn sticky_facts_are_kept() {
    let failure =
        |text: &str| Some(FailureRecord { hash: ConfigHash::default(), error: text.into(), at: Wall(1) });
    let mut behind = WriteBehind::new(LIMITS);
    let mut record = agent(1);
    record.sticky.gaps = 5;
    record.sticky.last_failure = failure("no such file");
    record.sticky.last_applied = Some((ConfigHash::default(), Wall(3)));
    behind.push(record, Mono(0));
    let mut newer = pushed(1, 2);
    newer.sticky.connects = 7;
    newer.sticky.gaps = 4;
    behind.push(newer, Mono(1));
    let batch = contents(behind.take(Mono(100)).unwrap());
    let sticky = &batch.agents[&agent_id(1)].as_ref().unwrap().sticky;
    assert_eq!((sticky.connects, sticky.gaps), (7, 5));
    assert_eq!((&sticky.last_failure, sticky.last_applied.is_some()), (&failure("no such file"), true));
    // Also over a batch in flight; and a newer failure replaces the older.
    let mut newest = agent(1);
    newest.sticky.last_failure = failure("no such port");
    behind.push(newest, Mono(101));
    behind.failed(Mono(102));
    let batch = contents(behind.take(Mono(2_000)).unwrap());
    let sticky = &batch.agents[&agent_id(1)].as_ref().unwrap().sticky;
    assert_eq!((sticky.connects, sticky.gaps, &sticky.last_failure), (7, 5, &failure("no such port")));
}

#[test]
fn blobs_travel_with_the_record_that_refers_to_them() {
    let store = MemoryStore::new();
    let mut behind = WriteBehind::new(LIMITS);
    let shared = Bytes::from_static(b"shared");
    let refers = |number| AgentRecord { effective_config: Some(BlobId::of(&shared)), ..agent(number) };
    for number in 1..=4 {
        let stranger = Bytes::from_static(b"nobody refers to this");
        behind.push_with_blobs(refers(number), [shared.clone(), stranger], Mono(0));
    }
    for expected in [3, 1] {
        let batch = behind.take(Mono(100)).unwrap();
        assert_eq!(batch.ops(), expected + 1, "so many records and one blob");
        ready(store.commit(batch, None)).unwrap();
        behind.committed();
    }
    assert_eq!(ready(store.blob(&BlobId::of(&shared))).unwrap(), Some(shared.clone()));
    // What nobody waiting refers to any more is forgotten, though nothing was written meanwhile.
    behind.push_with_blobs(refers(5), [shared.clone()], Mono(0));
    behind.push(agent(5), Mono(0));
    assert_eq!(blobs_kept(&behind), 0);
    behind.push(refers(6), Mono(0));
    assert_eq!(behind.take_now().unwrap().ops(), 2, "two records");
    behind.committed();
    // Nor is it kept for a record that was discarded.
    behind.push_with_blobs(refers(7), [shared.clone()], Mono(0));
    behind.discard(&agent_id(7));
    assert_eq!(blobs_kept(&behind), 0);
    // A newer record keeps what the older one brought.
    behind.push_with_blobs(refers(8), [shared.clone()], Mono(0));
    behind.push(refers(8), Mono(0));
    assert_eq!(behind.take_now().unwrap().ops(), 2, "a record and its blob");
}

#[test]
fn blobs_do_not_travel_with_records_of_other_agents() {
    let mut behind = WriteBehind::new(LIMITS);
    let shared = Bytes::from_static(b"shared");
    let refers = |number| AgentRecord { effective_config: Some(BlobId::of(&shared)), ..agent(number) };
    behind.push_with_blobs(refers(1), [shared.clone()], Mono(0));
    behind.push(refers(2), Mono(0));
    assert_eq!((behind.blobs(&agent_id(1)).len(), behind.blobs(&agent_id(2)).len()), (1, 0));
    behind.discard(&agent_id(1));
    assert_eq!(blobs_kept(&behind), 0);
    assert_eq!(behind.take_now().unwrap().ops(), 1, "a record");
}

#[test]
fn blobs_of_an_agent_are_those_its_newest_record_refers_to() {
    let mut behind = WriteBehind::new(LIMITS);
    let [config, components, other] = ["config", "components", "other"].map(Bytes::from);
    let refers = |config: &Bytes, components: Option<&Bytes>| AgentRecord {
        effective_config: Some(BlobId::of(config)),
        components: components.map(|components| BlobId::of(components)),
        ..agent(1)
    };
    let given = |behind: &WriteBehind| {
        let blobs = behind.blobs(&agent_id(1));
        let mut blobs: Vec<_> = blobs.iter().map(|blob| blob.bytes().clone()).collect();
        blobs.sort();
        blobs
    };
    assert_eq!(given(&behind), [""; 0]);
    // Of what waits; then of what is in flight.
    behind.push_with_blobs(
        refers(&config, Some(&components)),
        [&config, &components, &other].map(Bytes::clone),
        Mono(0),
    );
    assert_eq!(given(&behind), ["components", "config"]);
    assert!(behind.take(Mono(100)).is_some());
    assert_eq!(given(&behind), ["components", "config"]);
    // What waits came with one, and the other is in flight.
    behind.push_with_blobs(refers(&other, Some(&components)), [other.clone()], Mono(100));
    assert_eq!(given(&behind), ["components", "other"]);
    // Once, though it came with both; and what it does not refer to is in flight all the same.
    behind.push_with_blobs(refers(&config, None), [config.clone()], Mono(100));
    assert_eq!((given(&behind), blobs_kept(&behind)), (vec![config.clone()], 2));
    // What is in flight and not referred to.
    behind.push(refers(&other, None), Mono(100));
    assert_eq!(given(&behind), [""; 0]);
    // What is written need not be given again.
    behind.push(refers(&config, None), Mono(100));
    assert_eq!(given(&behind), ["config"]);
    behind.committed();
    assert_eq!((given(&behind), blobs_kept(&behind)), (vec![], 0));
    behind.discard(&agent_id(1));
    assert_eq!(given(&behind), [""; 0]);
}

#[test]
fn what_a_refused_record_came_with_goes_with_a_newer_one() {
    let store = MemoryStore::new();
    let mut behind = WriteBehind::new(LIMITS);
    let [config, dropped] = ["config", "dropped"].map(Bytes::from);
    let refers = |components: &[u8]| AgentRecord {
        effective_config: Some(BlobId::of(&config)),
        components: Some(BlobId::of(components)),
        ..agent(1)
    };
    let bad = AgentRecord { desired_settings: Some(missing_settings()), ..refers(&dropped) };
    behind.push_with_blobs(bad.clone(), [config.clone(), dropped.clone()], Mono(0));
    let refused = ready(store.commit(behind.take(Mono(100)).unwrap(), None));
    // The session brings a blob once, and what it says next relies on that.
    behind.push(refers(&config), Mono(120));
    assert!(matches!(refused, Err(CommitError::BlobMissing(_))));
    assert_eq!(behind.refused(Mono(130)).as_deref(), Some(&bad));
    assert_eq!((blobs_kept(&behind), behind.deadline()), (1, Some(Mono(220))));
    ready(store.commit(behind.take(Mono(220)).unwrap(), None)).unwrap();
    behind.committed();
    assert_eq!(ready(store.blob(&BlobId::of(&config))).unwrap(), Some(config.clone()));
    assert_eq!((behind.is_empty(), behind.len(), blobs_kept(&behind)), (true, 0, 0));
}

#[test]
fn a_refused_record_goes_and_the_others_stay() {
    let store = MemoryStore::new();
    let mut behind = WriteBehind::new(LIMITS);
    let missing = Some(BlobId::of(b"missing"));
    behind.push(agent(1), Mono(0));
    behind.push(AgentRecord { effective_config: missing, ..agent(2) }, Mono(0));
    behind.push(agent(3), Mono(0));
    let mut refused = Vec::new();
    let mut batches = 0;
    while let Some(batch) = behind.take(Mono(100)) {
        batches += 1;
        match ready(store.commit(batch, None)) {
            Ok(_) => behind.committed(),
            Err(CommitError::BlobMissing(_)) => refused.extend(behind.refused(Mono(100))),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(refused.iter().map(|record| record.id).collect::<Vec<_>>(), [agent_id(2)]);
    assert_eq!((batches, behind.len()), (4, 0));
    let stored = ready(store.agents(None, 10)).unwrap().items;
    assert_eq!(stored.iter().map(|record| record.id).collect::<Vec<_>>(), [agent_id(1), agent_id(3)]);
    // Then batches are as large as before.
    (1..=3).for_each(|number| behind.push(agent(number), Mono(200)));
    assert_eq!(behind.take(Mono(200)).unwrap().ops(), 3);
}

#[test]
fn a_discarded_agent_is_not_written_again() {
    let mut behind = WriteBehind::new(LIMITS);
    (1..=4).for_each(|number| behind.push(agent(number), Mono(number)));
    assert!(behind.take(Mono(4)).is_some());
    behind.discard(&agent_id(2));
    behind.discard(&agent_id(4));
    behind.failed(Mono(5));
    assert_eq!(marks(behind.take_now().unwrap()), [(agent_id(1), 0), (agent_id(3), 0)]);
}

#[test]
fn a_batch_whose_records_were_discarded_is_still_in_flight() {
    let mut behind = WriteBehind::new(LIMITS);
    behind.push(agent(1), Mono(0));
    assert!(behind.take(Mono(100)).is_some());
    behind.discard(&agent_id(1));
    behind.push(agent(2), Mono(100));
    assert_eq!((behind.deadline(), behind.len()), (None, 1));
    assert!(behind.take_now().is_none());
    behind.committed();
    assert_eq!(behind.deadline(), Some(Mono(200)));
    // What is left of a refused batch need not be what was refused.
    behind.push(agent(3), Mono(100));
    assert_eq!(behind.take(Mono(200)).unwrap().ops(), 2);
    behind.discard(&agent_id(2));
    assert_eq!(behind.refused(Mono(200)), None);
    assert_eq!(marks(behind.take(Mono(200)).unwrap()), [(agent_id(3), 0)]);
}

#[test]
fn an_agents_words_about_a_failure_count() {
    let mut behind = WriteBehind::new(LIMITS);
    let mut record = agent(1);
    let error = "x".repeat(LIMITS.bytes_max);
    record.sticky.last_failure = Some(FailureRecord { hash: ConfigHash::default(), error, at: Wall(1) });
    behind.push(record, Mono(5));
    assert_eq!(behind.deadline(), Some(Mono(5)), "so many bytes are due at once");
}

#[test]
fn a_shared_blob_counts_once() {
    let mut behind = WriteBehind::new(WriteBehindLimits { records_max: 100, ..LIMITS });
    let shared = Bytes::from(vec![0; 3_000]);
    for number in 0..5 {
        let record = AgentRecord { effective_config: Some(BlobId::of(&shared)), ..agent(number) };
        behind.push_with_blobs(record, [shared.clone()], Mono(0));
    }
    assert_eq!(behind.deadline(), Some(Mono(100)));
    assert_eq!(behind.take(Mono(100)).unwrap().ops(), 6);
}

#[derive(Clone, Debug)]
enum Event {
    /// The blob it refers to, and whether it comes with it.
    Push {
        number: u64,
        gaps: u64,
        failure: bool,
        size: usize,
        blob: Option<(u8, bool)>,
    },
    Pass(u64),
    Outcome(u8),
}

fn event() -> impl Strategy<Value = Event> {
    // Some fill a batch, and are refused alone at once.
    let size = prop_oneof![0..4_000_usize, Just(LIMITS.bytes_max)];
    prop_oneof![
        5 => (0..5_u64, 0..9_u64, any::<bool>(), size, of((0..3_u8, any::<bool>())))
            .prop_map(|(number, gaps, failure, size, blob)| Event::Push { number, gaps, failure, size, blob }),
        3 => (0..150_u64).prop_map(Event::Pass),
        3 => (0..4_u8).prop_map(Event::Outcome),
    ]
}

/// What a pushed record must have become when it is written: the newest, with everything sticky of its predecessors
/// since the last one known to be written.
fn merge(expected: &mut BTreeMap<AgentId, AgentRecord>, mut record: AgentRecord) {
    if let Some(older) = expected.get(&record.id) {
        record.sticky.gaps = record.sticky.gaps.max(older.sticky.gaps);
        record.sticky.last_failure = record.sticky.last_failure.or_else(|| older.sticky.last_failure.clone());
    }
    expected.insert(record.id, record);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_is_lost_and_the_newest_wins(events in vec(event(), 1..120)) {
        let mut behind = WriteBehind::new(LIMITS);
        let (mut now, mut mark) = (Mono(0), 0);
        // What is unwritten by agent, what of it is in flight, and what is written.
        let mut unwritten = BTreeMap::<AgentId, AgentRecord>::new();
        let mut in_flight: Option<BTreeMap<AgentId, AgentRecord>> = None;
        let mut written = BTreeMap::<AgentId, AgentRecord>::new();
        // What the waiting record of an agent came with, or one before it, and what the one in flight did.
        let mut waiting_with = BTreeMap::<AgentId, BlobId>::new();
        let mut flying_with = BTreeMap::<AgentId, BlobId>::new();
        let settle = |written: &mut BTreeMap<AgentId, AgentRecord>, unwritten: &mut BTreeMap<AgentId, AgentRecord>, flown: BTreeMap<AgentId, AgentRecord>| {
            for (id, record) in flown {
                if unwritten.get(&id) == Some(&record) {
                    unwritten.remove(&id);
                }
                written.insert(id, record);
            }
        };
        for event in events {
            match event {
                Event::Push { number, gaps, failure, size, blob } => {
                    mark += 1;
                    let mut record = pushed(number, mark);
                    record.sticky.gaps = gaps;
                    record.sticky.last_failure = failure.then(|| FailureRecord { hash: ConfigHash::default(), error: mark.to_string(), at: Wall(mark) });
                    record.parts.health = Some(Bytes::from(vec![0; size]));
                    let bytes = blob.map(|(content, _)| Bytes::from(vec![content; 1_000]));
                    let brought = bytes.clone().filter(|_| blob.is_some_and(|(_, brought)| brought));
                    record.effective_config = bytes.as_deref().map(BlobId::of);
                    waiting_with.retain(|id, older| *id != record.id || record.effective_config == Some(*older));
                    waiting_with.extend(brought.as_deref().map(|bytes| (record.id, BlobId::of(bytes))));
                    merge(&mut unwritten, record.clone());
                    behind.push_with_blobs(record, brought, now);
                }
                Event::Pass(ms) => now = now + Duration::from_millis(ms),
                Event::Outcome(outcome) => if let Some(flown) = in_flight.take() {
                    match outcome {
                        0 => behind.failed(now),
                        1 => {
                            let alone = (flown.len() == 1).then(|| flown.into_values().next()).flatten();
                            prop_assert_eq!(&behind.refused(now).as_deref().cloned(), &alone);
                            if let Some(refused) = alone && unwritten.get(&refused.id) == Some(&refused) {
                                unwritten.remove(&refused.id);
                            }
                        }
                        _ => {
                            behind.committed();
                            settle(&mut written, &mut unwritten, flown);
                            flying_with.clear();
                        }
                    }
                    // What is not written goes with the record that waits now, if that refers to it.
                    let still = |(id, blob): &(AgentId, BlobId)| unwritten.get(id).is_some_and(|record| record.effective_config == Some(*blob));
                    waiting_with.extend(std::mem::take(&mut flying_with).into_iter().filter(still));
                },
            }
            let due = behind.deadline();
            prop_assert!(due.is_none_or(|_| in_flight.is_none()));
            let taken = behind.take(now);
            prop_assert_eq!(taken.is_some(), due.is_some_and(|due| due <= now));
            if let Some(batch) = taken {
                let bytes = batch.bytes();
                let contents = contents(batch);
                let records: BTreeMap<_, _> = contents.agents.into_iter().map(|(id, record)| (id, AgentRecord::clone(&record.unwrap()))).collect();
                flying_with.extend(records.keys().filter_map(|id| waiting_with.remove_entry(id)));
                let expected: BTreeSet<_> = flying_with.values().copied().collect();
                prop_assert_eq!(contents.blobs.into_keys().collect::<BTreeSet<_>>(), expected);
                prop_assert!((1..=LIMITS.records_max).contains(&records.len()));
                prop_assert!(bytes <= LIMITS.bytes_max || records.len() == 1);
                for (id, record) in &records {
                    prop_assert_eq!(unwritten.get(id), Some(record));
                }
                in_flight = Some(records);
            }
            prop_assert_eq!(behind.len(), unwritten.len());
            let held: BTreeSet<_> = waiting_with.values().chain(flying_with.values()).collect();
            prop_assert_eq!(blobs_kept(&behind), held.len());
            for (id, newest) in &unwritten {
                let given: Vec<_> = behind.blobs(id).into_iter().map(|blob| blob.id()).collect();
                let has = |with: &BTreeMap<AgentId, BlobId>, blob: &BlobId| with.get(id) == Some(blob);
                let expected = newest.effective_config.filter(|blob| has(&waiting_with, blob) || has(&flying_with, blob));
                prop_assert_eq!(given, Vec::from_iter(expected));
            }
        }
        if let Some(flown) = in_flight {
            behind.committed();
            settle(&mut written, &mut unwritten, flown);
        }
        while let Some(batch) = behind.take_now() {
            let records = contents(batch).agents.into_iter().map(|(id, record)| (id, AgentRecord::clone(&record.unwrap()))).collect();
            behind.committed();
            settle(&mut written, &mut unwritten, records);
        }
        prop_assert!(unwritten.is_empty() && behind.is_empty(), "{:?}", unwritten);
    }

    #[test]
    fn with_a_store_that_keeps_up_no_change_waits_longer_than_the_delay(pushes in vec((0..200_u64, 0..20_u64), 1..200)) {
        let mut behind = WriteBehind::new(LIMITS);
        let mut now = Mono(0);
        let mut waiting = BTreeMap::<AgentId, Mono>::new();
        for (pause, number) in pushes {
            let then = now + Duration::from_millis(pause);
            // The driver: at every deadline it takes, and the store commits at once.
            while let Some(due) = behind.deadline().filter(|due| *due <= then) {
                now = due.max(now);
                for (id, _) in marks(behind.take(now).unwrap()) {
                    let since = waiting.remove(&id).unwrap();
                    prop_assert!(now - since <= LIMITS.delay);
                }
                behind.committed();
            }
            now = then;
            waiting.entry(agent_id(number)).or_insert(now);
            behind.push(pushed(number, 0), now);
        }
        prop_assert_eq!(behind.len(), waiting.len());
    }
}
