//! R-PKG: packages, as far as the server offers them and hears of them; and R-SEC-10, R-SEC-12, R-SEC-13: signatures.

use std::collections::BTreeSet;

use opamp_proto::pb;
use opamp_server::PackagesOffer;

use super::common::*;
use super::offers::*;

use pb::PackageStatusEnum::{InstallFailed, InstallPending, Installed};

/// One top-level package without a name, and an add-on with one.
fn two() -> pb::PackagesAvailable {
    let addon = pb::PackageAvailable { r#type: pb::PackageType::Addon.into(), ..package("0.1", b"addon") };
    packages(&[("", package("1.0", b"agent")), ("addon", addon)])
}

/// An offer as it was given, without the hashes that the server makes.
fn bare(mut offer: pb::PackagesAvailable) -> pb::PackagesAvailable {
    offer.all_packages_hash.clear();
    for package in offer.packages.values_mut() {
        package.hash.clear();
    }
    offer
}

fn statuses(hash: &[u8]) -> pb::PackageStatuses {
    pb::PackageStatuses { server_provided_all_packages_hash: hash.to_vec().into(), ..Default::default() }
}

on_both_transports! {
    /// R-PKG-01, R-PKG-02, R-PKG-05: each package has its name, its kind and one file; files may share their name.
    async fn packages_are_offered_by_name_with_one_file_each(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_packages()).await;
        let mut wanted = two();
        let second = pb::PackageAvailable { r#type: pb::PackageType::Addon.into(), ..package("7", b"other") };
        wanted.packages.insert("second".to_owned(), second);
        server.offer_packages(agent.persona.uid, &wanted);
        let offer = agent.next_packages().await.unwrap();
        assert_eq!(bare(offer.clone()), wanted);
        let urls: BTreeSet<_> =
            offer.packages.values().map(|package| package.file.clone().unwrap().download_url).collect();
        assert_eq!(urls.len(), 1, "the same file name in all of them, and still three packages");
        let hashes: BTreeSet<_> = offer.packages.values().map(|package| package.hash.clone()).collect();
        assert_eq!(hashes.len(), 3);
    }

    /// R-PKG-03: as an answer, and on the server's own initiative where the transport can.
    async fn packages_are_offered_with_an_answer_and_unasked(wire: Wire) {
        let server = TestServer::start().await;
        let persona = Persona::new(1).with_packages();
        server.offer_packages(persona.uid, &two());
        let (mut agent, answer) = server.connector(wire).start(persona).await.unwrap();
        let offer = answer.packages_available.expect("in the first answer");
        assert!(says_nothing(&agent.install(&offer).await.unwrap()));
        server.offer_packages(agent.persona.uid, &packages(&[("", package("1.1", b"newer"))]));
        let message = agent.next_message().await.unwrap();
        assert_eq!(message.packages_available.unwrap().packages[""].version, "1.1");
    }

    /// R-PKG-04: the file may be anywhere.
    async fn the_download_url_and_its_headers_arrive_as_they_were_given(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_packages()).await;
        let mut wanted = package("1", b"agent");
        let file = wanted.file.as_mut().unwrap();
        file.download_url = "http://another.example:8080/a/b?c=d".to_owned();
        file.headers = headers(&[("Authorization", "Bearer t"), ("X-Part", "1"), ("X-Part", "2")]);
        server.offer_packages(agent.persona.uid, &packages(&[("agent", wanted.clone())]));
        let offer = agent.next_packages().await.unwrap();
        assert_eq!(offer.packages["agent"].file, wanted.file);
    }

    /// R-PKG-06, R-CAP-17, A-21: whatever hash an agent reports.
    async fn no_packages_without_accepts_packages(wire: Wire) {
        let server = TestServer::start().await;
        let persona = Persona::new(1).and(AgentCapabilities::REPORTS_PACKAGE_STATUSES);
        let mut agent = server.agent(wire, persona).await;
        server.offer_packages(agent.persona.uid, &two());
        let differs = statuses(b"differs");
        let answer = agent.report(|message| message.package_statuses = Some(differs)).await.unwrap();
        assert!(says_nothing(&answer));
        requires_silence(&server, &mut agent).await;
    }

    /// R-PKG-24, R-PKG-25.
    async fn an_outdated_or_missing_aggregate_hash_is_answered_with_the_packages(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_packages()).await;
        let (hash, _) = server.offer_packages(agent.persona.uid, &two());
        agent.next_packages().await.unwrap();
        for reported in [&b"outdated"[..], b""] {
            let outdated = statuses(reported);
            let answer = agent.report(|message| message.package_statuses = Some(outdated)).await.unwrap();
            let offer = answer.packages_available.expect("more than a bare acknowledgement");
            assert_eq!(&offer.all_packages_hash[..], hash.as_bytes());
        }
        let right = statuses(hash.as_bytes());
        let answer = agent.report(|message| message.package_statuses = Some(right)).await.unwrap();
        assert!(says_nothing(&answer), "none for the right one");
    }

    /// R-PKG-25: an agent that comes with the right hash is left alone, one with another hash is not.
    async fn the_first_report_decides_whether_packages_are_offered(wire: Wire) {
        let server = TestServer::start().await;
        for (number, known) in [(1, true), (2, false)] {
            let mut persona = Persona::new(number).with_packages();
            let (hash, _) = server.offer_packages(persona.uid, &two());
            persona.package_statuses = Some(statuses(if known { hash.as_bytes() } else { b"another" }));
            let (_agent, answer) = server.connector(wire).start(persona).await.unwrap();
            assert_eq!(answer.packages_available.is_none(), known);
        }
    }

    /// R-PKG-25 in reason: what is being installed, or could not be, is not offered again and again.
    async fn packages_that_were_received_are_not_repeated(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_packages()).await;
        let uid = agent.persona.uid;
        server.offer_packages(uid, &two());
        let offer = agent.next_packages().await.unwrap();
        for status in [InstallPending, InstallFailed] {
            let error = if status == InstallFailed { "disk full" } else { "" };
            let report = agent.persona.packages(&offer, status, error);
            assert!(says_nothing(&agent.exchange(&report).await.unwrap()));
            requires_silence(&server, &mut agent).await;
        }
        let back = statuses(b"what was there before");
        let answer = agent.report(|message| message.package_statuses = Some(back)).await.unwrap();
        assert!(says_nothing(&answer), "no chase after an agent that rolled back by itself: {answer:?}");
        // Deciding on the same once more is a new order.
        server.offer_packages(uid, &two());
        assert_eq!(agent.next_packages().await.unwrap().all_packages_hash, offer.all_packages_hash);
    }

    /// R-PKG-45: what the agent has beside is its own affair.
    async fn local_packages_make_no_difference(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_packages()).await;
        let local = pb::PackageStatus {
            name: "local".to_owned(),
            agent_has_version: "9".to_owned(),
            agent_has_hash: "local".into(),
            status: Installed.into(),
            ..Default::default()
        };
        agent.persona.package_statuses = Some(pb::PackageStatuses {
            packages: [("local".to_owned(), local.clone())].into(),
            ..Default::default()
        });
        server.offer_packages(agent.persona.uid, &two());
        let offer = agent.next_packages().await.unwrap();
        assert!(says_nothing(&agent.install(&offer).await.unwrap()));
        let shown: pb::PackageStatuses =
            server.part(agent.persona.uid, opamp_proto::Part::PackageStatuses).unwrap();
        assert_eq!(shown.packages["local"], local, "shown, and no reason to offer anything");
        requires_silence(&server, &mut agent).await;
    }

    /// R-PKG-46: also if there is nothing in it.
    async fn every_offer_of_packages_has_an_aggregate_hash(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_packages()).await;
        let mut seen = BTreeSet::new();
        for wanted in [two(), packages(&[]), packages(&[("a", package("1", b"a"))])] {
            server.offer_packages(agent.persona.uid, &wanted);
            let offer = agent.next_packages().await.unwrap();
            assert_eq!(offer.packages.len(), wanted.packages.len());
            assert!(!offer.all_packages_hash.is_empty());
            assert!(seen.insert(offer.all_packages_hash.clone()));
            assert!(offer.packages.values().all(|package| !package.hash.is_empty()));
            assert!(says_nothing(&agent.install(&offer).await.unwrap()));
        }
    }

    /// R-PKG-53: newer, older, and newer again.
    async fn an_offer_may_be_an_upgrade_or_a_downgrade(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_packages()).await;
        for version in ["2.0", "1.0", "3.0"] {
            server.offer_packages(agent.persona.uid, &packages(&[("agent", package(version, b"x"))]));
            let offer = agent.next_packages().await.unwrap();
            assert_eq!(offer.packages["agent"].version, version);
            assert!(says_nothing(&agent.install(&offer).await.unwrap()));
        }
    }

    /// R-SEC-10, R-SEC-12, R-SEC-13: a signature made elsewhere goes out byte for byte; the server has no key for it.
    async fn a_detached_signature_arrives_as_it_was_made(wire: Wire) {
        let server = TestServer::start().await;
        let mut agent = server.agent(wire, Persona::new(1).with_packages()).await;
        let signature: Vec<u8> = (0..=255).collect();
        let mut signed = package("1", b"agent");
        signed.file.as_mut().unwrap().signature = signature.clone().into();
        server.offer_packages(agent.persona.uid, &packages(&[("agent", signed.clone()), ("plain", package("1", b"p"))]));
        let offer = agent.next_packages().await.unwrap();
        assert_eq!(offer.packages["agent"].file.as_ref().unwrap().signature, signature);
        assert!(offer.packages["plain"].file.as_ref().unwrap().signature.is_empty());
        let tampered = {
            let mut tampered = signed;
            tampered.file.as_mut().unwrap().signature = signature[1..].to_vec().into();
            PackagesOffer::new(packages(&[("agent", tampered)])).unwrap()
        };
        assert_ne!(offer.packages["agent"].hash, tampered.packages().packages["agent"].hash);
    }
}

/// R-PKG-39, R-PKG-40, R-PKG-51: every field and the content make the hash, and nothing else does, in any process.
#[test]
fn hashes_of_packages_come_from_all_there_is_to_them_and_stay_the_same() {
    let of = |available: &pb::PackageAvailable| {
        let offer = PackagesOffer::new(packages(&[("agent", available.clone())])).unwrap();
        let made = offer.packages();
        (made.packages["agent"].hash.clone(), made.all_packages_hash.clone())
    };
    let base = package("1", b"content");
    let mut different = vec![base.clone(), package("2", b"content"), package("1", b"content, corrected")];
    different.push(pb::PackageAvailable { r#type: pb::PackageType::Addon.into(), ..base.clone() });
    let mut signed = base.clone();
    signed.file.as_mut().unwrap().signature = "signature".into();
    different.push(signed);
    let hashes: Vec<_> = different.iter().map(of).collect();
    let (package_hashes, aggregates): (BTreeSet<_>, BTreeSet<_>) = hashes.iter().cloned().unzip();
    assert_eq!((package_hashes.len(), aggregates.len()), (different.len(), different.len()));
    assert_eq!(hashes, different.iter().map(of).collect::<Vec<_>>());

    // The name is in the aggregate, and so is every package.
    let named = |name: &str| PackagesOffer::new(packages(&[(name, base.clone())])).unwrap().hash().to_hex();
    assert_ne!(named("a"), named("b"));
    let more: BTreeSet<_> = (0..200)
        .map(|number| {
            PackagesOffer::new(packages(&[("a", package(&number.to_string(), b""))])).unwrap().hash().to_hex()
        })
        .collect();
    assert_eq!(more.len(), 200);
}

/// R-PKG-04, R-PKG-49: what nobody could download or check is no offer.
#[test]
fn a_package_without_a_usable_file_is_refused() {
    let broken: [fn(&mut pb::PackageAvailable); 4] = [
        |package| package.file = None,
        |package| package.file.as_mut().unwrap().download_url.clear(),
        |package| package.file.as_mut().unwrap().download_url = "file:///etc/passwd".to_owned(),
        |package| package.file.as_mut().unwrap().content_hash = "short".into(),
    ];
    for (number, breaks) in broken.into_iter().enumerate() {
        let mut available = package("1", b"agent");
        breaks(&mut available);
        let text = match PackagesOffer::new(packages(&[("agent", available)])) {
            Ok(_) => panic!("accepted: {number}"),
            Err(fault) => fault.to_string(),
        };
        assert!(text.contains("agent") && !text.contains("passwd"), "{text}");
    }
}

/// R-PKG-03 over WebSocket: an idle agent hears of packages at once, and once.
#[tokio::test]
async fn packages_are_pushed_over_websocket() {
    let server = TestServer::start().await;
    let mut agent = server.agent(Wire::WebSocket, Persona::new(1).with_packages()).await;
    server.offer_packages(agent.persona.uid, &two());
    assert!(agent.ws().receive().await.unwrap().packages_available.is_some());
    assert_eq!(agent.ws().fence().await.unwrap(), []);
}
