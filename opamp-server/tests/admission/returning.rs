//! How long the fleet takes to come back.

use opamp_proto::{SequenceNum, pb};
use opamp_server::{DisconnectReason, Seed};

use super::common::{TestServer, full, numbered, uid};

#[tokio::test]
async fn the_return_of_the_fleet_is_timed_on_both_transports() {
    let server = TestServer::start().await;
    let last_seen = server.handle.now().wall;
    let seed = |number| Seed { sequence_num: Some(SequenceNum(1)), last_seen, ..Seed::new(uid(number)) };
    server.handle.restore((1..=10).map(seed));
    let left = Some((DisconnectReason::Graceful, last_seen));
    server.handle.restore([Seed { disconnect: left, ..seed(11) }, Seed { last_seen, ..Seed::new(uid(12)) }]);
    server.handle.restore([seed(1)]); // known already
    let back = || server.handle.stats().admission.fleet_return;
    assert_eq!((back().expected, back().returned), (10, 0));

    let mut socket = server.connect(None).await;
    for number in 1..=4 {
        socket.send_numbered(uid(number), 2, pb::AgentToServer::default()).await;
        assert_eq!(socket.receive().await.flags, 0);
    }
    server.clock.advance(3);
    socket.send_numbered(uid(1), 3, pb::AgentToServer::default()).await;
    socket.receive().await;
    assert_eq!((back().returned, back().seconds[0]), (4, None), "nobody counts twice");
    for number in 5..=9 {
        let polled = server.poll(None, &numbered(uid(number), 2, pb::AgentToServer::default())).await;
        assert_eq!(polled.status, 200);
    }
    // One that nobody expected does not count.
    server.poll(None, &numbered(uid(12), 1, full())).await;
    assert_eq!((back().returned, back().seconds), (9, [Some(3.0), Some(3.0), None, None]));
    server.clock.advance(60);
    assert!(server.handle.forget(&uid(10)));
    assert_eq!(back().seconds, [Some(3.0), Some(3.0), Some(63.0), Some(63.0)]);
    assert_eq!((back().expected, back().returned), (9, 9));
}
