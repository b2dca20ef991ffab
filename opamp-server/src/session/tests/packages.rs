//! Packages: when they are offered.

use super::*;
use crate::snapshot::PackagesState;

fn packages(version: &str) -> PackagesOffer {
    let file = pb::DownloadableFile {
        download_url: "https://example.com/agent.tar.gz".into(),
        content_hash: vec![7; 32].into(),
        headers: Some(pb::Headers {
            headers: vec![pb::Header { key: "Authorization".into(), value: "Bearer hunter2".into() }],
        }),
        ..Default::default()
    };
    let package = pb::PackageAvailable { version: version.into(), file: Some(file), ..Default::default() };
    let packages = [(String::new(), package.clone()), ("add-on".to_owned(), package)].into();
    PackagesOffer::new(pb::PackagesAvailable { packages, ..Default::default() }).unwrap()
}

fn nothing() -> PackagesOffer {
    PackagesOffer::new(pb::PackagesAvailable::default()).unwrap()
}

impl Table {
    fn packages(&mut self, generation: u64, offer: &PackagesOffer) -> Vec<pb::ServerToAgent> {
        self.input(Input::Desired(Desired::packages(generation, offer.clone())));
        self.input(Input::Wake)
    }

    fn package_statuses(&mut self, hash: &[u8], status: pb::PackageStatusEnum) -> pb::ServerToAgent {
        let failed = status == pb::PackageStatusEnum::InstallFailed;
        let one = pb::PackageStatus {
            name: "add-on".into(),
            status: status as i32,
            error_message: if failed { "disk full".into() } else { String::new() },
            ..Default::default()
        };
        let statuses = pb::PackageStatuses {
            packages: [("add-on".to_owned(), one)].into(),
            server_provided_all_packages_hash: Bytes::copy_from_slice(hash),
            ..Default::default()
        };
        self.say(pb::AgentToServer { package_statuses: Some(statuses), ..Default::default() })
    }
}

/// R-PKG-03, R-PKG-46.
#[test]
fn packages_are_pushed_to_a_socket_and_wait_for_the_next_poll() {
    for offer in [packages("1"), nothing()] {
        let mut socket = Table::websocket();
        socket.full();
        let pushed = socket.packages(1, &offer);
        assert_eq!(pushed[0].packages_available.as_ref(), Some(offer.packages()));
        assert!(!offer.packages().all_packages_hash.is_empty());
        let mut polling = Table::on(Transport::Http);
        polling.full();
        assert!(polling.packages(1, &offer).is_empty());
        assert_eq!(polling.heartbeat().packages_available.as_ref(), Some(offer.packages()));
    }
}

/// R-PKG-06, R-CAP-17, R-CAP-05.
#[test]
fn packages_are_offered_to_agents_that_accept_them_only_and_when_they_come_to() {
    let mut table = Table::websocket();
    table.capabilities = ALL & !Caps::ACCEPTS_PACKAGES.bits();
    table.full();
    assert!(table.packages(1, &packages("1")).is_empty());
    assert!(table.heartbeat().packages_available.is_none());
    table.capabilities = ALL;
    assert!(table.heartbeat().packages_available.is_some());
}

/// R-PKG-24, R-PKG-25.
#[test]
fn an_outdated_aggregate_hash_is_answered_with_the_offer_and_the_right_one_is_not() {
    for transport in [Transport::WebSocket, Transport::Http] {
        let mut table = Table::on(transport);
        table.full();
        let wanted = packages("2");
        table.packages(1, &wanted);
        assert!(
            table.package_statuses(b"old", pb::PackageStatusEnum::Installed).packages_available.is_some()
        );
        let hash = wanted.hash().to_bytes();
        for status in [
            pb::PackageStatusEnum::InstallPending,
            pb::PackageStatusEnum::Downloading,
            pb::PackageStatusEnum::Installing,
            pb::PackageStatusEnum::Installed,
        ] {
            assert!(table.package_statuses(&hash, status).packages_available.is_none());
            let state = table.session.snapshot().packages.report.unwrap().state;
            assert_eq!(state == PackagesState::Installed, status == pb::PackageStatusEnum::Installed);
        }
        assert_eq!(table.session.snapshot().packages.last_applied.unwrap().0, *wanted.hash());
        assert!(
            table.package_statuses(b"old", pb::PackageStatusEnum::Installed).packages_available.is_some()
        );
    }
}

#[test]
fn packages_that_failed_are_not_offered_again_in_the_same_generation() {
    let mut table = Table::websocket();
    table.full();
    let bad = packages("2");
    table.packages(1, &bad);
    table.package_statuses(&bad.hash().to_bytes(), pb::PackageStatusEnum::InstallFailed);
    let failure = table.session.snapshot().packages.last_failure.unwrap();
    assert_eq!((failure.hash, failure.error.as_str()), (bad.hash().clone(), "add-on: disk full"));
    for _ in 0..5 {
        table.pass(3_600);
        assert!(
            table.package_statuses(b"old", pb::PackageStatusEnum::Installed).packages_available.is_none()
        );
    }
    assert_eq!(table.packages(2, &bad).len(), 1);
}

#[test]
fn packages_are_judged_together_when_nothing_is_being_worked_on_any_more() {
    use pb::PackageStatusEnum::{Downloading, InstallFailed, InstallPending, Installed};
    let judge = |statuses: &[(pb::PackageStatusEnum, &str, &str)], error: &str| {
        let packages = statuses.iter().enumerate().map(|(number, (status, has, offered))| {
            let status = pb::PackageStatus {
                status: *status as i32,
                agent_has_hash: Bytes::copy_from_slice(has.as_bytes()),
                server_offered_hash: Bytes::copy_from_slice(offered.as_bytes()),
                ..Default::default()
            };
            (number.to_string(), status)
        });
        let statuses = pb::PackageStatuses {
            packages: packages.collect(),
            error_message: error.into(),
            ..Default::default()
        };
        crate::snapshot::PackagesReport::of(&statuses).state
    };
    assert_eq!(judge(&[(Installed, "a", "a"), (Installed, "local", "")], ""), PackagesState::Installed);
    assert_eq!(judge(&[(Installed, "a", "b")], ""), PackagesState::Pending, "acknowledged, and no more");
    assert_eq!(judge(&[(InstallFailed, "a", "b"), (Installed, "c", "c")], ""), PackagesState::Failed);
    for working in [Downloading, InstallPending] {
        assert_eq!(judge(&[(InstallFailed, "a", "b"), (working, "c", "d")], ""), PackagesState::Pending);
    }
    assert_eq!(judge(&[(Downloading, "c", "d")], "no such format"), PackagesState::Failed);
}

#[test]
fn a_download_in_progress_is_no_news_each_time() {
    let mut table = Table::websocket();
    table.full();
    let offer = packages("1");
    table.packages(1, &offer);
    table.package_statuses(&offer.hash().to_bytes(), pb::PackageStatusEnum::Downloading);
    table.session.take_change();
    for percent in 1..5 {
        let details = pb::PackageDownloadDetails { download_percent: percent.into(), ..Default::default() };
        let one = pb::PackageStatus {
            name: "add-on".into(),
            status: pb::PackageStatusEnum::Downloading as i32,
            download_details: Some(details),
            ..Default::default()
        };
        let statuses = pb::PackageStatuses {
            packages: [("add-on".to_owned(), one)].into(),
            server_provided_all_packages_hash: offer.hash().to_bytes(),
            ..Default::default()
        };
        table.say(pb::AgentToServer { package_statuses: Some(statuses), ..Default::default() });
        assert!(!table.session.has_change());
    }
}

/// R-RETRY-07: what does not fit into one message goes into the next, and nothing is lost.
#[test]
fn offers_that_do_not_fit_together_go_one_after_the_other() {
    let large = |generation| {
        let config = RemoteConfigOffer::new(ConfigHash::new(vec![1]), &config(&"x".repeat(700)));
        Desired {
            packages: Target::new(generation, Some(packages(&"1".repeat(500)))),
            ..Desired::remote_config(generation, config)
        }
    };
    let settings = SessionSettings { send_bytes_max: 1_800, ..SessionSettings::default() };
    let mut socket = Table::with(Transport::WebSocket, settings.clone());
    socket.full();
    socket.input(Input::Desired(large(1)));
    let sent = socket.input(Input::Wake);
    assert_eq!(sent.len(), 2);
    assert!(sent[0].remote_config.is_some() && sent[0].packages_available.is_none());
    assert!(sent[1].remote_config.is_none() && sent[1].packages_available.is_some());
    assert!(socket.out.messages().all(|message| message.len() <= 1_801));
    let mut polling = Table::with(Transport::Http, settings);
    polling.full();
    polling.input(Input::Desired(large(1)));
    assert!(polling.heartbeat().remote_config.is_some());
    assert!(polling.heartbeat().packages_available.is_some());
    assert_eq!(polling.out.effects().discarded_oversize, 0);
}

#[test]
fn what_is_shown_of_packages_holds_no_secret() {
    let mut table = Table::websocket();
    table.full();
    assert_eq!(table.packages(1, &packages("1")).len(), 1);
    let shown = format!("{:?} {:?} {:?}", table.session, table.session.snapshot(), packages("1"));
    assert!(!shown.contains("hunter2") && shown.contains("add-on"), "{shown}");
}
