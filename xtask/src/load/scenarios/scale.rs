//! As many agents as fit: on one process over ws and over wss, and on several processes together.

use std::thread;
use std::time::{Duration, Instant};

use crate::workspace::WorkspaceError;

use super::{Bench, Claims, failures, mib, without_failures};
use crate::load::line::Line;
use crate::load::metrics::Metrics;
use crate::load::servers::{Server, Store};

/// The phase of the config.
const PUSH: usize = 2;

pub(super) fn run(bench: &Bench<'_>) -> Result<Claims, WorkspaceError> {
    let mut claims = Claims::default();
    for tls in [false, true] {
        one_process(bench, tls, &mut claims)?;
    }
    several_processes(bench, &mut claims)?;
    Ok(claims)
}

fn phases(agents: u64, rate: u32, hold_secs: u32) -> [String; 4] {
    [
        format!("connect:agents={agents},rate={rate},state=10k"),
        format!("hold:secs={hold_secs},heartbeat=15"),
        "push:4096,within=120".to_owned(),
        "settle:secs=10".to_owned(),
    ]
}

fn one_process(bench: &Bench<'_>, tls: bool, claims: &mut Claims) -> Result<(), WorkspaceError> {
    let agents: u64 = bench.size(19_500, 1_000);
    let transport = if tls { "wss" } else { "ws" };
    let server = bench.server(&format!("{transport}.server"), tls, Store::Sqlite, &[])?;
    let fleet = bench.fleet(&server, transport, &phases(agents, bench.size(1_000, 500), 30))?;
    let lines = fleet.finish(Duration::from_secs(300))?;
    let what = format!("{agents} {transport} agents on one process");
    reached(claims, &what, &lines, agents);
    applied(claims, &what, &[&server], agents)?;
    if let Some(bytes) = lines[3].rss_bytes {
        println!("        {what}: {:.1} MiB in all", mib(bytes));
    }
    Ok(())
}

fn several_processes(bench: &Bench<'_>, claims: &mut Claims) -> Result<(), WorkspaceError> {
    let processes: u64 = bench.size(9, 2);
    // Linux takes every other port for outgoing connections as long as one is free, of some 28,000, and goes through all of
    // them once none is: beyond 14,000 connections to one address each further one costs the agents' side milliseconds.
    let each: u64 = bench.size(10_000, 500);
    let mut servers = Vec::new();
    for number in 1..=processes {
        servers.push(bench.server(&format!("several-{number}.server"), false, Store::Memory, &[])?);
    }
    let mut fleets = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        let name = format!("several-{}", number + 1);
        fleets.push(bench.fleet(server, &name, &phases(each, bench.size(220, 250), 60))?);
    }
    // Being there one after the other would not be the same.
    let begun = Instant::now();
    let mut most = 0.0_f64;
    while fleets.iter_mut().all(|fleet| fleet.runs() && fleet.ended() <= 1) {
        if begun.elapsed() > Duration::from_secs(600) {
            return Err(WorkspaceError("the agents did not connect within ten minutes".to_owned()));
        }
        most = most.max(sum(&servers, |page| page.needed("opamp_websocket_active_connections"))?);
        thread::sleep(Duration::from_secs(2));
    }
    let mut lines = vec![Line::default(); 4];
    for (number, fleet) in fleets.into_iter().enumerate() {
        let of = fleet.finish(Duration::from_secs(600))?;
        println!(
            "        process {}: {}",
            number + 1,
            failures(&of).unwrap_or_else(|| "no failures".to_owned())
        );
        for (all, one) in lines.iter_mut().zip(&of) {
            all.add(one);
        }
    }
    let agents = processes * each;
    let what = format!("{agents} agents on {processes} processes");
    claims.equal(format!("{what}: connected at the same time"), most as u64, agents);
    reached(claims, &what, &lines, agents);
    let all: Vec<&Server> = servers.iter().collect();
    applied(claims, &what, &all, agents)?;
    println!("        {what}: {:.1} MiB in all", mib(lines[3].rss_bytes.unwrap_or_default()));
    Ok(())
}

/// That all came, stayed and were given the config.
fn reached(claims: &mut Claims, what: &str, lines: &[Line], agents: u64) {
    claims.equal(format!("{what}: connected"), lines[0].agents, agents);
    claims.equal(format!("{what}: still there after heartbeats"), lines[1].agents, agents);
    claims.equal(format!("{what}: said APPLIED of one config"), lines[PUSH].done, agents);
    claims.equal(format!("{what}: still there at the end"), lines[3].agents, agents);
    without_failures(claims, what, lines);
}

/// That the servers count every agent as running what it should.
fn applied(claims: &mut Claims, what: &str, servers: &[&Server], agents: u64) -> Result<(), WorkspaceError> {
    let mut counted = 0.0;
    for server in servers {
        counted += page(server)?.sum("opamp_agents_drift", "drift=\"in_sync\"").unwrap_or_default();
    }
    claims.equal(format!("{what}: counted by the server as in sync"), counted as u64, agents);
    Ok(())
}

fn sum(
    servers: &[Server],
    of: impl Fn(&Metrics) -> Result<f64, WorkspaceError>,
) -> Result<f64, WorkspaceError> {
    servers.iter().map(|server| of(&page(server)?)).sum()
}

fn page(server: &Server) -> Result<Metrics, WorkspaceError> {
    Metrics::read(server.admin.ok_or_else(|| WorkspaceError("ours has an admin port".to_owned()))?)
}
