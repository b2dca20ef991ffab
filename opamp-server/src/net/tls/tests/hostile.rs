//! Peers that do what they should not.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Sends `bytes` to a server that waits for a handshake, and ends; what the server makes of it, and what it answers.
async fn accept(config: Arc<ServerConfig>, bytes: &[u8]) -> (io::Error, Vec<u8>) {
    let (near, mut far) = duplex(1 << 20);
    far.write_all(bytes).await.unwrap();
    far.shutdown().await.unwrap();
    let budget = Budget::new(PLENTY);
    let rejected = TlsStream::accept(near, config, &budget).await.unwrap_err();
    drop(rejected.io);
    let mut answer = Vec::new();
    far.read_to_end(&mut answer).await.unwrap();
    assert_eq!(budget.current(), 0);
    (rejected.error, answer)
}

#[test]
fn what_is_no_tls_is_answered_by_an_alert() {
    run(async {
        let config = Setup::new().server();
        let (error, answer) = accept(Arc::clone(&config), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.get_ref().unwrap().is::<rustls::Error>());
        assert_eq!(answer, [21, 3, 3, 0, 2, 2, 50], "fatal: decode_error");
        let (error, answer) = accept(config, b"").await;
        assert_eq!((error.kind(), answer.len()), (io::ErrorKind::UnexpectedEof, 0));
    });
}

#[test]
fn a_handshake_message_that_does_not_end_is_given_up() {
    run(async {
        let config = Setup::new().server();
        // A client hello of 60,000 bytes, in records that carry one byte each.
        let hello = [1, 0, 0xea, 0x60].into_iter().chain(std::iter::repeat(0));
        let bytes: Vec<u8> = hello.take(20_000).flat_map(|byte| [22, 3, 1, 0, 1, byte]).collect();
        let (error, _) = accept(config, &bytes).await;
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    });
}

#[test]
fn keys_may_be_changed_while_data_flows() {
    run(async {
        let (mut client, mut server) = connected(&TLS13, &Budget::new(PLENTY), 1 << 20, &[11, 0]).await;
        for round in 0..10u8 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.write_all(&[round; 100]).await.unwrap();
            let mut got = [0; 100];
            server.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [round; 100]);
            server.write_all(&got).await.unwrap();
            server.flush().await.unwrap();
            client.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [round; 100]);
        }
    });
}

#[test]
fn changing_keys_forever_ends_the_connection() {
    run(async {
        let (mut client, mut server) = smooth(&TLS13).await;
        for _ in 0..100 {
            client.get_mut().1.refresh_traffic_keys().unwrap();
            client.flush().await.unwrap();
        }
        let error = server.read(&mut [0; 10]).await.unwrap_err();
        assert!(error.to_string().contains("TooManyKeyUpdateRequests"), "{error}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_bytes_end_a_handshake_without_harm(
        typed in any::<bool>(),
        mut bytes in prop::collection::vec(any::<u8>(), 0..400),
        sizes in prop::collection::vec(1usize..50, 1..4),
    ) {
        if typed && bytes.len() > 5 {
            bytes[..3].copy_from_slice(&[22, 3, 1]);
            bytes[3] = 0;
        }
        run(async {
            let (near, mut far) = duplex(1 << 16);
            far.write_all(&bytes).await.unwrap();
            far.shutdown().await.unwrap();
            let budget = Budget::new(PLENTY);
            let config = Setup::new().server();
            let outcome = TlsStream::accept(Choppy::new(near, &sizes), config, &budget).await;
            assert!(outcome.is_err());
            drop(outcome);
            assert_eq!(budget.current(), 0);
        });
    }
}

/// A transport that changes one byte of what is read.
#[derive(Debug)]
struct Forging<IO> {
    io: IO,
    until: usize,
    change: u8,
}

impl<IO: AsyncRead + Unpin> AsyncRead for Forging<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let (until, change) = (self.until, self.change);
        let arrived = &mut buf.filled_mut()[before..];
        if let Some(byte) = arrived.get_mut(until) {
            *byte ^= change;
        }
        self.until = until.checked_sub(arrived.len()).unwrap_or(usize::MAX);
        read
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Forging<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn one_changed_byte_never_changes_what_is_read(
        version in prop::sample::select(&VERSIONS[..]),
        until in 0usize..2_500,
        change in 1u8..,
    ) {
        run(async {
            let setup = Setup::new();
            let identity = setup.authority.client("edge", &[]);
            let (near, far) = duplex(1 << 16);
            let client = async {
                let connector = TlsConnector::from(setup.client(version, Some(&identity)));
                let Ok(mut client) = connector.connect("localhost".try_into().unwrap(), far).await else { return };
                let _ = client.write_all(&[7; 700]).await;
                let _ = client.shutdown().await;
                let _ = client.read_to_end(&mut Vec::new()).await;
            };
            let budget = Budget::new(PLENTY);
            let server = async {
                let forging = Forging { io: near, until, change };
                let Ok(mut server) = TlsStream::accept(forging, setup.mutual(), &budget).await else { return };
                let mut got = Vec::new();
                let ended = server.read_to_end(&mut got).await;
                assert!(got.len() <= 700 && got.iter().all(|byte| *byte == 7));
                assert!(ended.is_err() || got.len() == 700);
                let _ = server.write_all(b"answer").await;
                let _ = server.shutdown().await;
            };
            // Where the length of a record is changed, both wait for the other.
            let both = async { tokio::join!(client, server) };
            let _ = tokio::time::timeout(Duration::from_secs(9), both).await;
            assert_eq!(budget.current(), 0);
        });
    }
}
