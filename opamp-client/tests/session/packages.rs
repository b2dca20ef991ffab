//! Packages: one offer at a time, reported whole.

use opamp_client::packages::{
    DownloadDetails, PackageStatus, PackageStatuses, PackageVersion, PackagesOffer, PackagesRejected,
};
use opamp_client::session::{Input, Output};
use opamp_client::{ConfigHash, Event, ServerFault, Transport};
use opamp_proto::pb;

use crate::bench::{ALL, Bench, Step, seconds};

fn hash(text: &'static str) -> ConfigHash {
    ConfigHash::new(text)
}

fn version(text: &'static str) -> PackageVersion {
    PackageVersion::new(text, hash(text))
}

fn offered(all: &'static [u8], names: &[&str]) -> pb::ServerToAgent {
    let package = pb::PackageAvailable { version: "2".into(), hash: b"p2"[..].into(), ..Default::default() };
    let packages = names.iter().map(|name| ((*name).to_owned(), package.clone())).collect();
    let offer = pb::PackagesAvailable { packages, all_packages_hash: all.into() };
    pb::ServerToAgent { packages_available: Some(offer), ..Default::default() }
}

fn installed(received: &'static str) -> PackageStatuses {
    PackageStatuses::new(hash(received))
        .package("a", PackageStatus::Installed { has: version("1"), offered: None })
}

fn downloading(received: &'static str, percent: f64) -> PackageStatuses {
    let details = Some(DownloadDetails::new(percent, 1.0));
    installed(received).package("x", PackageStatus::Downloading { offered: version("2"), has: None, details })
}

fn able(transport: Transport) -> Bench {
    let mut bench = Bench::with(transport, |setup| setup.abilities.packages = true);
    bench.tell(Input::PackageStatuses(installed("")));
    bench
}

fn syncs(step: &Step) -> Vec<&PackagesOffer> {
    let offer = |output: &'_ Output| matches!(output, Output::SyncPackages(_));
    let offers = step.outputs.iter().filter(|output| offer(output));
    offers
        .map(|output| match output {
            Output::SyncPackages(offer) => offer,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn reports(step: &Step) -> Vec<&pb::PackageStatuses> {
    step.sent.iter().filter_map(|message| message.package_statuses.as_ref()).collect()
}

on_both_transports! {
    /// R-CAP-18, R-STATUS-12.
    fn what_is_installed_is_reported_first_and_not_repeated(transport) {
        let mut bench = able(transport);
        let step = bench.connect();
        assert_eq!(step.message().capabilities & 0x18, 0x18);
        assert_eq!(reports(&step)[0].packages.keys().collect::<Vec<_>>(), ["a"]);
        assert!(reports(&bench.pass(seconds(300))).is_empty());
        let message = Bench::on(transport).connect().message().clone();
        assert_eq!((message.capabilities & 0x18, message.package_statuses), (0, None));
        let mut bench = able(transport);
        bench.capabilities = ALL & !0x10;
        bench.connect();
        let step = bench.tell(Input::PackageStatuses(downloading("", 1.0)));
        assert!(reports(&step).is_empty(), "the server does not take it");
    }

    /// R-PKG-17, R-PKG-19, R-PKG-23, R-PKG-41, R-PKG-47: the newest snapshot, about the newest offer.
    fn an_offer_is_worked_on_and_reported_about_until_it_has_come_to_an_end(transport) {
        let mut bench = able(transport);
        bench.connect();
        let step = bench.answer(offered(b"odd hash \x00", &["x"]));
        assert_eq!((syncs(&step).len(), syncs(&step)[0].hash().as_bytes()), (1, &b"odd hash \x00"[..]));
        assert_eq!(&reports(&step)[0].server_provided_all_packages_hash[..], b"odd hash \x00");
        assert!(reports(&step)[0].packages.contains_key("a"), "the complete set");
        assert_eq!(reports(&step)[0].packages["x"].status, pb::PackageStatusEnum::InstallPending as i32, "R-PKG-37");
        // Made for an earlier offer, or for none: it is no word on this one.
        assert!(reports(&bench.tell(Input::PackageStatuses(downloading("", 10.0)))).is_empty());
        let step = bench.tell(Input::PackageStatuses(downloading("odd hash \x00", 10.0)));
        assert_eq!(&reports(&step)[0].server_provided_all_packages_hash[..], b"odd hash \x00");
        assert_eq!(reports(&step)[0].packages.len(), 2);
        let done = installed("odd hash \x00").package("x", PackageStatus::Installed { has: version("2"), offered: Some(version("2")) });
        let step = bench.tell(Input::PackageStatuses(done));
        assert_eq!(reports(&step)[0].packages["x"].status, pb::PackageStatusEnum::Installed as i32, "at once");
        let hash = ConfigHash::new(b"odd hash \x00".to_vec());
        bench.tell(Input::PackagesOutcome { hash, result: Ok(()) });
        assert!(!bench.session.is_applying());
        let step = bench.answer(offered(b"odd hash \x00", &["x"]));
        assert!(syncs(&step).is_empty() && reports(&step).is_empty(), "R-PKG-07, R-PKG-44: {step:?}");
    }

    /// R-PKG-07: what came to an end in an earlier process is no news either.
    fn the_hash_of_what_is_installed_is_known(transport) {
        let mut bench = Bench::with(transport, |setup| setup.abilities.packages = true);
        bench.tell(Input::PackageStatuses(installed("h")));
        bench.connect();
        assert!(syncs(&bench.answer(offered(b"h", &["x"]))).is_empty());
        assert_eq!(syncs(&bench.answer(offered(b"i", &["x"]))).len(), 1);
    }

    /// R-PKG-26.
    fn an_offer_that_cannot_be_processed_is_told_as_a_whole_and_the_text_goes_with_the_next(transport) {
        let mut bench = able(transport);
        bench.connect();
        bench.answer(offered(b"1", &["x"]));
        let result = Err(PackagesRejected::new("no space left"));
        let step = bench.tell(Input::PackagesOutcome { hash: hash("1"), result });
        assert_eq!((reports(&step)[0].error_message.as_str(), &reports(&step)[0].server_provided_all_packages_hash[..]), ("no space left", &b"1"[..]));
        assert!(syncs(&bench.answer(offered(b"1", &["x"]))).is_empty(), "R-PKG-48: not for ever");
        let step = bench.answer(offered(b"2", &["x"]));
        assert_eq!(reports(&step)[0].error_message, "");
    }

    fn an_offer_that_is_no_good_at_all_is_not_handed_over(transport) {
        let mut bench = Bench::with(transport, |setup| {
            setup.abilities.packages = true;
            setup.settings.package_limits.packages_max = 2;
            setup.settings.packages_bytes_max = 200;
        });
        bench.tell(Input::PackageStatuses(installed("")));
        bench.connect();
        let step = bench.answer(offered(b"1", &["x", "y", "z"]));
        assert!(syncs(&step).is_empty() && reports(&step)[0].error_message.contains("takes 2"), "{step:?}");
        let long = "x".repeat(300);
        let step = bench.answer(offered(b"2", &[&long]));
        assert!(syncs(&step).is_empty() && reports(&step)[0].error_message.contains("200 bytes"), "{step:?}");
        assert_eq!(&reports(&step)[0].server_provided_all_packages_hash[..], b"2");
        let step = bench.answer(offered(b"", &["x"]));
        assert_eq!(step.events, [Event::ServerFault(ServerFault::PackagesWithoutHash)]);
    }

    /// R-PKG-19, R-PKG-26: an offer that was no good holds up no word on what is there, and none for long.
    fn what_is_installed_is_told_under_an_offer_that_could_not_be_processed_and_pending_ones_stay_under_one_that_can(transport) {
        let with = || {
            Bench::with(transport, |setup| {
                setup.abilities.packages = true;
                setup.settings.package_limits.packages_max = 2;
            })
        };
        let mut bench = with();
        bench.connect();
        bench.answer(offered(b"1", &["x", "y", "z"]));
        let step = bench.tell(Input::PackageStatuses(installed("")));
        let report = reports(&step)[0];
        assert!(report.packages.contains_key("a") && report.error_message.contains("takes 2"), "{report:?}");
        assert_eq!(&report.server_provided_all_packages_hash[..], b"1");
        let mut bench = with();
        bench.connect();
        let step = bench.answer(offered(b"1", &["x"]));
        assert_eq!(reports(&step)[0].packages["x"].status, pb::PackageStatusEnum::InstallPending as i32);
        assert!(reports(&bench.tell(Input::PackageStatuses(installed("")))).is_empty(), "it says nothing of x");
    }

    /// Lesson: a second sync waits for the first, which is told to end; the newest follows.
    fn a_newer_offer_cancels_the_one_before_and_follows_it(transport) {
        let mut bench = able(transport);
        bench.connect();
        bench.answer(offered(b"1", &["x"]));
        for all in [&b"2"[..], b"3"] {
            let step = bench.answer(offered(match all { b"2" => b"2", _ => b"3" }, &["x"]));
            assert!(step.has(&Output::CancelPackages) && syncs(&step).is_empty(), "{step:?}");
            assert_eq!(&reports(&step)[0].server_provided_all_packages_hash[..], all);
        }
        let step = bench.tell(Input::PackagesOutcome { hash: hash("1"), result: Err(PackagesRejected::new("cancelled")) });
        assert_eq!(syncs(&step)[0].hash(), &hash("3"), "only the newest");
        assert!(reports(&step).iter().all(|report| report.error_message.is_empty()), "1 is no news any more");
        assert!(bench.pass(seconds(120)).sent.len() >= 3, "and heartbeats went on");
    }

    /// R-PKG-16: at a bounded rate, and what matters at once.
    fn progress_is_reported_now_and_then_and_changes_of_state_at_once(transport) {
        let mut bench = able(transport);
        bench.connect();
        bench.answer(offered(b"1", &["x"]));
        let mut sent = 0;
        for percent in 0..100 {
            let step = bench.tell(Input::PackageStatuses(downloading("1", f64::from(percent))));
            sent += reports(&step).len();
            sent += reports(&bench.pass(std::time::Duration::from_millis(50))).len();
        }
        assert!((4..=7).contains(&sent), "about one a second: {sent}");
        let step = bench.pass(seconds(2));
        let last = reports(&step).last().copied().cloned();
        let percent = |report: &pb::PackageStatuses| report.packages["x"].download_details.unwrap().download_percent;
        assert!(last.is_none_or(|report| percent(&report) == 99.0), "the newest waits");
        bench.tell(Input::PackageStatuses(downloading("1", 99.5)));
        let installing = installed("1").package("x", PackageStatus::Installing { offered: version("2"), has: None });
        assert_eq!(reports(&bench.tell(Input::PackageStatuses(installing))).len(), 1);
    }
}
