//! Peers that hold the keys and seal what no peer should send.

use proptest::prelude::*;
use rustls::ConnectionTrafficSecrets;
use rustls::crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage};
use rustls::{ContentType, ProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::keeping::read_once;
use super::*;

type Record<'a> = (ContentType, &'a [u8]);

const KEY_UPDATE: [u8; 5] = [24, 0, 0, 1, 0];

/// A client of TLS 1.3 that seals any record.
struct Sealer {
    io: DuplexStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Sealer {
    async fn connect(budget: &Budget) -> (Self, TlsStream<Choppy<DuplexStream>>) {
        let setup = Setup::new();
        let mut client = (*setup.client(&TLS13, None)).clone();
        client.enable_secret_extraction = true;
        let (client, server) =
            handshake(setup.server(), Arc::new(client), budget, 1 << 20, &[usize::MAX]).await;
        let (io, connection) = client.unwrap().into_inner();
        let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.tls13()).unwrap();
        let secrets = connection.dangerous_extract_secrets().unwrap();
        let (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
            panic!("another cipher suite than the first of the list")
        };
        let encrypter = suite.aead_alg.encrypter(key, iv);
        (Self { io, encrypter, sequence }, server.unwrap())
    }

    async fn send(&mut self, typ: ContentType, payload: &[u8]) {
        let payload = OutboundChunks::Single(payload);
        let message = OutboundPlainMessage { typ, version: ProtocolVersion::TLSv1_2, payload };
        let record = self.encrypter.encrypt(message, self.sequence).unwrap().encode();
        self.sequence += 1;
        self.io.write_all(&record).await.unwrap();
    }
}

/// What reading comes to; nothing that was said before is taken for an end.
async fn read_error(server: &mut TlsStream<Choppy<DuplexStream>>) -> String {
    match read_once(server, 100).await {
        Poll::Ready(Err(error)) => error.to_string(),
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn half_a_handshake_message_is_kept_and_others_may_speak_meanwhile() {
    run(async {
        let budget = Budget::new(PLENTY);
        let (mut client, mut server) = Sealer::connect(&budget).await;
        client.send(ContentType::Handshake, &KEY_UPDATE[..3]).await;
        assert!(read_once(&mut server, 100).await.is_pending());
        assert!(budget.current() > 0);
        server.write_all(&[7; 50_000]).await.unwrap();
        client.send(ContentType::Handshake, &KEY_UPDATE[3..]).await;
        assert!(read_once(&mut server, 100).await.is_pending());
        assert_eq!(budget.current(), 0);
        client.send(ContentType::ApplicationData, b"with the old key").await;
        assert!(read_error(&mut server).await.contains("decrypt"), "the key was changed");
    });
}

#[test]
fn without_budget_for_half_a_handshake_message_nothing_more_is_said() {
    run(async {
        let budget = Budget::new(PLENTY);
        let (mut client, mut server) = Sealer::connect(&budget).await;
        let _all = budget.try_charge(PLENTY).unwrap();
        client.send(ContentType::Handshake, &KEY_UPDATE[..3]).await;
        assert!(read_error(&mut server).await.contains("buffered_bytes_max"));
        assert_eq!(server.held(), 0);
        assert!(server.write_all(b"x").await.is_err(), "it is not known how far the other side has come");
        drop(client);
        server.shutdown().await.unwrap();
    });
}

#[test]
fn what_is_forbidden_after_the_handshake_is_answered_by_an_alert() {
    run(async {
        let app = (ContentType::ApplicationData, &b"x"[..]);
        let half = (ContentType::Handshake, &KEY_UPDATE[..3]);
        let many = KEY_UPDATE.repeat(40);
        let hello = (ContentType::Handshake, &[1, 0, 0, 2, 3, 3][..]);
        let endless = (ContentType::Handshake, &[24, 1, 0, 0][..]);
        let cases: [(&[Record<'_>], &str, bool); 7] = [
            (&[half, app], "MessageInterleavedWithHandshakeMessage", false),
            (&[(ContentType::Handshake, &many)], "KeyEpochWithPendingFragment", true),
            (&[hello], "corrupt message", true),
            (&[endless, half], "HandshakePayloadTooLarge", false),
            (&[(ContentType::ChangeCipherSpec, &[1])], "ChangeCipherSpec", true),
            (&[(ContentType::Alert, &[1, 90, 0])], "", true),
            (&[(ContentType::Alert, &[2, 80])], "InternalError", false),
        ];
        for (records, error, alert) in cases {
            let budget = Budget::new(PLENTY);
            let (mut client, mut server) = Sealer::connect(&budget).await;
            for (typ, payload) in records {
                client.send(*typ, payload).await;
            }
            let told = read_error(&mut server).await;
            assert!(told.contains(error), "{told}, not {error}");
            assert!(server.write_all(b"x").await.is_err());
            let mut answer = Vec::new();
            let read = async {
                client.io.read_to_end(&mut answer).await.unwrap();
                drop(client);
            };
            let (shut, ()) = tokio::join!(server.shutdown(), read);
            shut.unwrap();
            assert_eq!(budget.current(), 0);
            let sealed = answer.len() >= 24 && answer[answer.len() - 24..][..5] == [23, 3, 3, 0, 19];
            assert_eq!(sealed, alert, "{error}: {answer:?}");
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn any_records_of_who_holds_the_keys_do_no_harm(
        records in prop::collection::vec((
            prop::sample::select(vec![
                ContentType::Handshake, ContentType::Handshake, ContentType::ApplicationData, ContentType::Alert,
                ContentType::ChangeCipherSpec, ContentType::Heartbeat, ContentType::Unknown(99),
            ]),
            prop_oneof![
                Just(KEY_UPDATE.to_vec()),
                Just(KEY_UPDATE[..3].to_vec()),
                Just(KEY_UPDATE[3..].to_vec()),
                Just([24, 0, 0, 1, 1].to_vec()),
                Just([KEY_UPDATE, KEY_UPDATE].concat()),
                Just(vec![1, 0]),
                Just(vec![2, 40]),
                Just(vec![]),
                prop::collection::vec(0u8..30, 0..40),
                prop::collection::vec(any::<u8>(), 0..9_000),
            ],
        ), 1..8),
        room in prop_oneof![1usize..20, Just(70_000)],
        raw in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        run(async {
            let budget = Budget::new(PLENTY);
            let (mut client, mut server) = Sealer::connect(&budget).await;
            for (typ, payload) in &records {
                client.send(*typ, payload).await;
                let _ = read_once(&mut server, room).await;
                let _ = server.write_all(b"meanwhile").await;
            }
            client.io.write_all(&raw).await.unwrap();
            client.io.shutdown().await.unwrap();
            let _ = server.read_to_end(&mut Vec::new()).await;
            let _ = server.write_all(b"meanwhile").await;
            let _ = server.shutdown().await;
            assert!(budget.current() < 9_000);
            drop(server);
            assert_eq!(budget.current(), 0);
        });
    }
}
