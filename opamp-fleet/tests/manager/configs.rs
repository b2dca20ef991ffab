use std::sync::Arc;

use opamp_fleet::manager::ConfigOpError;
use opamp_fleet::{BodyDiff, ConfigError, FileChange, VersionState};
use opamp_proto::hash::config_hash;
use opamp_store::{ConfigState, MemoryStore, Revision};

use super::support::*;

#[tokio::test(start_paused = true)]
async fn a_version_is_drafted_edited_published_and_archived() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (manager, actor) = (&process.manager, operator());
    let draft = manager.create_config(&actor, "edge", files(&[("", "a: 1")]), "first").await.unwrap();
    assert_eq!((draft.version, draft.state, draft.comment.as_str()), (1, ConfigState::Draft, "first"));
    assert_eq!(draft.hash, config_hash(&files(&[("", "a: 1")])));
    let edited = files(&[("", "a: 2"), ("extra.yaml", "b: 1")]);
    let edit =
        async |expected| manager.update_draft(&actor, "edge", 1, edited.clone(), "second", expected).await;
    let stale = ConfigOpError::Conflict { config: "edge".to_owned(), version: 1 };
    assert_eq!(edit(Revision(draft.revision.0 + 9)).await, Err(stale.clone()));
    let draft = edit(draft.revision).await.unwrap();
    assert_eq!(draft.hash, config_hash(&edited));
    assert_eq!(manager.publish(&actor, "edge", 1, Some(Revision(0))).await, Err(stale));
    let published = manager.publish(&actor, "edge", 1, Some(draft.revision)).await.unwrap();
    assert_eq!(published.state, ConfigState::Published);
    assert_eq!(
        (published.published_by.as_deref(), published.published_at),
        (Some("olivia"), Some(process.now()))
    );

    let wrong = |state, action: &str| {
        Err(ConfigOpError::WrongState {
            config: "edge".to_owned(),
            version: 1,
            state,
            action: action.to_owned(),
        })
    };
    assert_eq!(edit(published.revision).await, wrong(VersionState::Published, "be edited"));
    assert_eq!(
        manager.publish(&actor, "edge", 1, None).await,
        wrong(VersionState::Published, "become published")
    );
    manager.archive(&actor, "edge", 1, None).await.unwrap();
    assert_eq!(
        manager.archive(&actor, "edge", 1, None).await,
        wrong(VersionState::Archived, "become archived")
    );
    let (version, read) = manager.config("edge", 1).await.unwrap();
    assert_eq!((version.state, read.map()), (ConfigState::Archived, &edited));

    let actions = ["config.create", "config.update", "config.publish", "config.archive"];
    for action in actions {
        assert_eq!(process.audit(action).await.len(), 1, "{action}");
    }
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn versions_are_numbered_listed_and_compared() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (manager, actor) = (&process.manager, operator());
    manager.create_config(&actor, "edge", files(&[("", "a: 1\n")]), "").await.unwrap();
    manager.create_config(&actor, "core", files(&[("", "c: 1\n")]), "").await.unwrap();
    let taken = manager.create_config(&actor, "edge", files(&[("", "x")]), "").await;
    assert_eq!(taken, Err(ConfigOpError::Exists("edge".to_owned())));
    let (a, b) = tokio::join!(
        manager.create_version(&actor, "edge", files(&[("", "a: 2\n")]), ""),
        manager.create_version(&actor, "edge", files(&[("", "a: 3\n")]), ""),
    );
    let mut numbers = [a.unwrap().version, b.unwrap().version];
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3], "two at once get two numbers");
    let listed = manager.versions("edge").await.unwrap();
    assert_eq!(listed.iter().map(|version| version.version).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(manager.configs(None, 10).await.unwrap().items, ["core", "edge"]);

    let changes = manager.diff("edge", 1, 2).await.unwrap();
    assert_eq!((changes.len(), changes[0].change), (1, FileChange::Modified));
    assert!(matches!(&changes[0].body, BodyDiff::Text { added: 1, removed: 1, .. }));
    assert!(manager.diff("edge", 2, 2).await.unwrap().is_empty());
    let missing = |version| ConfigOpError::NotFound { config: "none".to_owned(), version };
    assert_eq!(manager.diff("none", 1, 2).await, Err(missing(Some(1))));
    assert_eq!(manager.create_version(&actor, "none", files(&[("", "x")]), "").await, Err(missing(None)));
    process.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_offered_is_refused_when_it_is_made() {
    let process = Process::start(Arc::new(MemoryStore::new()), &clock()).await;
    let (manager, actor) = (&process.manager, operator());
    let refused = async |name: &str, content: &[(&str, &str)], comment: &str| match manager
        .create_config(&actor, name, files(content), comment)
        .await
    {
        Err(ConfigOpError::Invalid(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused("a/b", &[("", "x")], "").await, ConfigError::Name { .. }));
    assert_eq!(refused("edge", &[], "").await, ConfigError::Empty);
    let long = "x".repeat(5000);
    assert!(matches!(refused("edge", &[("", "x")], &long).await, ConfigError::Comment { .. }));
    assert!(manager.configs(None, 10).await.unwrap().items.is_empty());
    process.stop().await;
}
