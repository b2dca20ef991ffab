//! Whatever level the log is at, no credential is in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;
use std::time::Duration;

use opamp_client::{Client, Description, Event, Proxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const SECRET: &str = "hunter2-very-secret";

struct Kept(Mutex<String>);

static KEPT: Kept = Kept(Mutex::new(String::new()));

impl log::Log for Kept {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = format!("{} {}: {}\n", record.level(), record.target(), record.args());
        self.0.lock().unwrap().push_str(&line);
    }

    fn flush(&self) {}
}

#[tokio::test]
async fn no_credential_is_logged_at_any_level_on_either_transport() {
    log::set_logger(&KEPT).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for scheme in ["ws", "http"] {
        let (told, mut events) = tokio::sync::mpsc::unbounded_channel();
        let _client = Client::builder(&format!("{scheme}://{address}"), Description::new("agent"))
            .proxy(Proxy::none())
            .bearer_token(SECRET)
            .header("x-tenant", SECRET)
            .on_event(move |event: Event, _| {
                let _ = told.send(event.to_string());
                std::future::ready(())
            })
            .start()
            .unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            stream.read_buf(&mut request).await.unwrap();
        }
        assert!(String::from_utf8_lossy(&request).contains(SECRET), "it was sent");
        let refusal = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(refusal).await.unwrap();
        let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap();
        assert!(event.contains("401"), "{event}");
        let log = std::mem::take(&mut *KEPT.0.lock().unwrap());
        assert!(log.contains("401") && !log.contains(SECRET), "{log}");
    }
}
