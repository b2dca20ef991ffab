//! [`ConfigStore`](crate::ConfigStore).

use super::Location;
use super::fixtures::*;
use crate::{CommitError, ConfigState, ConfigVersion, InvalidWrite};

/// `config_names`, clause 1.
pub async fn config_names_are_paged(location: &impl Location) {
    let store = location.open().await;
    assert!(store.config_names(None, 10).await.unwrap().items.is_empty());
    let mut names = ["edge", "Edge", "edge/eu", "edg", "ß", "zz", "a b", "10", "9"].map(String::from);
    commit(&*store, |batch| {
        batch.put_blob(bytes(1));
        for name in &names {
            (1..=3).for_each(|number| {
                batch.put_config_version(version(name, number, 1));
            });
        }
    })
    .await;
    names.sort();
    for limit in [1, 2, 8, 9, 10] {
        let mut read = Vec::new();
        let mut after = None;
        loop {
            let page = store.config_names(after, limit).await.unwrap();
            assert!(page.items.len() <= limit);
            read.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(read, names);
    }
}

/// `versions`, clause 1.
pub async fn versions_are_listed_in_order(location: &impl Location) {
    let store = location.open().await;
    let mut expected = Vec::new();
    for number in [2, 10, 1, 3] {
        let published = ConfigVersion {
            state: ConfigState::Published,
            published_at: Some(opamp_proto::Wall(1_700_000_000_000 + u64::from(number))),
            published_by: Some("otto".into()),
            ..version("edge", number, number.into())
        };
        let revision = commit(&*store, |batch| {
            batch.put_blob(bytes(number.into()));
            batch.put_config_version(published.clone()).put_config_version(version(
                "edge2",
                number,
                number.into(),
            ));
        })
        .await;
        expected.push(ConfigVersion { revision, ..published });
    }
    expected.sort_by_key(|version| version.version);
    assert_eq!(store.versions("edge").await.unwrap(), expected);
    assert_eq!(store.version("edge", 10).await.unwrap().as_ref(), expected.last());
    assert_eq!(store.version("edge", 4).await.unwrap(), None);
    assert_eq!(store.versions("edg").await.unwrap(), []);
}

/// `version`, clause 1.
pub async fn a_draft_can_be_replaced(location: &impl Location) {
    let store = location.open().await;
    for content in 1..4 {
        let revision = commit(&*store, |batch| {
            batch.put_blob(bytes(content));
            batch.put_config_version(version("edge", 1, content));
        })
        .await;
        let expected = ConfigVersion { revision, ..version("edge", 1, content) };
        assert_eq!(store.version("edge", 1).await.unwrap(), Some(expected));
    }
}

/// `version`, clause 2.
pub async fn a_published_version_is_immutable(location: &impl Location) {
    let store = location.open().await;
    let in_state = |state, content| ConfigVersion { state, ..version("edge", 1, content) };
    let (draft, published) = (in_state(ConfigState::Draft, 1), in_state(ConfigState::Published, 1));
    let archived = in_state(ConfigState::Archived, 1);
    let rehashed = |version: &ConfigVersion| ConfigVersion { hash: hash(2), ..version.clone() };
    let immutable = CommitError::Invalid(InvalidWrite::Immutable { config: "edge".into(), version: 1 });
    commit(&*store, |batch| {
        (1..=2).for_each(|content| {
            batch.put_blob(bytes(content));
        });
        batch.put_config_version(draft.clone());
    })
    .await;
    commit(&*store, |batch| {
        batch.put_config_version(published.clone());
    })
    .await;
    for change in
        [draft.clone(), in_state(ConfigState::Published, 2), rehashed(&published), rehashed(&archived)]
    {
        assert_eq!(
            refused(&*store, |batch| {
                batch.put_config_version(change);
            })
            .await,
            immutable
        );
    }
    let revision = commit(&*store, |batch| {
        batch.put_config_version(archived.clone());
    })
    .await;
    for change in [draft, published, in_state(ConfigState::Archived, 2), rehashed(&archived)] {
        assert_eq!(
            refused(&*store, |batch| {
                batch.put_config_version(change);
            })
            .await,
            immutable
        );
    }
    assert_eq!(store.version("edge", 1).await.unwrap(), Some(ConfigVersion { revision, ..archived }));
}
