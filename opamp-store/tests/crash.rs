//! Processes that are killed, logs that are cut, disks that fill up: what was acknowledged is there.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]
#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::{env, fs};

use bytes::Bytes;
use opamp_proto::{AgentId, Wall};
use opamp_store::conformance::Dump;
use opamp_store::{
    AgentRecord, AgentStore as _, BlobId, Checkpoint, CommitError, NewAuditEntry, Revision, SqliteOptions,
    SqliteStore, Store, Unhealthy, WriteBatch,
};

use self::common::{SqliteFile, TempDir, agent, agent_id, batch};

/// Tells the child what to do: `<task> <path>`.
const TASK: &str = "OPAMP_STORE_CRASH_TASK";

/// What the child commits as number `number`: over several aggregates, so that half of it would show.
fn load(number: u64) -> WriteBatch {
    batch(|batch| {
        let blob = batch.put_blob(content(number));
        batch.put_agent(AgentRecord { effective_config: Some(blob), ..agent(number) });
        batch.checkpoints([Checkpoint {
            id: agent_id(number),
            sequence_num: number,
            last_seen: Wall(number),
        }]);
        let entity = agent_id(number).to_string();
        batch.append_audit(NewAuditEntry { writer: "child".into(), entity, ..NewAuditEntry::default() });
        batch.idempotency_key(number.to_string());
    })
}

fn content(number: u64) -> Bytes {
    Bytes::from(format!("{number:>3000}"))
}

/// Whether commit `number` is there, and if so, as a whole.
fn is_whole(number: u64, dump: &Dump, agents: &BTreeMap<AgentId, &AgentRecord>) -> bool {
    let id = agent_id(number);
    let present = agents.contains_key(&id);
    assert_eq!(dump.blobs.contains_key(&BlobId::of(&content(number))), present, "blob of {number}");
    assert_eq!(
        dump.checkpoints.iter().any(|checkpoint| checkpoint.id == id),
        present,
        "checkpoint of {number}"
    );
    let entity = id.to_string();
    assert_eq!(dump.audit.iter().any(|entry| entry.entity == entity), present, "audit of {number}");
    present
}

/// Checks that every commit is there as a whole or not at all, and answers which are.
async fn whole_commits(store: &SqliteStore, numbers: impl Iterator<Item = u64>) -> Vec<u64> {
    let dump = Dump::of(store, 1_000).await;
    assert_eq!(dump.report.broken, None);
    let agents: BTreeMap<_, _> = dump.agents.iter().map(|record| (record.id, record)).collect();
    numbers.filter(|number| is_whole(*number, &dump, &agents)).collect()
}

/// Not a test of its own: the process that is killed, or whose disk fills up.
#[test]
#[ignore = "started by the tests of this file"]
fn child() {
    let Ok(task) = env::var(TASK) else { panic!("not started by a test of this file") };
    let (task, path) = task.split_once(' ').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = SqliteStore::open(path, SqliteOptions::default()).await.unwrap();
        match task {
            "load" => commit_for_ever(&store).await,
            "fill" => commit_until_full(&store).await,
            other => panic!("{other}"),
        }
    });
}

/// Several writers at a time, each number printed once it is acknowledged.
async fn commit_for_ever(store: &SqliteStore) {
    let first = store.agents(None, 1_000).await.unwrap().items.len() as u64;
    let writers = (0..8).map(|writer| async move {
        for step in 0.. {
            let number = first * 1_000 + step * 8 + writer;
            store.commit(load(number), None).await.unwrap();
            println!("acknowledged {number}");
            std::io::stdout().flush().unwrap();
        }
    });
    futures::future::join_all(writers).await;
}

/// Until the file may not grow any more; what fails must be said, and reading goes on.
async fn commit_until_full(store: &SqliteStore) {
    // A connection that reads keeps the log from being moved into the database file, which would make room.
    assert!(store.agents(None, 1).await.unwrap().items.is_empty());
    for number in 0.. {
        match store.commit(load(number), None).await {
            Ok(_) => println!("acknowledged {number}"),
            Err(error @ (CommitError::OutcomeUnknown(_) | CommitError::Unavailable(_))) => {
                println!("failed {number}");
                eprintln!("{error}");
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(matches!(store.health().await, Err(Unhealthy::NotWritable(_))));
    assert!(store.agent(&agent_id(0)).await.unwrap().is_some());
}

fn start(task: &str, file: &SqliteFile, limit: &str) -> Child {
    // The shell sets the limit; a process that ignores XFSZ gets an error from write instead of being killed.
    Command::new("sh")
        .args(["-c", &format!("trap '' XFSZ; {limit} exec \"$0\" --ignored --exact child --nocapture")])
        .arg(env::current_exe().unwrap())
        .env(TASK, format!("{task} {}", file.path().display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The number in a line of the child, which the test harness may have begun.
fn number_after(word: &str, line: &str) -> Option<u64> {
    line.split_once(word)?.1.trim().parse().ok()
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let file = SqliteFile::new();
    let mut acknowledged = Vec::new();
    for kill in 1..=6 {
        let mut child = start("load", &file, "");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = acknowledged.len() + 25 * kill;
        for line in &mut lines {
            acknowledged.extend(number_after("acknowledged ", &line.unwrap()));
            if acknowledged.len() >= wanted {
                break;
            }
        }
        child.kill().unwrap();
        // What it said before it died counts as well.
        acknowledged
            .extend(lines.map_while(Result::ok).filter_map(|line| number_after("acknowledged ", &line)));
        child.wait().unwrap();
        assert!(acknowledged.len() >= wanted, "the child ended by itself");

        let store = file.store().await;
        let numbers = acknowledged.iter().copied();
        assert_eq!(whole_commits(&store, numbers).await, acknowledged, "after kill {kill}");
        // Nothing half is left of what was not acknowledged either.
        let dump = Dump::of(&store, 1_000).await;
        assert_eq!((dump.agents.len(), dump.audit.len()), (dump.checkpoints.len(), dump.blobs.len()));
        assert_eq!(dump.agents.len(), dump.audit.len());
        // An acknowledged key is known: repeating the commit changes nothing.
        let before = store.commit(WriteBatch::new(), None).await.unwrap();
        let repeated = store.commit(load(*acknowledged.last().unwrap()), None).await.unwrap();
        assert!(repeated <= before);
        store.close().await;
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_that_was_acknowledged() {
    let file = SqliteFile::new();
    // 1,024-byte blocks in the shells of this world, 512-byte ones in those that follow POSIX to the letter.
    let child = start("fill", &file, "ulimit -f 2400;");
    let output = child.wait_with_output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    let acknowledged: Vec<_> = text.lines().filter_map(|line| number_after("acknowledged ", line)).collect();
    let failed: Vec<_> = text.lines().filter_map(|line| number_after("failed ", line)).collect();
    assert!(acknowledged.len() > 10 && failed == [acknowledged.len() as u64], "{text}");
    let store = file.store().await;
    assert_eq!(whole_commits(&store, acknowledged.iter().copied()).await, acknowledged);
    // Whatever became of the failed one, repeating it under its key settles it.
    let before = store.commit(WriteBatch::new(), None).await.unwrap();
    let repeated = store.commit(load(failed[0]), None).await.unwrap();
    assert!(repeated == before || repeated == before.next());
    assert_eq!(whole_commits(&store, failed.iter().copied()).await, failed);
}

#[tokio::test]
async fn a_log_cut_anywhere_reopens_with_every_commit_before_the_cut() {
    const COMMITS: u64 = 6;
    let file = SqliteFile::new();
    let store = file.store().await;
    let log = file.0.file("store.sqlite-wal");
    // Everything up to here reaches the database file only when the store is closed, so the log holds it all.
    let mut ends = Vec::new();
    for number in 0..COMMITS {
        store.commit(load(number), None).await.unwrap();
        ends.push(fs::metadata(&log).unwrap().len());
    }
    let (database, whole) = (fs::read(file.path()).unwrap(), fs::read(&log).unwrap());
    assert_eq!(whole.len() as u64, *ends.last().unwrap());

    let mut states = Vec::new();
    for cut in cuts(&ends) {
        let copy = SqliteFile(TempDir::new());
        fs::write(copy.path(), &database).unwrap();
        fs::write(copy.0.file("store.sqlite-wal"), &whole[..cut as usize]).unwrap();
        let store = copy.store().await;
        let present = whole_commits(&store, 0..COMMITS).await;
        // Exactly the commits whose end is before the cut: none lost, none half.
        let expected = ends.iter().filter(|end| **end <= cut).count() as u64;
        assert_eq!(present, (0..expected).collect::<Vec<_>>(), "log cut at {cut} of {}", whole.len());
        // And it goes on from there.
        if states.len() % 8 == 0 {
            assert_eq!(store.commit(load(100), None).await, Ok(Revision(expected + 1)));
        }
        states.push(expected);
        store.close().await;
    }
    assert!(states.len() > 200 && states.is_sorted());
    states.dedup();
    assert_eq!(states, (COMMITS - 3..=COMMITS).collect::<Vec<_>>());
}

/// Positions in the frames of the last three commits: every byte around the end of a frame and of its header, and a
/// stride through what is between.
fn cuts(ends: &[u64]) -> Vec<u64> {
    const LOG_HEADER: u64 = 32;
    const FRAME_HEADER: u64 = 24;
    const FRAME: u64 = FRAME_HEADER + 4_096;
    const STRIDE: u64 = 1_021;
    let (first, last) = (ends[ends.len() - 4], ends[ends.len() - 1]);
    let is_interesting = |cut: &u64| {
        let within = (cut - LOG_HEADER) % FRAME;
        let near = |position: u64| within.abs_diff(position) <= 1;
        near(0) || near(FRAME) || near(FRAME_HEADER) || (cut - first).is_multiple_of(STRIDE)
    };
    (first..=last).filter(is_interesting).collect()
}
