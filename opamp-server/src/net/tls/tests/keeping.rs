//! What a connection keeps, for how long, and at whose cost.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Polls a write once.
async fn write_once<IO: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut TlsStream<IO>,
    data: &[u8],
) -> Poll<io::Result<usize>> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *stream).poll_write(cx, data))).await
}

/// Polls a read once; what it read.
pub(super) async fn read_once<IO: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut TlsStream<IO>,
    room: usize,
) -> Poll<io::Result<Vec<u8>>> {
    let mut buffer = vec![0; room];
    poll_fn(|cx| {
        let mut buffer = ReadBuf::new(&mut buffer);
        let read = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
        Poll::Ready(read.map_ok(|()| buffer.filled().to_vec()))
    })
    .await
}

#[test]
fn an_idle_connection_keeps_nothing() {
    run(async {
        for version in VERSIONS {
            let budget = Budget::new(PLENTY);
            let (mut client, mut server) = connected(version, &budget, 1 << 20, &[usize::MAX]).await;
            assert_eq!(budget.current(), 0, "after the handshake");
            client.write_all(&[7; 10_240]).await.unwrap();
            let mut message = vec![0; 10_240];
            server.read_exact(&mut message).await.unwrap();
            assert_eq!(budget.current(), 0, "after a message");
            server.write_all(&[8; 65_536]).await.unwrap();
            assert_eq!(budget.current(), 0, "after an answer");
            assert!(read_once(&mut server, 65_536).await.is_pending());
            assert_eq!((server.held(), budget.current()), (0, 0), "while it waits");
        }
    });
}

#[test]
fn the_beginning_of_a_record_is_drawn_until_its_end_arrives() {
    run(async {
        for version in VERSIONS {
            let budget = Budget::new(PLENTY);
            let (mut client, mut server) = connected(version, &budget, 1 << 20, &[1_000]).await;
            client.write_all(&[7; 8_000]).await.unwrap();
            let mut most = 0;
            let message = loop {
                match read_once(&mut server, 8_000).await {
                    Poll::Ready(message) => break message.unwrap(),
                    Poll::Pending => most = most.max(budget.current()),
                }
            };
            // A smooth pipe never lets the reader wait: it reads on until the record is whole.
            assert_eq!((message.len(), most, budget.current()), (8_000, 0, 0));
            assert!((7_000..20_000).contains(&budget.peak()), "{}", budget.peak());
        }
    });
}

#[test]
fn plaintext_that_finds_no_room_is_drawn_until_it_is_read() {
    run(async {
        for version in VERSIONS {
            let budget = Budget::new(PLENTY);
            let (mut client, mut server) = connected(version, &budget, 1 << 20, &[usize::MAX]).await;
            client.write_all(b"0123456789").await.unwrap();
            let mut part = [0; 3];
            server.read_exact(&mut part).await.unwrap();
            assert_eq!((&part, budget.current()), (b"012", 7));
            server.read_exact(&mut part).await.unwrap();
            assert_eq!((&part, budget.current()), (b"345", 7), "exact once, released as a whole");
            let mut rest = [0; 4];
            server.read_exact(&mut rest).await.unwrap();
            assert_eq!((&rest, budget.current()), (b"6789", 0));
        }
    });
}

#[test]
fn for_a_peer_that_takes_nothing_one_record_is_kept_and_no_more() {
    run(async {
        for version in VERSIONS {
            let budget = Budget::new(PLENTY);
            let (mut client, mut server) = connected(version, &budget, 1_000, &[usize::MAX]).await;
            let data = vec![9; 100_000];
            let Poll::Ready(Ok(taken)) = write_once(&mut server, &data).await else {
                panic!("nothing taken")
            };
            assert_eq!(taken, 16_384);
            assert!((15_000..17_000).contains(&budget.current()), "{}", budget.current());
            assert!(write_once(&mut server, &data).await.is_pending());
            let held = budget.current();
            assert!(write_once(&mut server, &data).await.is_pending());
            assert_eq!(budget.current(), held);

            let mut got = vec![0; taken];
            let (read, flushed) = tokio::join!(client.read_exact(&mut got), server.flush());
            read.unwrap();
            flushed.unwrap();
            assert!(got.iter().all(|byte| *byte == 9));
            assert_eq!(budget.current(), 0);
        }
    });
}

#[test]
fn without_budget_nothing_incomplete_is_kept_and_the_peer_can_still_be_told() {
    run(async {
        for version in VERSIONS {
            let budget = Budget::new(PLENTY);
            let (mut client, mut server) = connected(version, &budget, 1 << 20, &[1_000]).await;
            let all = budget.try_charge(PLENTY - 500).unwrap();
            client.write_all(&[7; 8_000]).await.unwrap();
            let error = server.read(&mut [0; 8_000]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            assert_eq!((server.held(), budget.current()), (0, all.bytes()));
            assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::OutOfMemory);

            server.write_all(b"come back later").await.unwrap();
            let mut told = String::new();
            let read = async {
                client.read_to_string(&mut told).await.unwrap();
                drop(client);
            };
            let (shut, ()) = tokio::join!(server.shutdown(), read);
            shut.unwrap();
            assert_eq!(told, "come back later");
        }
    });
}

#[test]
fn what_there_was_no_room_for_is_taken_from_the_network_until_the_peer_closes_too() {
    run(async {
        for version in VERSIONS {
            let budget = Budget::new(PLENTY);
            let (mut client, mut server) = connected(version, &budget, 1_000, &[usize::MAX]).await;
            let all = budget.try_charge(PLENTY - 500).unwrap();
            let (to_client, from_client) = tokio::sync::oneshot::channel();
            let peer = async {
                client.write_all(&[7; 100_000]).await.unwrap();
                client.flush().await.unwrap();
                let mut told = String::new();
                client.read_to_string(&mut told).await.unwrap();
                to_client.send(()).unwrap();
                client.shutdown().await.unwrap();
                told
            };
            let server = async {
                let error = server.read(&mut [0; 8_000]).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
                server.write_all(b"come back later").await.unwrap();
                server.shutdown().await.unwrap();
                assert_eq!((server.held(), budget.current()), (0, all.bytes()));
                from_client.await.expect("not before the peer has read it");
            };
            let (told, ()) = tokio::join!(peer, server);
            assert_eq!(told, "come back later");
        }
    });
}

#[test]
fn without_budget_for_plaintext_a_small_reader_fails() {
    run(async {
        let budget = Budget::new(PLENTY);
        let (mut client, mut server) = connected(&TLS13, &budget, 1 << 20, &[usize::MAX]).await;
        let _all = budget.try_charge(PLENTY - 500).unwrap();
        client.write_all(&[7; 600]).await.unwrap();
        server.read_exact(&mut [0; 200]).await.unwrap();
        server.read_exact(&mut [0; 400]).await.unwrap();
        client.write_all(&[7; 800]).await.unwrap();
        let first = server.read(&mut [0; 200]).await;
        let error = if first.is_ok() { server.read(&mut [0; 200]).await } else { first }.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
    });
}

#[test]
fn without_budget_a_slow_peer_loses_its_connection() {
    run(async {
        for version in VERSIONS {
            let budget = Budget::new(PLENTY);
            let (_client, mut server) = connected(version, &budget, 1_000, &[usize::MAX]).await;
            let all = budget.try_charge(PLENTY - 500).unwrap();
            let error = server.write_all(&[9; 10_000]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
            assert_eq!((server.held(), budget.current()), (0, all.bytes()));
            // A part is missing: nothing that follows may go out.
            assert!(server.write_all(b"more").await.is_err());
        }
    });
}

#[test]
fn a_handshake_without_budget_is_refused() {
    run(async {
        let setup = Setup::new();
        let budget = Budget::new(100);
        let (client, server) =
            handshake(setup.server(), setup.client(&TLS13, None), &budget, 1 << 20, &[150]).await;
        assert_eq!(server.unwrap_err().error.kind(), io::ErrorKind::OutOfMemory);
        assert!(client.is_err());
        assert_eq!(budget.current(), 0);
    });
}
