//! What goes in comes out, however it is cut.

use std::io::IoSlice;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};

use super::*;

/// Bytes that show when one is lost, doubled or out of place.
fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Sends messages each way at the same time, reads them in pieces of `piece` bytes, and expects them whole.
async fn exchange(
    (client, server): (Client<DuplexStream>, TlsStream<Choppy<DuplexStream>>),
    messages: &[usize],
    piece: usize,
) {
    let total: usize = messages.iter().sum();
    let (up, down) = (pattern(total, 1), pattern(total, 2));
    async fn send(mut to: impl AsyncWrite + Unpin, mut data: &[u8], messages: &[usize]) {
        for length in messages {
            let (message, rest) = data.split_at(*length);
            to.write_all(message).await.unwrap();
            to.flush().await.unwrap();
            data = rest;
        }
    }
    async fn receive(mut from: impl AsyncRead + Unpin, data: &[u8], piece: usize) {
        let mut got = Vec::new();
        let mut buffer = vec![0; piece];
        while got.len() < data.len() {
            let count = from.read(&mut buffer).await.unwrap();
            assert!(count > 0, "ended after {} of {}", got.len(), data.len());
            got.extend_from_slice(&buffer[..count]);
        }
        assert!(got == data, "changed on the way");
    }
    let (client_from, client_to) = split(client);
    let (server_from, server_to) = split(server);
    tokio::join!(
        send(client_to, &up, messages),
        send(server_to, &down, messages),
        receive(client_from, &down, piece),
        receive(server_from, &up, piece),
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]
    #[test]
    fn random_messages_arrive_unchanged_through_random_splits(
        version in prop::sample::select(&VERSIONS[..]),
        messages in prop::collection::vec(prop_oneof![1usize..200, 16_000usize..17_000, 30_000usize..70_000], 1..4),
        sizes in prop::collection::vec(prop_oneof![Just(0), 1usize..40, 1_000usize..40_000], 0..6),
        pipe in prop_oneof![1_000usize..2_000, 4_000usize..100_000],
        piece in prop_oneof![7usize..100, 4_000usize..100_000],
    ) {
        let mut sizes = sizes;
        sizes.push(4_000);
        run(async {
            let budget = Budget::new(PLENTY);
            let ends = connected(version, &budget, pipe, &sizes).await;
            exchange(ends, &messages, piece).await;
            assert_eq!(budget.current(), 0);
        });
    }
}

#[test]
fn one_byte_at_a_time_is_enough_for_handshake_and_data() {
    run(async {
        for version in VERSIONS {
            for sizes in [&[1][..], &[1, 0]] {
                let ends = connected(version, &Budget::new(PLENTY), 1 << 16, sizes).await;
                exchange(ends, &[1, 300, 20_000], 700).await;
            }
        }
    });
}

#[test]
fn megabytes_cross_each_other_through_a_narrow_pipe() {
    run(async {
        for version in VERSIONS {
            let ends = connected(version, &Budget::new(PLENTY), 3_000, &[usize::MAX]).await;
            exchange(ends, &[2_000_000, 1_500_000], 8_192).await;
        }
    });
}

#[test]
fn one_read_hands_out_every_record_that_has_arrived() {
    run(async {
        for version in VERSIONS {
            let (mut client, mut server) = smooth(version).await;
            for message in [&b"one "[..], b"two ", b"three"] {
                client.write_all(message).await.unwrap();
            }
            let mut buffer = vec![0; 64 << 10];
            let count = server.read(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..count], b"one two three");
        }
    });
}

#[test]
fn pieces_that_are_written_together_arrive_in_order_as_one_record() {
    run(async {
        for version in VERSIONS {
            let (mut client, mut server) = smooth(version).await;
            let pieces = [&b""[..], b"head ", b"", b"body", b" tail"].map(IoSlice::new);
            assert_eq!(server.write_vectored(&pieces).await.unwrap(), 14);
            let mut got = [0; 20];
            let count = client.read(&mut got).await.unwrap();
            assert_eq!(&got[..count], b"head body tail");

            let (head, body) = (pattern(100, 3), pattern(40_000, 4));
            let pieces = [IoSlice::new(&head), IoSlice::new(&body)];
            assert_eq!(server.write_vectored(&pieces).await.unwrap(), 16_384, "one record is gathered");
            let mut got = vec![0; 16_384];
            client.read_exact(&mut got).await.unwrap();
            assert!(got[..100] == head && got[100..] == body[..16_284]);

            let pieces = [IoSlice::new(&body), IoSlice::new(&head)];
            assert_eq!(server.write_vectored(&pieces).await.unwrap(), 40_000, "a long piece goes as it is");
            assert_eq!(server.write_vectored(&[]).await.unwrap(), 0);
            let mut got = vec![0; 40_000];
            client.read_exact(&mut got).await.unwrap();
            assert!(got == body);
        }
    });
}

#[test]
fn a_read_that_is_given_up_loses_nothing() {
    run(async {
        for version in VERSIONS {
            let (mut client, mut server) = connected(version, &Budget::new(PLENTY), 1 << 16, &[7, 0]).await;
            let data = pattern(5_000, 5);
            client.write_all(&data).await.unwrap();
            let mut got = Vec::new();
            while got.len() < data.len() {
                let mut buffer = [0; 600];
                tokio::select! {
                    biased;
                    count = server.read(&mut buffer) => got.extend_from_slice(&buffer[..count.unwrap()]),
                    () = tokio::task::yield_now() => {}
                }
            }
            assert!(got == data);
        }
    });
}

#[test]
fn a_read_without_room_returns_at_once() {
    run(async {
        let (_client, mut server) = smooth(&TLS13).await;
        assert_eq!(server.read(&mut []).await.unwrap(), 0);
    });
}

#[test]
fn records_are_as_small_as_the_configuration_says() {
    run(async {
        let setup = Setup::new();
        for version in VERSIONS {
            for bytes in [32, 90, 1_400] {
                let mut config = (*setup.server()).clone();
                config.max_fragment_size = Some(bytes);
                let client = setup.client(version, None);
                let budget = Budget::new(PLENTY);
                let (client, server) =
                    handshake(Arc::new(config), client, &budget, 1 << 16, &[9_000, 0]).await;
                exchange((client.unwrap(), server.unwrap()), &[100, 70_000], 8_000).await;
                assert_eq!(budget.current(), 0);
            }
        }
    });
}
