//! A download server that does whatever a test wants.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// All of it, with its length.
    Whole(Vec<u8>),
    /// The start, under the length of all of it; then the connection ends.
    Cut(Vec<u8>, usize),
    /// The same, and then silence.
    Stalled(Vec<u8>, usize),
    /// With another length than it has.
    Lying(Vec<u8>, usize),
    /// Without end.
    Endless,
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

pub(crate) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    requests: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, script).await
    }

    pub(crate) async fn start_tls(
        config: rustls::ServerConfig,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(Arc::new(config)), script).await
    }

    async fn listen(
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, script) = (Arc::clone(&requests), Arc::new(script) as Arc<Script>);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, script, tls) = (Arc::clone(&kept), Arc::clone(&script), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &kept, &*script).await,
                        Some(config) => {
                            let acceptor = tokio_rustls::TlsAcceptor::from(config);
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, &kept, &*script).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, scheme, requests, task }
    }

    /// An address of this server. Certificates of the tests are for `localhost`.
    pub(crate) fn url(&self, path: &str) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}{path}", self.scheme, self.address.port())
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.path).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where the range that is asked for begins.
    pub(crate) fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

impl Reply {
    pub(crate) fn new(status: u16, body: Body) -> Self {
        Self { status, headers: Vec::new(), body }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::new(status, Body::Whole(Vec::new()))
    }

    pub(crate) fn redirect(location: &str) -> Self {
        Self::status(302).header("location", location)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The file as a good server answers for it: whole or from the byte asked for, if the validator fits.
    pub(crate) fn file(request: &Request, content: &[u8], etag: &str) -> Self {
        Self::ranged(request, content, etag, Body::Whole)
    }

    /// The same, with what is sent of it in the hand of the test.
    pub(crate) fn ranged(
        request: &Request,
        content: &[u8],
        etag: &str,
        body: impl FnOnce(Vec<u8>) -> Body,
    ) -> Self {
        let fits = request.header("if-range").is_none_or(|wanted| wanted == etag);
        match request.range_start().filter(|_| fits) {
            Some(start) if start >= content.len() => {
                Self::status(416).header("content-range", &format!("bytes */{}", content.len()))
            }
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
                let reply = Self::new(206, body(content[start..].to_vec()));
                reply.header("content-range", &range).header("etag", etag)
            }
            None => Self::new(200, body(content.to_vec())).header("etag", etag),
        }
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, kept: &Mutex<Vec<Request>>, script: &Script) {
    let Some(request) = read(&mut stream).await else { return };
    kept.lock().unwrap().push(request.clone());
    let reply = script(&request);
    let mut head = format!("HTTP/1.1 {} Test\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = match &reply.body {
        Body::Whole(body) => Some(body.len()),
        Body::Cut(_, length) | Body::Stalled(_, length) | Body::Lying(_, length) => Some(*length),
        Body::Endless => None,
    };
    match length {
        Some(length) => head.push_str(&format!("content-length: {length}\r\n\r\n")),
        None => head.push_str("transfer-encoding: chunked\r\n\r\n"),
    }
    // The other side may have gone at any moment, which is its own affair.
    let _ = stream.write_all(head.as_bytes()).await;
    match reply.body {
        Body::Whole(body) | Body::Cut(body, _) | Body::Lying(body, _) => {
            let _ = stream.write_all(&body).await;
            let _ = stream.shutdown().await;
        }
        Body::Stalled(body, _) => {
            let _ = stream.write_all(&body).await;
            let _ = stream.flush().await;
            // Until the other side has had enough.
            let _ = stream.read(&mut [0; 1]).await;
        }
        Body::Endless => {
            let chunk = [b"4000\r\n".as_slice(), &[7; 0x4000], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
        }
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Some(Request { method, path, headers })
}
