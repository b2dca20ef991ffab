//! How connections end.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[test]
fn a_peer_that_says_it_is_done_is_read_to_its_end_and_can_still_be_written_to() {
    run(async {
        for version in VERSIONS {
            let (mut client, mut server) = smooth(version).await;
            client.write_all(b"last words").await.unwrap();
            client.shutdown().await.unwrap();
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"last words");
            assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0, "and stays so");

            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"answer");
        }
    });
}

#[test]
fn what_comes_after_the_end_is_ignored() {
    run(async {
        for version in VERSIONS {
            let budget = Budget::new(PLENTY);
            let (mut client, mut server) = connected(version, &budget, 1 << 20, &[usize::MAX]).await;
            client.write_all(b"last words").await.unwrap();
            client.get_mut().1.send_close_notify();
            client.flush().await.unwrap();
            client.get_mut().0.write_all(&[0x55; 300]).await.unwrap();
            let mut got = Vec::new();
            server.read_to_end(&mut got).await.unwrap();
            assert_eq!((got.as_slice(), budget.current()), (&b"last words"[..], 0));
        }
    });
}

#[test]
fn the_end_of_the_server_is_told_to_the_peer_once() {
    run(async {
        for version in VERSIONS {
            let (mut client, mut server) = connected(version, &Budget::new(PLENTY), 1 << 20, &[3, 0]).await;
            server.write_all(b"last words").await.unwrap();
            server.shutdown().await.unwrap();
            server.shutdown().await.unwrap();
            let mut got = Vec::new();
            client.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"last words");
            let error = server.write_all(b"more").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    });
}

#[test]
fn an_end_that_nobody_announced_is_an_error_after_the_data_before_it() {
    run(async {
        for version in VERSIONS {
            for within_a_record in [false, true] {
                let (mut client, mut server) = smooth(version).await;
                client.write_all(b"cut off").await.unwrap();
                if within_a_record {
                    client.get_mut().0.write_all(&[23, 3, 3, 1, 0, 9, 9]).await.unwrap();
                }
                client.get_mut().0.shutdown().await.unwrap();
                let mut got = Vec::new();
                let error = server.read_to_end(&mut got).await.unwrap_err();
                assert_eq!((got.as_slice(), error.kind()), (&b"cut off"[..], io::ErrorKind::UnexpectedEof));
                assert!(server.read(&mut [0; 8]).await.is_err(), "and stays so");
            }
        }
    });
}

#[test]
fn a_forged_record_ends_the_connection_after_the_data_before_it_and_the_peer_is_told() {
    run(async {
        for version in VERSIONS {
            let (mut client, mut server) = smooth(version).await;
            client.write_all(b"good").await.unwrap();
            let mut forged = vec![23, 3, 3, 0, 100];
            forged.extend([0x55; 100]);
            client.get_mut().0.write_all(&forged).await.unwrap();
            let mut buffer = [0; 64];
            let count = server.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..count], b"good");
            for _ in 0..2 {
                let error = server.read(&mut buffer).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                assert!(error.get_ref().unwrap().is::<rustls::Error>(), "{error}");
            }
            assert!(server.write_all(b"answer").await.is_err(), "nothing goes out after the alert");
            let told = async {
                let told = client.read(&mut [0; 64]).await.unwrap_err();
                drop(client);
                told
            };
            let (shut, told) = tokio::join!(server.shutdown(), told);
            shut.unwrap();
            assert!(told.to_string().contains("BadRecordMac"), "{version:?}: {told}");
        }
    });
}

#[test]
fn an_alert_of_the_peer_is_the_error() {
    run(async {
        for version in VERSIONS {
            let (mut client, mut server) = smooth(version).await;
            // The server's answer is forged on the way, so the client gives up.
            server.write_all(b"hello").await.unwrap();
            Pin::new(&mut server.io_mut().io).write_all(&[23, 3, 3, 0, 1, 0]).await.unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap_err();
            let error = server.read(&mut [0; 5]).await.unwrap_err();
            assert!(error.to_string().contains("received fatal alert"), "{error}");
        }
    });
}

#[test]
fn a_transport_that_is_gone_fails_reads_and_writes() {
    run(async {
        for version in VERSIONS {
            let (client, mut server) = smooth(version).await;
            drop(client);
            assert_eq!(server.read(&mut [0; 5]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(server.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    });
}
