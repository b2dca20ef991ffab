//! Decoding what agents send, writing answers, and making hashes.
//!
//! Wherever prost does the same work, it is the neighbour to compare with: claims are ratios within one run.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use opamp_benches as sample;
use opamp_proto::encode::{self, server_to_agent as field};
use opamp_proto::{AgentMessage, Limits, Part, frame, hash, material, pb};
use prost::Message;

fn decode(c: &mut Criterion) {
    let limits = Limits::default();
    let messages = [
        ("heartbeat", sample::heartbeat()),
        ("status_2kb", sample::status()),
        ("full_state_10kb", sample::full_state(1)),
    ];
    for (name, bytes) in messages {
        let mut group = c.benchmark_group(format!("decode/{name}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("lazy", |b| {
            b.iter(|| AgentMessage::decode(black_box(&bytes), &limits).map(|message| message.parts()));
        });
        group.bench_function("prost", |b| b.iter(|| pb::AgentToServer::decode(black_box(&*bytes))));
        group.finish();
    }
}

fn frames(c: &mut Criterion) {
    let mut framed = Vec::new();
    frame::encode(&sample::heartbeat(), &mut framed);
    c.bench_function("frame/decode", |b| b.iter(|| frame::decode(black_box(&framed)).map(<[u8]>::len)));
}

fn replies(c: &mut Criterion) {
    let config = sample::config(4_096);
    let offer =
        pb::AgentRemoteConfig { config_hash: hash::config_hash(&config).to_bytes(), config: Some(config) };
    let encoded_offer = offer.encode_to_vec();
    let mut out = Vec::with_capacity(8 * 1024);
    let mut group = c.benchmark_group("reply");
    group.bench_function("acknowledgement/spliced", |b| {
        b.iter(|| {
            out.clear();
            out.push(frame::HEADER);
            encode::uid_field(field::INSTANCE_UID, black_box(&sample::UID), &mut out);
            encode::varint_field(field::CAPABILITIES, black_box(7), &mut out);
            black_box(out.len())
        });
    });
    group.bench_function("acknowledgement/prost", |b| {
        b.iter(|| {
            out.clear();
            out.push(frame::HEADER);
            let reply = pb::ServerToAgent {
                instance_uid: bytes::Bytes::copy_from_slice(black_box(&sample::UID).as_bytes()),
                capabilities: black_box(7),
                ..Default::default()
            };
            reply.encode(&mut out).map(|()| out.len())
        });
    });
    group.bench_function("offer_4kb/spliced", |b| {
        b.iter(|| {
            out.clear();
            out.push(frame::HEADER);
            encode::uid_field(field::INSTANCE_UID, black_box(&sample::UID), &mut out);
            encode::bytes_field(field::REMOTE_CONFIG, black_box(&encoded_offer), &mut out);
            black_box(out.len())
        });
    });
    group.bench_function("offer_4kb/prost", |b| {
        b.iter(|| {
            out.clear();
            out.push(frame::HEADER);
            let reply = pb::ServerToAgent {
                instance_uid: bytes::Bytes::copy_from_slice(black_box(&sample::UID).as_bytes()),
                remote_config: Some(black_box(&offer).clone()),
                ..Default::default()
            };
            reply.encode(&mut out).map(|()| out.len())
        });
    });
    group.finish();
}

fn hashes(c: &mut Criterion) {
    let config = sample::config(4_096);
    let effective = pb::EffectiveConfig { config_map: Some(config.clone()) }.encode_to_vec();
    let mut group = c.benchmark_group("hash");
    group.throughput(Throughput::Bytes(effective.len() as u64));
    group.bench_function("config_4kb", |b| b.iter(|| hash::config_hash(black_box(&config))));
    group.bench_function("effective_config_4kb", |b| {
        b.iter(|| hash::effective_config_hash(black_box(&effective)));
    });
    group.finish();
}

fn digests(c: &mut Criterion) {
    let health = sample::health(30, 1).encode_to_vec();
    let effective = pb::EffectiveConfig { config_map: Some(sample::config(4_096)) }.encode_to_vec();
    let mut group = c.benchmark_group("digest");
    group.throughput(Throughput::Bytes(health.len() as u64));
    group.bench_function("health_2kb", |b| b.iter(|| material::health_digest(black_box(&health))));
    group.throughput(Throughput::Bytes(effective.len() as u64));
    group.bench_function("effective_config_4kb", |b| {
        b.iter(|| material::digest(Part::EffectiveConfig, black_box(&effective)));
    });
    group.finish();
}

criterion_group!(benches, decode, frames, replies, hashes, digests);
criterion_main!(benches);
