//! The download endpoint with a shelf of one file.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, pending};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use opamp_proto::{AgentId, Wall};
use opamp_server::PeerInfo;
use opamp_store::{PackageKey, PackageKind, PackageVersion, Revision};

use super::{
    DownloadSettings, Downloads,
    counts::DownloadCounts,
    download::Body,
    shelf::{Opened, Presented, Shelf, ShelfError},
};

const AGENT: AgentId = AgentId::from_bytes([1; 16]);
const CONTENT: [u8; 32] = [0xab; 32];
const TOKEN: &str = "token-of-the-offer";
const SIZE: usize = 2_500;
const CHUNK: usize = 1_000;

/// What the shelf does when it is asked.
#[derive(Clone, Copy)]
enum Mood {
    Fine,
    Failing,
    Silent,
}

/// One file, for one agent with one token.
struct OneFile {
    mood: Mood,
    sources: Mutex<Vec<Option<String>>>,
}

fn content() -> Bytes {
    (0..SIZE).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

impl Shelf for OneFile {
    fn open<'a>(&'a self, presented: Presented<'a>) -> BoxFuture<'a, Result<Opened, ShelfError>> {
        Box::pin(async move {
            match self.mood {
                Mood::Fine => {}
                Mood::Failing => return Err(ShelfError::Store("it is down".into())),
                Mood::Silent => pending().await,
            }
            self.sources.lock().unwrap().push(presented.source);
            let known = presented.agent == AGENT && presented.content == CONTENT && presented.token == TOKEN;
            let file = || PackageVersion {
                key: PackageKey::new("otelcol", "1.0.0"),
                kind: PackageKind::TopLevel,
                size_bytes: SIZE as u64,
                content_sha256: CONTENT,
                signature: None,
                chunk_bytes: CHUNK as u32,
                created_at: Wall(0),
                created_by: String::new(),
                revision: Revision(1),
            };
            Ok(known.then(|| Arc::new(file())))
        })
    }

    fn chunk(
        self: Arc<Self>,
        _: Arc<PackageVersion>,
        index: u64,
    ) -> BoxFuture<'static, Result<Bytes, ShelfError>> {
        let from = usize::try_from(index).unwrap() * CHUNK;
        Box::pin(async move { Ok(content().slice(from..SIZE.min(from + CHUNK))) })
    }
}

struct Rig {
    downloads: Downloads,
    shelf: Arc<OneFile>,
    counts: Arc<DownloadCounts>,
}

impl Rig {
    fn new(change: impl FnOnce(&mut DownloadSettings)) -> Self {
        Self::in_mood(Mood::Fine, change)
    }

    fn in_mood(mood: Mood, change: impl FnOnce(&mut DownloadSettings)) -> Self {
        let mut settings = DownloadSettings {
            downloads_max: 3,
            store_timeout: Duration::from_secs(30),
            retry_after: Duration::from_secs(15),
            plain_through_proxies_only: false,
            trusted_proxies: Vec::new(),
        };
        change(&mut settings);
        let shelf = Arc::new(OneFile { mood, sources: Mutex::default() });
        let counts = Arc::<DownloadCounts>::default();
        let downloads = Downloads::new(Arc::clone(&shelf) as _, Arc::clone(&counts), settings);
        Rig { downloads, shelf, counts }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
        self.ask_from("192.0.2.1:9", false, method, path, headers).await
    }

    async fn ask_from(
        &self,
        peer: &str,
        tls: bool,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        let remote_addr = peer.parse().unwrap();
        request.extensions_mut().insert(PeerInfo { remote_addr, tls, client_certificate: None });
        self.downloads.answer(request).await
    }

    /// A request with the token of the offer.
    async fn get(&self, headers: &[(&str, &str)]) -> Response<Body> {
        let bearer = format!("Bearer {TOKEN}");
        let mut headers = headers.to_vec();
        headers.push(("authorization", &bearer));
        self.ask("GET", &path(&AGENT, &CONTENT), &headers).await
    }
}

fn path(agent: &AgentId, content: &[u8; 32]) -> String {
    format!("/v1/packages/{agent}/{}", data_encoding::HEXLOWER.encode(content))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

async fn body(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

const ETAG: &str = "\"abababababababababababababababababababababababababababababababab\"";

/// R-PKG-52
#[tokio::test]
async fn a_file_comes_whole_or_in_part_with_its_hash_as_the_tag() {
    let rig = Rig::new(|_| {});
    let whole = rig.get(&[]).await;
    assert_eq!(whole.status(), StatusCode::OK);
    let headers = whole.headers();
    assert_eq!(header(headers, "content-length"), Some("2500"));
    assert_eq!(header(headers, "accept-ranges"), Some("bytes"));
    assert_eq!(header(headers, "etag"), Some(ETAG));
    assert_eq!(header(headers, "content-range"), None);
    assert_eq!(body(whole).await, content());

    for (range, content_range, expected) in [
        ("bytes=0-0", "bytes 0-0/2500", 0..1),
        ("bytes=990-1009", "bytes 990-1009/2500", 990..1010),
        ("bytes=2400-", "bytes 2400-2499/2500", 2400..2500),
        ("bytes=-1", "bytes 2499-2499/2500", 2499..2500),
    ] {
        let part = rig.get(&[("range", range), ("if-range", ETAG)]).await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT, "{range}");
        assert_eq!(header(part.headers(), "content-range"), Some(content_range));
        assert_eq!(header(part.headers(), "content-length"), Some(expected.len().to_string().as_str()));
        assert_eq!(body(part).await, content().slice(expected), "{range}");
    }
    let other = rig.get(&[("range", "bytes=5-"), ("if-range", "\"of another version\"")]).await;
    assert_eq!(other.status(), StatusCode::OK, "never a part of another file");
    assert_eq!(body(other).await, content());
}

/// R-PKG-52
#[tokio::test]
async fn a_range_beyond_the_end_is_416_with_the_size() {
    let rig = Rig::new(|_| {});
    for range in ["bytes=2500-", "bytes=9999999999999999999999-", "bytes=-0"] {
        let answer = rig.get(&[("range", range)]).await;
        assert_eq!(answer.status(), StatusCode::RANGE_NOT_SATISFIABLE, "{range}");
        assert_eq!(header(answer.headers(), "content-range"), Some("bytes */2500"));
        assert!(body(answer).await.is_empty());
    }
}

#[tokio::test]
async fn head_tells_of_the_whole_file_and_takes_no_place() {
    let rig = Rig::new(|settings| settings.downloads_max = 1);
    let _running = rig.get(&[]).await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("range", "bytes=0-0")];
    let head = rig.ask("HEAD", &path(&AGENT, &CONTENT), &headers).await;
    assert_eq!(head.status(), StatusCode::OK);
    assert_eq!(header(head.headers(), "content-length"), Some("2500"));
    assert_eq!(header(head.headers(), "etag"), Some(ETAG));
    assert!(body(head).await.is_empty());
}

#[tokio::test]
async fn whatever_a_token_does_not_open_is_answered_alike() {
    let rig = Rig::new(|_| {});
    let bearer = format!("Bearer {TOKEN}");
    let stranger = AgentId::from_bytes([2; 16]);
    let good = path(&AGENT, &CONTENT);
    let mut texts = Vec::new();
    for (what, path, token) in [
        ("another agent", path(&stranger, &CONTENT), bearer.as_str()),
        ("another file", path(&AGENT, &[0xac; 32]), bearer.as_str()),
        ("another token", good.clone(), "Bearer x"),
        ("no agent id", "/v1/packages/nobody/ab".into(), bearer.as_str()),
        ("no hash", format!("/v1/packages/{AGENT}/ab"), bearer.as_str()),
        ("upper case", good.to_uppercase().replace("/V1/PACKAGES", "/v1/packages"), bearer.as_str()),
        ("more behind it", format!("{good}/x"), bearer.as_str()),
        ("a way out", format!("/v1/packages/{AGENT}/../{AGENT}"), bearer.as_str()),
        ("nothing", "/v1/packages/".into(), bearer.as_str()),
    ] {
        let answer = rig.ask("GET", &path, &[("authorization", token)]).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{what}");
        texts.push(body(answer).await);
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    let refused = rig.counts.snapshot();
    assert_eq!((refused.refused, refused.started), (9, 0));
}

#[tokio::test]
async fn without_a_token_it_is_401_and_the_shelf_is_not_asked() {
    let rig = Rig::new(|_| {});
    for headers in [
        &[][..],
        &[("authorization", "Basic eDp5")],
        &[("authorization", TOKEN)],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer token-of-the-offer"), ("authorization", "Bearer x")],
    ] {
        let answer = rig.ask("GET", &path(&AGENT, &CONTENT), headers).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{headers:?}");
        assert_eq!(header(answer.headers(), "www-authenticate"), Some("Bearer"));
    }
    assert!(rig.shelf.sources.lock().unwrap().is_empty());
}

#[tokio::test]
async fn nothing_is_changed_here() {
    let rig = Rig::new(|_| {});
    let bearer = format!("Bearer {TOKEN}");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = rig.ask(method, &path(&AGENT, &CONTENT), &[("authorization", &bearer)]).await;
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(header(answer.headers(), "allow"), Some("GET, HEAD"));
    }
}

#[tokio::test]
async fn downloads_beyond_the_bound_are_told_to_come_later() {
    let rig = Rig::new(|settings| settings.downloads_max = 2);
    let (first, _second) = (rig.get(&[]).await, rig.get(&[]).await);
    let third = rig.get(&[]).await;
    assert_eq!(third.status(), StatusCode::SERVICE_UNAVAILABLE);
    let wait: u64 = header(third.headers(), "retry-after").unwrap().parse().unwrap();
    assert!((15..=30).contains(&wait), "{wait}");
    drop(first);
    assert_eq!(rig.get(&[]).await.status(), StatusCode::OK, "a place was given back");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_or_is_silent_is_503() {
    for mood in [Mood::Failing, Mood::Silent] {
        let rig = Rig::in_mood(mood, |_| {});
        let answer = rig.get(&[]).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(header(answer.headers(), "retry-after").is_some());
        let text = body(answer).await;
        assert!(!String::from_utf8_lossy(&text).contains("it is down"), "what is inside stays inside");
    }
}

#[tokio::test]
async fn where_only_proxies_may_come_in_plain_nobody_else_downloads() {
    let rig = Rig::new(|settings| {
        settings.plain_through_proxies_only = true;
        settings.trusted_proxies = vec!["10.0.0.7".parse().unwrap()];
    });
    let bearer = format!("Bearer {TOKEN}");
    let path = path(&AGENT, &CONTENT);
    let headers = [("authorization", bearer.as_str()), ("x-forwarded-for", "192.0.2.44")];
    for (peer, tls, status) in [
        ("192.0.2.1:9", false, 403),
        ("192.0.2.1:9", true, 200),
        ("10.0.0.7:9", false, 200),
        ("127.0.0.1:9", false, 200),
    ] {
        let answer = rig.ask_from(peer, tls, "GET", &path, &headers).await;
        assert_eq!(answer.status().as_u16(), status, "{peer}");
    }
    let sources: Vec<_> = rig.shelf.sources.lock().unwrap().iter().flatten().cloned().collect();
    assert_eq!(sources, ["192.0.2.1:9", "192.0.2.44", "127.0.0.1:9"], "the address behind a proxy");
}
