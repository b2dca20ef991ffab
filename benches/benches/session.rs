//! What one message costs the server between the socket and the answer: codec and session together.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opamp_proto::{AgentMessage, ConfigHash, InstanceUid, Limits, Mono, Now, Wall, pb};
use opamp_server::session::{Input, Outbox, Session, SessionSettings};
use opamp_server::{ConnectionInfo, Desired, Principal, RemoteConfigOffer, Transport};
use prost::Message as _;

/// Messages in one measured step; the figures are per step, the throughput is per message.
const BATCH: u64 = 64;

const UID: InstanceUid = InstanceUid::from_bytes([7; 16]);

fn now(ms: u64) -> Now {
    Now { mono: Mono(ms), wall: Wall(ms) }
}

fn attached() -> (Session, Outbox) {
    let settings = SessionSettings::default();
    let mut out = Outbox::new(settings.clone());
    let mut session = Session::new(UID, &settings, now(0));
    let connection = ConnectionInfo {
        id: 1,
        transport: Transport::WebSocket,
        remote_addr: None,
        principal: Principal::anonymous(),
        connected_at: Wall(0),
    };
    handle(&mut session, Input::Attached(Arc::new(connection)), &mut out);
    (session, out)
}

fn handle(session: &mut Session, input: Input<'_>, out: &mut Outbox) {
    if let Err(error) = session.handle(input, now(1), out) {
        unreachable!("the messages of the benchmark are in order: {error}");
    }
}

fn message(sequence_num: u64, state: pb::AgentToServer) -> Vec<u8> {
    let uid = UID.as_bytes().to_vec().into();
    pb::AgentToServer { instance_uid: uid, sequence_num, capabilities: 0xffff, ..state }.encode_to_vec()
}

/// A full state of about `bytes` bytes: a description, health of many components, a config.
fn full_state(bytes: usize, tick: u64) -> pb::AgentToServer {
    let component = |index: usize| {
        let health = pb::ComponentHealth {
            healthy: true,
            status: "StatusOK".into(),
            status_time_unix_nano: tick,
            start_time_unix_nano: 1,
            ..Default::default()
        };
        (format!("pipeline:{index}"), health)
    };
    let body = vec![b'x'; bytes / 2];
    let object = pb::AgentConfigObject { body: body.into(), ..Default::default() };
    let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
    pb::AgentToServer {
        agent_description: Some(pb::AgentDescription::default()),
        health: Some(pb::ComponentHealth {
            healthy: true,
            component_health_map: (0..bytes / 2 / 55).map(component).collect(),
            ..Default::default()
        }),
        effective_config: Some(pb::EffectiveConfig { config_map: Some(config) }),
        remote_config_status: Some(pb::RemoteConfigStatus::default()),
        ..Default::default()
    }
}

fn receive(session: &mut Session, out: &mut Outbox, bytes: &[u8], limits: &Limits) -> usize {
    out.clear();
    match AgentMessage::decode_knowing(bytes, limits, |_| Some(&*session)) {
        Ok(message) => handle(session, Input::Message { message: &message, assign: None }, out),
        Err(error) => unreachable!("the messages of the benchmark decode: {error}"),
    }
    out.messages().map(<[u8]>::len).sum()
}

fn session(criterion: &mut Criterion) {
    let limits = Limits::default();
    for (name, bytes) in [("heartbeat", 0), ("status_2k", 2 << 10), ("status_10k", 10 << 10)] {
        let (mut session, mut out) = attached();
        let mut sequence = 0;
        let mut messages: Vec<Vec<u8>> = Vec::new();
        let mut group = criterion.benchmark_group("session");
        group.throughput(Throughput::Elements(BATCH));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || {
                    messages.clear();
                    for _ in 0..BATCH {
                        sequence += 1;
                        let state = if bytes == 0 { Default::default() } else { full_state(bytes, sequence) };
                        messages.push(message(sequence, state));
                    }
                    std::mem::take(&mut messages)
                },
                |batch| {
                    for bytes in batch.iter() {
                        black_box(receive(&mut session, &mut out, bytes, &limits));
                    }
                },
                criterion::BatchSize::LargeInput,
            );
        });
    }
}

fn offer(criterion: &mut Criterion) {
    let body = vec![b'x'; 4 << 10];
    let object = pb::AgentConfigObject { body: body.into(), ..Default::default() };
    let config = pb::AgentConfigMap { config_map: [(String::new(), object)].into() };
    let offer = RemoteConfigOffer::new(ConfigHash::new(vec![1; 32]), &config);
    let (mut session, mut out) = attached();
    let limits = Limits::default();
    receive(&mut session, &mut out, &message(1, full_state(64, 1)), &limits);
    let mut generation = 0;
    criterion.bench_function("session/offer_4k", |bencher| {
        bencher.iter(|| {
            generation += 1;
            let desired = Desired::remote_config(generation, offer.clone());
            out.clear();
            handle(&mut session, Input::Desired(desired), &mut out);
            handle(&mut session, Input::Wake, &mut out);
            black_box(out.messages().map(<[u8]>::len).sum::<usize>())
        });
    });
}

criterion_group!(benches, session, offer);
criterion_main!(benches);
