//! Close frames and the closing handshake: RFC 6455 §5.5.1, §7.

use opamp_testkit::raw::{Frame, Opcode};

use super::*;

fn close_with(payload: &[u8]) -> Frame {
    Frame::new(Opcode::CLOSE, payload.to_vec())
}

on_both! {
    /// §5.5.1: the status code of the peer's Close frame is echoed.
    async fn a_close_frame_is_answered_with_its_code<On>() {
        for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999] {
            let (told, answered) = told_of_frames::<On>(&[Frame::close(code, "")]).await;
            assert_eq!((told, answered), (vec![Told::Closed], vec![Answered::close(code)]), "{code}");
        }
    }

    /// §5.5.1, §7.1.5.
    async fn a_close_frame_without_code_is_answered_without<On>() {
        let (told, answered) = told_of_frames::<On>(&[close_with(&[])]).await;
        let empty = Answered { fin: true, opcode: Opcode::CLOSE, payload: Vec::new() };
        assert_eq!((told, answered), (vec![Told::Closed], vec![empty]));
    }

    /// §5.5.1: a payload has a code of two bytes at least.
    async fn a_close_frame_of_one_byte_is_a_violation<On>() {
        let (told, answered) = told_of_frames::<On>(&[close_with(&[3])]).await;
        assert_eq!((told, answered), (vec![Told::Failed(StreamError::Protocol)], vec![Answered::close(1002)]));
    }

    /// §7.4.1, §7.4.2: these are not for the wire, or nobody's yet.
    async fn a_code_that_may_not_be_sent_is_answered_with_1002<On>() {
        for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            let (told, answered) = told_of_frames::<On>(&[Frame::close(code, "")]).await;
            assert!(matches!(told[..], [Told::Closed | Told::Failed(StreamError::Protocol)]), "{code}: {told:?}");
            assert_eq!((answered.len(), &answered[0].payload[..2]), (1, &1002_u16.to_be_bytes()[..]), "{code}");
        }
    }

    /// §5.5.1.
    async fn a_reason_in_utf_8_is_read_and_another_is_a_violation<On>() {
        let (told, answered) = told_of_frames::<On>(&[Frame::close(1000, "auf später, 再见")]).await;
        assert_eq!((told, answered[0].opcode), (vec![Told::Closed], Opcode::CLOSE));
        for reason in [&[0xff][..], b"cut in the middle \xe5\x86", &[0xc0, 0xaf], &[0xed, 0xa0, 0x80]] {
            let payload = [&1000_u16.to_be_bytes()[..], reason].concat();
            let (told, answered) = told_of_frames::<On>(&[close_with(&payload)]).await;
            assert_eq!((told, answered), (vec![Told::Failed(StreamError::Protocol)], vec![Answered::close(1002)]));
        }
    }

    /// §5.5.1: what comes behind a Close frame is not looked at.
    async fn nothing_is_read_behind_a_close_frame<On>() {
        let frames = [Frame::binary("before"), Frame::close(1000, ""), Frame::binary("behind"), Frame::new(Opcode::PING, "")];
        let (told, answered) = told_of_frames::<On>(&frames).await;
        assert_eq!(told, [Told::Binary(b"before".to_vec()), Told::Closed]);
        assert_eq!(answered, [Answered::close(1000)]);
    }

    /// §5.4: a Close frame may come between fragments; the message is given up.
    async fn a_close_frame_between_fragments_closes<On>() {
        let frames = [Frame { fin: false, ..Frame::binary("begun") }, Frame::close(1001, "")];
        let (told, answered) = told_of_frames::<On>(&frames).await;
        assert_eq!((told, answered), (vec![Told::Closed], vec![Answered::close(1001)]));
    }

    /// §7.1.1, §7.1.2: the server sends its Close frame, waits for the peer's whatever comes before it, and ends the stream first.
    async fn a_close_of_the_servers_waits_for_the_peers<On>() {
        let (io, mut peer) = duplex(PIPE_BYTES);
        let mut stream = On::open(io, &Setup::default()).await;
        peer.write_all(&Frame::binary(counted(100_000)).encode()).await.unwrap();
        let closing = tokio::spawn(async move { stream.close(CloseCode::GoingAway, "server shutdown").await });
        let mut frame = vec![0; 4 + "server shutdown".len()];
        peer.read_exact(&mut frame).await.unwrap();
        assert_eq!(frame, [&[0x88, 17, 0x03, 0xe9], &b"server shutdown"[..]].concat());
        assert!(!closing.is_finished());
        peer.write_all(&Frame::close(1001, "").encode()).await.unwrap();
        closing.await.unwrap();
        assert_eq!(peer.read(&mut [0]).await.unwrap(), 0, "the server ends the stream");
    }

    /// §5.5: whatever the reason, the frame has at most 125 bytes and is UTF-8.
    async fn the_longest_reason_of_the_servers_fits<On>() {
        let (io, mut peer) = duplex(PIPE_BYTES);
        let mut stream = On::open(io, &Setup::default()).await;
        peer.shutdown().await.unwrap();
        stream.close(CloseCode::Policy, &"x".repeat(123)).await;
        drop(stream);
        let answered = answered(&mut peer).await;
        assert_eq!((answered.len(), answered[0].payload.len()), (1, 125));
    }
}
