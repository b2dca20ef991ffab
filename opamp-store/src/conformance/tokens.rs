//! [`CredentialStore`](crate::CredentialStore).

use opamp_proto::Wall;

use super::Location;
use super::fixtures::*;
use crate::{ApiToken, CommitError, InvalidWrite, Role, ServerSecret};

/// `token`, clause 1.
pub async fn a_token_reads_back(location: &impl Location) {
    let store = location.open().await;
    assert_eq!(store.token("a").await.unwrap(), None);
    for role in [Role::Viewer, Role::Operator, Role::Admin] {
        let token = ApiToken { role, expires_at: None, ..token("a", 1) };
        commit(&*store, |batch| {
            batch.put_token(token.clone());
        })
        .await;
        assert_eq!(store.token("a").await.unwrap(), Some(token));
    }
    let revoked = ApiToken { revoked_at: Some(Wall(5)), ..token("a", 1) };
    commit(&*store, |batch| {
        batch.put_token(revoked.clone());
    })
    .await;
    assert_eq!(store.token("a").await.unwrap().as_ref(), Some(&revoked));
    assert_eq!(store.token_by_secret_hash(&[1; 32]).await.unwrap(), Some(revoked));
}

/// `token_by_secret_hash`, clause 1.
pub async fn a_token_is_found_by_its_secret(location: &impl Location) {
    let store = location.open().await;
    commit(&*store, |batch| {
        batch.put_token(token("a", 1)).put_token(token("b", 2));
    })
    .await;
    assert_eq!(store.token_by_secret_hash(&[2; 32]).await.unwrap(), Some(token("b", 2)));
    assert_eq!(store.token_by_secret_hash(&[3; 32]).await.unwrap(), None);
    commit(&*store, |batch| {
        batch.put_token(token("a", 3));
    })
    .await;
    assert_eq!(store.token_by_secret_hash(&[1; 32]).await.unwrap(), None);
    assert_eq!(store.token_by_secret_hash(&[3; 32]).await.unwrap(), Some(token("a", 3)));
}

/// `token_by_secret_hash`, clause 2.
pub async fn a_secret_belongs_to_one_token(location: &impl Location) {
    let store = location.open().await;
    commit(&*store, |batch| {
        batch.put_token(token("a", 1)).put_token(token("b", 2));
    })
    .await;
    let taken = |id: &str| CommitError::Invalid(InvalidWrite::SecretTaken { id: id.into() });
    assert_eq!(
        refused(&*store, |batch| {
            batch.put_token(token("c", 1));
        })
        .await,
        taken("c")
    );
    let twins = |batch: &mut crate::WriteBatch| {
        batch.put_token(token("c", 3)).put_token(token("d", 3));
    };
    assert_eq!(refused(&*store, twins).await, taken("d"));
    assert_eq!(store.tokens().await.unwrap(), [token("a", 1), token("b", 2)]);
    // Exchanging two secrets leaves each with one token.
    commit(&*store, |batch| {
        batch.put_token(token("a", 2)).put_token(token("b", 1));
    })
    .await;
    assert_eq!(store.tokens().await.unwrap(), [token("a", 2), token("b", 1)]);
    assert_eq!(store.token_by_secret_hash(&[1; 32]).await.unwrap(), Some(token("b", 1)));
}

/// `tokens`, clause 1; and that there is an end to them.
pub async fn tokens_are_listed_in_order(location: &impl Location) {
    let store = location.open().await;
    assert_eq!(store.tokens().await.unwrap(), []);
    let numbered = |number: usize| {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&number.to_be_bytes());
        ApiToken { secret_sha256: secret, ..token(&format!("t{number:06}"), 0) }
    };
    let all: Vec<_> = (0..ApiToken::TOKENS_MAX).map(numbered).collect();
    for tokens in all.chunks(2_500).rev() {
        commit(&*store, |batch| {
            tokens.iter().for_each(|token| {
                batch.put_token(token.clone());
            })
        })
        .await;
    }
    assert_eq!(store.tokens().await.unwrap(), all);
    let error = refused(&*store, |batch| {
        batch.put_token(numbered(all.len()));
    })
    .await;
    assert!(matches!(error, CommitError::Invalid(InvalidWrite::TooLarge { .. })));
    commit(&*store, |batch| {
        batch.put_token(numbered(7));
    })
    .await;
}

/// `secret`, clause 1; and that there is an end to them.
pub async fn a_server_secret_reads_back(location: &impl Location) {
    let store = location.open().await;
    assert_eq!(store.secret("downloads").await.unwrap(), None);
    for bytes in [vec![0, 255], vec![7; ServerSecret::BYTES_MAX], vec![1]] {
        commit(&*store, |batch| {
            batch.put_secret("downloads".into(), ServerSecret::new(bytes.clone()));
        })
        .await;
        assert_eq!(store.secret("downloads").await.unwrap(), Some(ServerSecret::new(bytes)));
    }
    assert_eq!(store.secret("download").await.unwrap(), None);
    let long = "n".repeat(256);
    let wrong = [("", vec![1]), (&long, vec![1]), ("a", vec![]), ("a", vec![1; ServerSecret::BYTES_MAX + 1])];
    for (name, bytes) in wrong {
        let error = refused(&*store, |batch| {
            batch.put_secret(name.into(), ServerSecret::new(bytes));
        })
        .await;
        assert!(matches!(error, CommitError::Invalid(InvalidWrite::OutOfRange { .. })), "{error}");
    }
    let put = |batch: &mut crate::WriteBatch, number: usize| {
        batch.put_secret(number.to_string(), ServerSecret::new(vec![1]));
    };
    commit(&*store, |batch| (1..ServerSecret::SECRETS_MAX).for_each(|number| put(batch, number))).await;
    let error = refused(&*store, |batch| put(batch, 0)).await;
    assert!(matches!(error, CommitError::Invalid(InvalidWrite::TooLarge { .. })), "{error}");
    commit(&*store, |batch| put(batch, 1)).await;
}
