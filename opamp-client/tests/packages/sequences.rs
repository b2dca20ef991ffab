//! Any sequence of offers, good and bad, with restarts and newer offers in between, ends where the last one says, and what is
//! told on the way is true.

use std::collections::BTreeMap;
use std::sync::Arc;

use opamp_client::Rejected;
use opamp_client::packages::{FileSystem, Installer, PackageAt, PackageStatuses};
use opamp_proto::pb;
use proptest::prelude::*;

use crate::common::*;
use crate::disk::{Disk, Fault};
use crate::server::{Reply, Server};

const NAMES: [&str; 3] = ["", "a", "b"];

/// What is offered of one package.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Offered {
    Good(u8),
    /// The file is another one than offered.
    Corrupt(u8),
    /// Does not pass its health check.
    Sick(u8),
    /// Signed for another version.
    Unsigned(u8),
}

#[derive(Clone, Debug)]
enum Move {
    Offer([Option<Offered>; 3]),
    /// A newer offer comes at once.
    Superseded([Option<Offered>; 3]),
    Restart,
}

fn offered() -> impl Strategy<Value = Option<Offered>> {
    let version = 0..3_u8;
    prop_oneof![
        2 => Just(None),
        6 => version.clone().prop_map(|version| Some(Offered::Good(version))),
        1 => version.clone().prop_map(|version| Some(Offered::Corrupt(version))),
        1 => version.clone().prop_map(|version| Some(Offered::Sick(version))),
        1 => version.prop_map(|version| Some(Offered::Unsigned(version))),
    ]
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let all = || [offered(), offered(), offered()];
    let one = prop_oneof![
        5 => all().prop_map(Move::Offer),
        1 => all().prop_map(Move::Superseded),
        1 => Just(Move::Restart),
    ];
    proptest::collection::vec(one, 1..8)
}

impl Offered {
    fn version(self) -> String {
        match self {
            Self::Good(version) | Self::Corrupt(version) | Self::Unsigned(version) => version.to_string(),
            Self::Sick(version) => format!("sick-{version}"),
        }
    }

    fn package(self, server: &Server, name: &str) -> pb::PackageAvailable {
        let version = self.version();
        let content = format!("/{name}/{version}");
        let path =
            if matches!(self, Self::Corrupt(_)) { format!("/corrupt{content}") } else { content.clone() };
        let mut package = package(&server.url(&path), name, &version, content.as_bytes());
        if matches!(self, Self::Unsigned(_)) {
            let signature = Signer::new(1).sign(name, "another", content.as_bytes());
            package.file.as_mut().unwrap().signature = signature.into();
            package.hash = [package.hash, "unsigned".into()].concat().into();
        }
        package
    }
}

fn open(directory: &Directory) -> Installer {
    builder(directory)
        .file_system(Arc::new(Disk::new(Fault::None)) as Arc<dyn FileSystem>)
        .health_check(|package: PackageAt| async move {
            if package.version.version().starts_with("sick") { Err(Rejected::new("sick")) } else { Ok(()) }
        })
        .open()
        .unwrap()
}

/// What is installed, by what is told; it is what is on disk.
fn told(installer: &Installer, statuses: &PackageStatuses) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    for name in NAMES {
        let version = has(statuses, name);
        let content = version.as_ref().map(|version| format!("/{name}/{version}").into_bytes());
        assert_eq!(in_use(installer, name), content, "{name}: {statuses:?}");
        told.extend(version.map(|version| (name.to_owned(), version)));
    }
    told
}

async fn play(server: &Server, moves: Vec<Move>) {
    let directory = Directory::new();
    let mut installer = open(&directory);
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    for (number, one) in moves.into_iter().enumerate() {
        let hash = number.to_string();
        let wanted = |all: &[Option<Offered>; 3]| {
            let packages = NAMES.iter().zip(all);
            offer(
                &hash,
                packages.filter_map(|(name, offered)| Some((*name, (*offered)?.package(server, name)))),
            )
        };
        match one {
            Move::Restart => {
                let before = installer.statuses().await;
                drop(installer);
                installer = open(&directory);
                assert_eq!(installer.statuses().await, before, "a restart changes nothing");
            }
            Move::Superseded(all) => {
                let (progress, reports) = silent();
                reports.cancel();
                installer.apply(wanted(&all), progress).await.unwrap();
                assert_eq!(told(&installer, &installer.statuses().await), expected);
            }
            Move::Offer(all) => {
                let statuses = apply(&installer, wanted(&all)).await.unwrap();
                let mut good = true;
                for (name, offered) in NAMES.iter().zip(all) {
                    match offered {
                        None => {}
                        Some(Offered::Good(_)) => {
                            expected.insert((*name).to_owned(), offered.unwrap().version());
                        }
                        // A file that is there already is not fetched, whatever would come.
                        Some(Offered::Corrupt(_))
                            if expected.get(*name) == Some(&offered.unwrap().version()) => {}
                        Some(_) => {
                            good = false;
                            why(&statuses, name);
                        }
                    }
                }
                if good {
                    expected.retain(|name, _| {
                        all[NAMES.iter().position(|known| known == name).unwrap()].is_some()
                    });
                }
                assert_eq!(told(&installer, &statuses), expected, "{statuses:?}");
                assert_eq!(
                    installer.statuses().await,
                    statuses,
                    "what is told at rest is what was told last"
                );
                assert_eq!(directory.names("packages/staging"), [""; 0]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_offers_ends_where_the_last_one_says(moves in moves()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start(|request| match request.path.strip_prefix("/corrupt") {
                Some(_) => Reply::file(request, b"corrupt", "\"c\""),
                None => Reply::file(request, request.path.as_bytes(), "\"a\""),
            })
            .await;
            play(&server, moves).await;
        });
    }
}
