//! What a rollout costs: events a second of the engine alone and of whole simulations, planning, and a tick with nothing to do.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use opamp_benches::rollout::{Fleet, LENGTH, Prepared, sizes};
use opamp_fleet::rollout::{Effects, Event};

/// The engine with its coordinator: everything it is told in a rollout from draft to end. The throughput is events.
fn events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rollout/events");
    group.sample_size(10);
    for (name, behaviour) in [("well", Fleet::Well), ("noisy", Fleet::Noisy)] {
        for &agents in sizes(&[1_000, 10_000, 100_000]) {
            let prepared = Prepared::new(agents, behaviour);
            let script = prepared.script();
            group.throughput(Throughput::Elements(script.len() as u64));
            group.bench_function(BenchmarkId::new(name, agents), |bencher| {
                bencher.iter_batched(
                    || prepared.engine(),
                    |(mut engine, mut shared, _)| {
                        script.play(0, &mut engine, &mut shared);
                        // Dropping them is not part of it.
                        (engine, shared)
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

/// Whole simulations, agents' part included. The throughput is events told to the engine.
fn simulations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rollout/simulation");
    group.sample_size(10);
    for &agents in sizes(&[1_000, 100_000]) {
        let prepared = Prepared::new(agents, Fleet::Well);
        group.throughput(Throughput::Elements(prepared.script().len() as u64));
        group.bench_function(BenchmarkId::from_parameter(agents), |bencher| {
            bencher.iter_batched(
                || prepared.model(),
                |mut model| {
                    black_box(model.run(LENGTH));
                    model
                },
                BatchSize::PerIteration,
            );
        });
    }
}

fn planning(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rollout/plan");
    group.sample_size(10);
    for &agents in sizes(&[1_000, 100_000]) {
        group.throughput(Throughput::Elements(agents.into()));
        group.bench_function(BenchmarkId::from_parameter(agents), |bencher| {
            bencher.iter(|| black_box(Prepared::new(agents, Fleet::Well)));
        });
    }
}

/// A tick between two deadlines: the same however many members there are.
fn idle_tick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rollout/idle_tick");
    for &agents in sizes(&[1_000, 1_000_000]) {
        let prepared = Prepared::new(agents, Fleet::Well);
        let mut model = prepared.model();
        for _ in 0..1_000 {
            model.step();
        }
        let (mut engine, mut shared, now) = model.into_engine();
        let mut effects = Effects::default();
        group.bench_function(BenchmarkId::from_parameter(agents), |bencher| {
            bencher.iter(|| {
                // A tick is never refused.
                let _ = engine.handle(Event::Tick, black_box(now), &mut shared, &mut effects);
                effects.clear();
            });
        });
    }
}

criterion_group!(benches, events, simulations, planning, idle_tick);
criterion_main!(benches);
