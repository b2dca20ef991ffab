//! Downloads that break off, and files that change meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use opamp_client::packages::PackageStatus;

use crate::common::*;
use crate::server::{Body, Reply, Request, Server};

fn content() -> Vec<u8> {
    (0..1_000_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends a tenth of the file with each request.
fn tenth(content: &[u8]) -> impl Fn(Vec<u8>) -> Body {
    let (whole, step) = (content.len(), content.len() / 10);
    move |rest| {
        if rest.len() > step {
            Body::Cut(rest[..step].to_vec(), rest.len())
        } else {
            assert!(whole >= rest.len());
            Body::Whole(rest)
        }
    }
}

async fn installed(
    server: &Server,
    directory: &Directory,
    content: &[u8],
) -> opamp_client::packages::PackageStatuses {
    let installer = installer(directory);
    let statuses =
        apply(&installer, offer("1", [("x", package(&server.url("/x"), "x", "1", content))])).await.unwrap();
    if is_installed(&statuses, "x", "1") {
        assert_eq!(in_use(&installer, "x").as_deref(), Some(content));
    }
    statuses
}

#[tokio::test]
async fn a_download_cut_at_every_tenth_goes_on_where_it_broke_off() {
    let content = content();
    let served = content.clone();
    let server = Server::start(move |request| Reply::ranged(request, &served, "\"a\"", tenth(&served))).await;
    let directory = Directory::new();
    let statuses = installed(&server, &directory, &content).await;
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
    let starts: Vec<_> = server.requests().iter().map(Request::range_start).collect();
    let expected: Vec<_> = (0..10).map(|tenth| (tenth > 0).then_some(tenth * 100_000)).collect();
    assert_eq!(starts, expected, "no byte is fetched twice");
    let validators: Vec<_> =
        server.requests().iter().map(|request| request.header("if-range").map(str::to_owned)).collect();
    assert!(validators[0].is_none() && validators[1..].iter().all(|tag| tag.as_deref() == Some("\"a\"")));
    assert_eq!(directory.names("packages/downloads"), [""; 0], "nothing of it stays behind");
}

#[tokio::test]
async fn without_a_validator_the_rest_is_asked_for_and_the_hash_decides() {
    let content = content();
    let served = content.clone();
    let server = Server::start(move |request| {
        let mut reply = Reply::ranged(request, &served, "\"a\"", tenth(&served));
        reply.headers.retain(|(name, _)| name != "etag");
        reply
    })
    .await;
    let statuses = installed(&server, &Directory::new(), &content).await;
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
    assert_eq!(server.count(), 10);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_is_asked_again_and_the_file_begun_anew() {
    let content = content();
    let (served, asked) = (content.clone(), AtomicUsize::new(0));
    let server = Server::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Reply::new(200, Body::Cut(served[..300_000].to_vec(), served.len())),
        _ => Reply::new(200, Body::Whole(served.clone())),
    })
    .await;
    let statuses = installed(&server, &Directory::new(), &content).await;
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
    assert_eq!(server.count(), 3);
}

/// A server that has another file first, then the one offered; `honest` says whether it heeds validators.
async fn changing(honest: bool, same_tag: bool) -> (Server, Vec<u8>) {
    let content = content();
    let (served, asked) = (content.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let mut request = request.clone();
        if !honest {
            request.headers.remove("if-range");
        }
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            let other: Vec<_> = served.iter().map(|byte| !byte).collect();
            return Reply::ranged(&request, &other, "\"a\"", |rest| {
                Body::Cut(rest[..500_000].to_vec(), rest.len())
            });
        }
        Reply::file(&request, &served, if same_tag { "\"a\"" } else { "\"b\"" })
    })
    .await;
    (server, content)
}

#[tokio::test]
async fn a_file_that_changed_in_between_is_begun_anew() {
    let (server, content) = changing(true, false).await;
    let statuses = installed(&server, &Directory::new(), &content).await;
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
    assert_eq!(server.count(), 2, "the validator did not fit, so the answer is the whole file");
}

#[tokio::test]
async fn a_file_that_changed_in_between_is_noticed_also_if_the_server_heeds_no_validator() {
    let (server, content) = changing(false, false).await;
    let statuses = installed(&server, &Directory::new(), &content).await;
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
    let starts: Vec<_> = server.requests().iter().map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(500_000), None]);
}

#[tokio::test]
async fn pieces_of_two_files_under_one_validator_are_told_by_the_hash_and_fetched_once_more() {
    let (server, content) = changing(false, true).await;
    let statuses = installed(&server, &Directory::new(), &content).await;
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
    let starts: Vec<_> = server.requests().iter().map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(500_000), None]);
}

#[tokio::test]
async fn a_server_with_another_file_each_time_is_given_up() {
    let content = content();
    let (served, asked) = (content.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let tag = format!("\"{}\"", asked.fetch_add(1, Ordering::Relaxed));
        let mut request = request.clone();
        request.headers.remove("if-range");
        Reply::ranged(&request, &served, &tag, |rest| Body::Cut(rest[..1].to_vec(), rest.len()))
    })
    .await;
    let statuses = installed(&server, &Directory::new(), &content).await;
    assert!(why(&statuses, "x").contains("another file each time"));
    assert!(server.count() < 10);
}

#[tokio::test]
async fn a_download_goes_on_after_a_restart_of_the_agent() {
    let content = content();
    let (served, gone) = (content.clone(), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&gone);
    let server = Server::start(move |request| {
        let first = seen.fetch_add(1, Ordering::Relaxed) == 0;
        Reply::ranged(request, &served, "\"a\"", |rest| match first {
            true => Body::Stalled(rest[..600_000].to_vec(), rest.len()),
            false => Body::Whole(rest),
        })
    })
    .await;
    let directory = Directory::new();
    let first = installer(&directory);
    let (progress, _reports) = silent();
    let wanted = offer("1", [("x", package(&server.url("/x"), "x", "1", &content))]);
    let applying = first.apply(wanted, progress);
    let part = || -> u64 {
        let files = std::fs::read_dir(directory.path().join("packages/downloads")).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    };
    tokio::select! {
        _ = applying => panic!("the server stalls"),
        () = async { while part() < 500_000 { tokio::task::yield_now().await } } => {}
    }
    // Dropped: it ends as if a newer offer had come. The lock is free when it has.
    drop(first.statuses().await);
    drop(first);
    let kept = usize::try_from(part()).unwrap();
    let statuses = installed(&server, &directory, &content).await;
    assert!(is_installed(&statuses, "x", "1"), "{statuses:?}");
    let start = server.requests().last().unwrap().range_start().expect("the rest was asked for");
    assert!(start >= 500_000 && start <= kept, "{start}");
}

#[tokio::test]
async fn progress_is_told_at_a_bounded_pace_with_percent_and_rate() {
    let content = content();
    let served = content.clone();
    let server = Server::start(move |request| Reply::ranged(request, &served, "\"a\"", tenth(&served))).await;
    let directory = Directory::new();
    let mut eager = settings();
    eager.download.progress_interval = std::time::Duration::ZERO;
    let installer = builder(&directory).settings(eager).open().unwrap();
    let (progress, mut reports) = silent();
    let wanted = offer("1", [("x", package(&server.url("/x"), "x", "1", &content))]);
    let watching = async {
        let (mut percents, mut states) = (Vec::new(), Vec::new());
        while let Some(statuses) = reports.next().await {
            let status = statuses.get("x").unwrap();
            if let PackageStatus::Downloading { details: Some(details), .. } = status {
                assert!(details.bytes_per_second() > 0.0, "{details:?}");
                percents.push(details.percent());
            }
            let state = statuses.to_message().packages["x"].status();
            if states.last() != Some(&state) {
                states.push(state);
            }
        }
        (percents, states)
    };
    let (applied, (percents, states)) = tokio::join!(installer.apply(wanted, progress), watching);
    applied.unwrap();
    assert!(!percents.is_empty() && percents.is_sorted(), "{percents:?}");
    assert!(percents.iter().all(|percent| (0.0..=100.0).contains(percent)), "R-PKG-38: {percents:?}");
    use opamp_proto::pb::PackageStatusEnum::{Downloading, Installed};
    assert!(states.contains(&Downloading) && states.last() == Some(&Installed), "{states:?}");
}

#[tokio::test]
async fn a_quick_download_is_not_told_piece_by_piece() {
    let content = content();
    let served = content.clone();
    let server = Server::start(move |request| Reply::ranged(request, &served, "\"a\"", tenth(&served))).await;
    let directory = Directory::new();
    // With default settings progress is told every 2 s.
    let installer = installer(&directory);
    let (progress, mut reports) = silent();
    let wanted = offer("1", [("x", package(&server.url("/x"), "x", "1", &content))]);
    let begun = std::time::Instant::now();
    let watching = async {
        let mut told = 0;
        while let Some(statuses) = reports.next().await {
            told += u64::from(matches!(
                statuses.get("x"),
                Some(PackageStatus::Downloading { details: Some(_), .. })
            ));
        }
        told
    };
    let (applied, told) = tokio::join!(installer.apply(wanted, progress), watching);
    applied.unwrap();
    assert!(told <= begun.elapsed().as_secs() / 2, "R-PKG-16: {told} reports in {:?}", begun.elapsed());
}
