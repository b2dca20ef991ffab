//! What an agent shows of itself to the server with each request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use data_encoding::BASE64;
use futures::future::BoxFuture;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::failure::{Failure, FailureKind};

/// Headers that the transports set themselves.
const RESERVED: [HeaderName; 11] = [
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    HOST,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    UPGRADE,
];

/// Where bearer tokens come from that do not last: a file that is rotated, a workload identity, an OAuth server.
///
/// It is asked before each connection and, over HTTP, before each request, so it should remember what it got.
pub trait TokenSource: Send + Sync + 'static {
    /// The token to show now, without `Bearer`. `refused` says that the server has refused the last one, so that one
    /// from memory is no good.
    ///
    /// The error is told as a failure of this machine; it should say what to do, and nothing secret.
    fn token(&self, refused: bool) -> BoxFuture<'_, Result<String, String>>;
}

impl<F, R> TokenSource for F
where
    F: Fn(bool) -> R + Send + Sync + 'static,
    R: Future<Output = Result<String, String>> + Send + 'static,
{
    fn token(&self, refused: bool) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self(refused))
    }
}

/// Why something cannot be sent as a header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The name or value cannot stand in a header; the value is not repeated here.
    #[error("{0:?} or its value cannot be a header")]
    Malformed(String),
    /// The transport sets this header.
    #[error("the header {0} is set by the transport")]
    Reserved(String),
}

/// Everything that is shown to the server.
pub(crate) struct Credentials {
    headers: HeaderMap,
    tokens: Option<Arc<dyn TokenSource>>,
    refused: AtomicBool,
}

impl Credentials {
    pub(crate) fn new() -> Self {
        let mut headers = HeaderMap::new();
        let agent = HeaderValue::from_static(concat!("opamp-client/", env!("CARGO_PKG_VERSION")));
        headers.insert(USER_AGENT, agent);
        Self { headers, tokens: None, refused: AtomicBool::new(false) }
    }

    /// Adds a header; several of one name are sent in the order they came.
    pub(crate) fn add(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        let malformed = || HeaderError::Malformed(name.to_owned());
        let header: HeaderName = name.parse().map_err(|_| malformed())?;
        if RESERVED.contains(&header) || header == TRANSFER_ENCODING {
            return Err(HeaderError::Reserved(name.to_owned()));
        }
        let mut value = HeaderValue::from_str(value).map_err(|_| malformed())?;
        value.set_sensitive(true);
        if header == USER_AGENT {
            self.headers.insert(header, value);
        } else {
            self.headers.append(header, value);
        }
        Ok(())
    }

    pub(crate) fn add_basic(&mut self, user: &str, password: &str) -> Result<(), HeaderError> {
        let text = format!("{user}:{password}");
        self.add(AUTHORIZATION.as_str(), &format!("Basic {}", BASE64.encode(text.as_bytes())))
    }

    pub(crate) fn set_tokens(&mut self, tokens: Arc<dyn TokenSource>) {
        self.tokens = Some(tokens);
    }

    /// What may be shown to anybody.
    pub(crate) fn public(&self) -> HeaderMap {
        let agent = self.headers.get(USER_AGENT).cloned();
        agent.into_iter().map(|agent| (USER_AGENT, agent)).collect()
    }

    /// The server has refused what it was shown.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// What to show now.
    pub(crate) async fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = self.headers.clone();
        if let Some(tokens) = &self.tokens {
            let refused = self.refused.swap(false, Ordering::Relaxed);
            let local = |what: String| Failure::new(FailureKind::Local, what);
            let token = tokens.token(refused).await;
            let token = token.map_err(|why| local(format!("no token for the server: {why}")))?;
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
                .map_err(|_| local("the token for the server cannot be sent in a header".to_owned()))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(headers)
    }
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        let refused = AtomicBool::new(self.refused.load(Ordering::Relaxed));
        Self { headers: self.headers.clone(), tokens: self.tokens.clone(), refused }
    }
}

/// Names headers, never their values.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.headers.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_order_and_repetition_and_reserved_ones_are_refused() {
        let mut credentials = Credentials::new();
        credentials.add("X-A", "1").unwrap();
        credentials.add("x-a", "2").unwrap();
        let values: Vec<_> = credentials.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2"]);
        for reserved in ["Host", "content-type", "UPGRADE", "Transfer-Encoding", "sec-websocket-key"] {
            let error = credentials.add(reserved, "x").unwrap_err();
            assert!(matches!(error, HeaderError::Reserved(_)), "{reserved}");
        }
        let error = credentials.add("x-b", "se\ncret").unwrap_err();
        assert!(!error.to_string().contains("cret"), "{error}");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let mut credentials = Credentials::new();
        credentials.add_basic("user", "hunter2").unwrap();
        credentials.add("x-api-key", "abc123").unwrap();
        let shown = format!("{credentials:?} {:?}", credentials.headers);
        assert!(!shown.contains("abc123") && !shown.contains("Basic"), "{shown}");
        assert_eq!(credentials.headers[AUTHORIZATION], "Basic dXNlcjpodW50ZXIy");
    }

    #[tokio::test]
    async fn a_token_is_asked_for_anew_after_it_was_refused() {
        let mut credentials = Credentials::new();
        credentials.set_tokens(Arc::new(|refused| async move {
            Ok(if refused { "fresh\n".to_owned() } else { "old".to_owned() })
        }));
        assert_eq!(credentials.headers().await.unwrap()[AUTHORIZATION], "Bearer old");
        credentials.refuse();
        assert_eq!(credentials.headers().await.unwrap()[AUTHORIZATION], "Bearer fresh");
        assert_eq!(credentials.headers().await.unwrap()[AUTHORIZATION], "Bearer old", "once");
    }
}
