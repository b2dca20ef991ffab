//! Frames and messages of the peer: RFC 6455 §5.1 to §5.6, §6.2.

use opamp_testkit::raw::{Frame, Length, Opcode};

use super::*;

fn binary(bytes: &[u8]) -> Told {
    Told::Binary(bytes.to_vec())
}

/// Told what was right before it, the peer that breaks the rule is told 1002.
async fn is_a_violation<On: Implementation>(frames: &[Frame]) {
    let mut all = vec![Frame::binary("before")];
    all.extend_from_slice(frames);
    let (told, answered) = told_of_frames::<On>(&all).await;
    assert_eq!(told, [binary(b"before"), Told::Failed(StreamError::Protocol)], "{frames:?}");
    assert_eq!(answered, [Answered::close(1002)], "{frames:?}");
}

on_both! {
    /// §5.2.
    async fn messages_of_every_length_form_are_read<On>() {
        for length in [0, 1, 7, 125, 126, 127, 65_535, 65_536, 300_000, LIMIT] {
            let message = counted(length);
            let (told, answered) = told_of_frames::<On>(&[Frame::binary(message.clone()), Frame::binary("next")]).await;
            assert_eq!(told, [binary(&message), binary(b"next"), Told::Failed(StreamError::Io)], "{length}");
            assert_eq!(answered, []);
        }
    }

    /// §5.3.
    async fn every_mask_is_undone<On>() {
        for mask in [[0; 4], [0xff; 4], [1, 2, 3, 4], [0, 0, 0, 1]] {
            for length in [1, 3, 8, 29, 4_099] {
                let message = counted(length);
                let frame = Frame { mask: Some(mask), ..Frame::binary(message.clone()) };
                let (told, _) = told_of_frames::<On>(&[frame]).await;
                assert_eq!(told[0], binary(&message));
            }
        }
    }

    /// §5.1: a server closes the connection upon a frame that is not masked.
    async fn a_frame_without_mask_is_a_violation<On>() {
        is_a_violation::<On>(&[Frame { mask: None, ..Frame::binary("unmasked") }]).await;
        is_a_violation::<On>(&[Frame { mask: None, ..Frame::new(Opcode::PING, "") }]).await;
    }

    /// §5.2: no extension was negotiated that gives them a meaning.
    async fn a_reserved_bit_is_a_violation<On>() {
        for rsv in 1..8 {
            is_a_violation::<On>(&[Frame { rsv, ..Frame::binary("reserved") }]).await;
        }
    }

    /// §5.2.
    async fn a_reserved_opcode_is_a_violation<On>() {
        for opcode in (0x3..=0x7).chain(0xB..=0xF) {
            is_a_violation::<On>(&[Frame::new(Opcode(opcode), "reserved")]).await;
        }
    }

    /// §5.2: the most significant bit must be 0.
    async fn a_length_with_its_top_bit_set_is_refused_before_anything_of_it_comes<On>() {
        for claimed in [1 << 63, u64::MAX] {
            let frame = Frame { length: Length::Claimed(claimed), ..Frame::binary("") };
            let (told, answered) = told_of_frames::<On>(&[frame]).await;
            assert!(matches!(told[..], [Told::Failed(StreamError::Protocol | StreamError::Oversize)]), "{told:?}");
            assert_eq!((answered.len(), answered[0].opcode), (1, Opcode::CLOSE));
        }
    }

    /// §5.4.
    async fn fragments_are_put_together<On>() {
        for (length, size) in [(1, 1), (100, 1), (1_000, 7), (10_000, 4_096), (300_000, 4_096), (300_000, 70_000)] {
            let message = counted(length);
            let mut frames = Frame::fragments(&message, size);
            frames.push(Frame::binary("next"));
            let (told, _) = told_of_frames::<On>(&frames).await;
            assert_eq!(told, [binary(&message), binary(b"next"), Told::Failed(StreamError::Io)], "{length} in {size}");
        }
    }

    /// §5.4: fragments may be empty, the first and the last of them too.
    async fn empty_fragments_change_nothing<On>() {
        let part = |fin, opcode, payload: &'static str| Frame { fin, ..Frame::new(opcode, payload) };
        let frames = [
            part(false, Opcode::BINARY, ""),
            part(false, Opcode::CONTINUATION, ""),
            part(false, Opcode::CONTINUATION, "ab"),
            part(false, Opcode::CONTINUATION, ""),
            part(false, Opcode::CONTINUATION, "c"),
            part(true, Opcode::CONTINUATION, ""),
        ];
        let (told, _) = told_of_frames::<On>(&frames).await;
        assert_eq!(told[0], binary(b"abc"));
    }

    /// §5.4: control frames may be injected in the middle of a fragmented message.
    async fn control_frames_between_fragments_are_seen_on_their_own<On>() {
        let message = counted(1_000);
        let mut frames = Vec::new();
        for fragment in Frame::fragments(&message, 400) {
            frames.extend([Frame::new(Opcode::PING, "p"), fragment]);
        }
        let (told, answered) = told_of_frames::<On>(&frames).await;
        let control = Told::Control;
        assert_eq!(told[..4], [control.clone(), control.clone(), control, binary(&message)]);
        assert_eq!(answered, vec![Answered::pong(b"p"); 3]);
    }

    /// §5.4.
    async fn a_continuation_of_nothing_is_a_violation<On>() {
        is_a_violation::<On>(&[Frame::new(Opcode::CONTINUATION, "of nothing")]).await;
        is_a_violation::<On>(&[Frame { fin: false, ..Frame::new(Opcode::CONTINUATION, "of nothing") }]).await;
    }

    /// §5.4: fragments of one message are not interleaved with those of another.
    async fn a_message_between_fragments_is_a_violation<On>() {
        let begun = Frame { fin: false, ..Frame::binary("begun") };
        is_a_violation::<On>(&[begun.clone(), Frame::binary("another")]).await;
        is_a_violation::<On>(&[begun.clone(), Frame::new(Opcode::TEXT, "another")]).await;
        is_a_violation::<On>(&[begun.clone(), begun]).await;
    }

    /// §5.5.
    async fn a_fragmented_control_frame_is_a_violation<On>() {
        for opcode in [Opcode::PING, Opcode::PONG, Opcode::CLOSE] {
            is_a_violation::<On>(&[Frame { fin: false, ..Frame::new(opcode, "") }]).await;
        }
    }

    /// §5.5.
    async fn a_control_frame_of_more_than_125_bytes_is_a_violation<On>() {
        for opcode in [Opcode::PING, Opcode::PONG, Opcode::CLOSE] {
            is_a_violation::<On>(&[Frame::new(opcode, vec![3; 126])]).await;
        }
    }

    /// §5.6: OpAMP has binary messages only.
    async fn a_text_message_is_told_as_such<On>() {
        for frame in [Frame::new(Opcode::TEXT, "text"), Frame::new(Opcode::TEXT, "")] {
            let (told, answered) = told_of_frames::<On>(&[Frame::binary("before"), frame]).await;
            assert_eq!(told, [binary(b"before"), Told::Text]);
            assert_eq!(answered, [Answered::close(1003)]);
        }
    }

    /// §10.4: the length that is announced is enough.
    async fn an_announced_length_over_the_limit_is_refused_before_anything_of_it_comes<On>() {
        for claimed in [LIMIT as u64 + 1, 1 << 40, (1 << 63) - 1] {
            let frame = Frame { length: Length::Claimed(claimed), ..Frame::binary("") };
            let (told, answered) = told_of_frames::<On>(&[frame]).await;
            assert_eq!(told, [Told::Failed(StreamError::Oversize)], "{claimed}");
            assert_eq!(answered, [Answered::close(1009)]);
        }
    }

    /// §10.4.
    async fn fragments_count_together_against_the_limit<On>() {
        let part = |opcode, bytes| Frame { fin: false, ..Frame::new(opcode, vec![0; bytes]) };
        let fits = [part(Opcode::BINARY, LIMIT - 10), Frame::new(Opcode::CONTINUATION, vec![0; 10])];
        assert_eq!(told_of_frames::<On>(&fits).await.0[0], Told::Binary(vec![0; LIMIT]));
        let exceeds = [part(Opcode::BINARY, LIMIT - 10), part(Opcode::CONTINUATION, 11)];
        let (told, answered) = told_of_frames::<On>(&exceeds).await;
        assert_eq!((told, answered), (vec![Told::Failed(StreamError::Oversize)], vec![Answered::close(1009)]));
        // All of it in one read: small fragments that exceed a small limit together.
        let setup = Setup { message_bytes_max: 30, ..Setup::default() };
        let bytes = encoded(&Frame::fragments(&counted(31), 10));
        assert_eq!(told_with::<On>(&bytes, &setup).await.0, [Told::Failed(StreamError::Oversize)]);
    }

    async fn an_end_of_the_stream_in_the_middle_of_anything_is_an_end<On>() {
        let message = encoded(&Frame::fragments(&counted(300), 130));
        for cut in 0..message.len() {
            let (told, answered) = told_of::<On>(&message[..cut]).await;
            assert_eq!((told, answered), (vec![Told::Failed(StreamError::Io)], vec![]), "{cut}");
        }
    }

    /// §5.2: the minimal number of bytes must be used.
    async fn a_length_in_a_longer_form_than_needed_is_a_violation<On>() {
        is_a_violation::<On>(&[Frame { length: Length::Sixteen, ..Frame::binary("short") }]).await;
        is_a_violation::<On>(&[Frame { length: Length::SixtyFour, ..Frame::binary("short") }]).await;
        is_a_violation::<On>(&[Frame { length: Length::Sixteen, ..Frame::new(Opcode::PING, "short") }]).await;
    }

    /// What is not whole is drawn from the budget and given back with the message; what does not fit never begins to wait.
    async fn a_message_for_which_there_is_no_room_is_refused<On>() {
        let setup = Setup { budget: Budget::new(20_000), ..Setup::default() };
        let fits = encoded(&Frame::fragments(&counted(12_000), 4_096));
        let (told, _) = told_with::<On>(&[&fits[..], &fits].concat(), &setup).await;
        let message = Told::Binary(counted(12_000).to_vec());
        assert_eq!(told, [message.clone(), message, Told::Failed(StreamError::Io)]);
        assert_eq!(setup.budget.current(), 0);
        let exceeds = encoded(&[Frame::binary("before"), Frame::binary(counted(200_000))]);
        let (told, answered) = told_with::<On>(&exceeds, &setup).await;
        assert_eq!(told, [binary(b"before"), Told::Failed(StreamError::NoRoom)]);
        assert_eq!(answered, [Answered::close(1013)]);
        assert_eq!((setup.budget.current(), setup.budget.denied()), (0, 1));
        assert!(setup.budget.peak() <= 20_000);
    }

    /// The time a message may take counts from its beginning, whatever control frames come between its frames.
    async fn what_is_held_is_told_until_its_message_is_whole<On>() {
        let (io, mut peer) = duplex(PIPE_BYTES);
        let (mut stream, mut recorder) = (On::open(io, &Setup::default()).await, Recorder::default());
        let fragments = Frame::fragments(&counted(300), 150);
        let ping = Frame::new(Opcode::PING, "");
        for (bytes, expected, holding) in [
            (fragments[0].encode(), None, true),
            (ping.encode(), Some(Told::Control), true),
            (fragments[1].encode()[..3].to_vec(), None, true),
            (fragments[1].encode()[3..].to_vec(), Some(binary(&counted(300))), false),
            (ping.encode()[..1].to_vec(), None, true),
            (ping.encode()[1..].to_vec(), Some(Told::Control), true),
            (Vec::new(), None, false),
        ] {
            peer.write_all(&bytes).await.unwrap();
            let told = tokio::select! {
                biased;
                told = stream.read(&mut recorder) => Some(told.unwrap()),
                () = std::future::ready(()) => None,
            };
            assert_eq!((told, recorder.holding), (expected, holding), "after {bytes:?}");
        }
    }
}

/// As later on: what was read before the upgrade and cannot be kept fails the stream in its place.
#[tokio::test]
async fn what_came_with_the_upgrade_is_read_first_and_needs_room() {
    let early = Bytes::from(encoded(&[Frame::binary("early")]));
    let (budget, mut recorder) = (Budget::new(100), Recorder::default());
    let mut stream = Lean::new(duplex(10).0, &early, LIMIT, 4_096, &budget);
    assert_eq!(budget.current(), early.len());
    assert_eq!(stream.read(&mut recorder).await, Ok(binary(b"early")));
    assert_eq!(budget.current(), 0);
    let mut stream = Lean::new(duplex(10).0, &early, LIMIT, 4_096, &Budget::new(5));
    assert_eq!(stream.read(&mut recorder).await, Err(StreamError::NoRoom));
}
