//! What an agent's record takes in a store in memory, measured at the allocator.

use std::sync::Arc;

use bytes::Bytes;
use opamp_proto::{AgentId, ConfigHash, InstanceUid, Part, Wall};
use opamp_store::{AgentRecord, ConnectionFacts, DesiredConfig, MemoryStore, Store as _, WriteBatch};

const AGENTS: u16 = 2_000;

fn uuid(number: u16) -> [u8; 16] {
    let mut bytes = [7; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// An agent that says no more than that it lives.
fn heard_of(number: u16) -> AgentRecord {
    let id = AgentId::from_bytes(uuid(number));
    let mut record = AgentRecord::new(id, InstanceUid::from_bytes(uuid(number)), Wall(1));
    record.capabilities = 1;
    record.sticky.connects = 1;
    record.connection = Some(Arc::new(ConnectionFacts {
        transport: "websocket".to_owned(),
        remote_addr: Some(format!("127.0.0.1:{number}")),
        connected_at: Wall(1),
        disconnected_at: None,
        disconnect_reason: None,
        graceful: false,
    }));
    record
}

/// Bytes that stay for each agent of a store with these records. What the records share with the batch is not counted.
fn bytes_each(make: impl Fn(u16) -> AgentRecord) -> i64 {
    let mut batch = WriteBatch::new();
    batch.put_blob(Bytes::from_static(b"config"));
    for number in 0..AGENTS {
        batch.put_agent(make(number));
    }
    let store = MemoryStore::new();
    // Its futures are ready as soon as they are made.
    let grown = allocation_counter::measure(|| drop(store.commit(batch.clone(), None)));
    assert_eq!(store.stats().commits, 1);
    grown.bytes_current / i64::from(AGENTS)
}

#[test]
fn a_record_takes_little_beside_what_the_agent_said() {
    let bare = bytes_each(heard_of);
    println!("{bare} bytes each");
    assert!((150..=450).contains(&bare), "{bare} bytes for an agent that says nothing");
    let description = Bytes::from(vec![1; 1_000]);
    let with_part = bytes_each(|number| {
        let mut record = heard_of(number);
        record.parts.set(Part::AgentDescription, Some(description.clone()));
        record
    });
    assert!(with_part - bare <= 64, "a part the session has is not copied: {with_part} - {bare}");
    let assigned = bytes_each(|number| {
        let mut record = heard_of(number);
        let desired = |generation| {
            Arc::new(DesiredConfig {
                config: "edge".to_owned(),
                version: 1,
                hash: ConfigHash::new(Bytes::from_static(&[3; 32])),
                blob: opamp_store::BlobId::of(b"config"),
                generation,
                assigned_by: "olga".to_owned(),
                assigned_at: Wall(1),
            })
        };
        record.desired = Some(desired(3));
        record.desired_history = [desired(1), desired(2)].into();
        record
    });
    assert!(assigned - bare <= 400, "equal assignments are shared: {assigned} - {bare}");
}
