//! The pace of full-state requests over the whole fleet.

use std::sync::Arc;

use opamp_proto::pb;
use opamp_server::{InsecureAcceptEveryone, ServerSettings};

use super::common::{Agent, TestServer, full, numbered, uid};

const REPORT_FULL_STATE: u64 = pb::ServerToAgentFlags::ReportFullState as u64;

async fn paced(resync_rate: u32, resync_burst: u32) -> TestServer {
    let settings = ServerSettings { resync_rate, resync_burst, ..ServerSettings::default() };
    TestServer::with(Arc::new(InsecureAcceptEveryone), settings).await
}

/// An agent on a socket of its own that the server knows.
async fn known(server: &TestServer, number: u8) -> Agent {
    let mut agent = server.connect(None).await;
    agent.send_numbered(uid(number), 1, full()).await;
    assert_eq!(agent.receive().await.flags, 0);
    agent
}

/// Sends a heartbeat whose number shows that messages were lost. Whether the answer asks for full state.
async fn falls_behind(agent: &mut Agent, number: u8) -> bool {
    agent.send_numbered(uid(number), 10, pb::AgentToServer::default()).await;
    agent.receive().await.flags & REPORT_FULL_STATE != 0
}

fn waiting(server: &TestServer) -> u64 {
    server.handle.stats().admission.resyncs_waiting
}

/// R-STATUS-17: with the very answer while the budget lasts, and later all the same.
#[tokio::test]
async fn beyond_the_budget_requests_wait_and_reach_agents_that_say_nothing_in_the_order_they_fell_behind() {
    let server = paced(1, 2).await;
    let mut agents = Vec::new();
    for number in 1..=6 {
        agents.push(known(&server, number).await);
    }
    for (number, agent) in (1..).zip(&mut agents) {
        assert_eq!(
            falls_behind(agent, number).await,
            number <= 2,
            "within the budget it is in the very answer"
        );
    }
    assert_eq!(waiting(&server), 4);
    // From here on they only listen.
    for (number, agent) in (3..).zip(&mut agents[2..]) {
        server.clock.advance(1);
        let asked = agent.receive().await;
        assert_eq!((asked.flags, &asked.instance_uid[..]), (REPORT_FULL_STATE, &uid(number).as_bytes()[..]));
        assert_eq!(waiting(&server), u64::from(6 - number));
    }
    for (number, agent) in (1..).zip(&mut agents) {
        agent.send_numbered(uid(number), 11, full()).await;
        assert_eq!(agent.receive().await.flags, 0);
    }
    let stats = server.handle.stats();
    assert_eq!((stats.full_state_requested, stats.admission.resyncs_deferred), (6, 4), "each was asked once");
}

#[tokio::test]
async fn an_agent_that_talks_more_is_not_asked_before_one_that_waits() {
    let server = paced(1, 1).await;
    let (mut first, mut quiet, mut loud) =
        (known(&server, 1).await, known(&server, 2).await, known(&server, 3).await);
    assert!(falls_behind(&mut first, 1).await);
    assert!(!falls_behind(&mut quiet, 2).await);
    assert!(!falls_behind(&mut loud, 3).await);
    for number in 11..31 {
        loud.send_numbered(uid(3), number, pb::AgentToServer::default()).await;
        assert_eq!(loud.receive().await.flags, 0);
    }
    assert_eq!(waiting(&server), 2, "and it waits once");
    server.clock.advance(1);
    assert_eq!(quiet.receive().await.flags, REPORT_FULL_STATE);
    server.clock.advance(1);
    assert_eq!(loud.receive().await.flags, REPORT_FULL_STATE);
}

#[tokio::test]
async fn an_agent_that_polls_is_asked_with_its_next_answer_once_its_turn_has_come() {
    let server = paced(1, 1).await;
    let mut first = known(&server, 1).await;
    let poll = async |number, message| {
        let answer = server.poll(None, &numbered(uid(2), number, message)).await.message.unwrap();
        answer.flags & REPORT_FULL_STATE != 0
    };
    assert!(!poll(1, full()).await);
    assert!(falls_behind(&mut first, 1).await);
    assert!(!poll(10, pb::AgentToServer::default()).await);
    assert!(!poll(11, pb::AgentToServer::default()).await);
    server.clock.advance(1);
    server.until("its turn has come", |handle| handle.stats().admission.resyncs_waiting == 0).await;
    assert!(poll(12, pb::AgentToServer::default()).await);
    assert!(!poll(13, full()).await);
    assert_eq!(server.handle.stats().full_state_requested, 2);
}

#[tokio::test]
async fn who_reported_by_itself_or_is_gone_costs_the_next_one_nothing() {
    let server = paced(1, 1).await;
    let mut agents = Vec::new();
    for number in 1..=4 {
        agents.push(known(&server, number).await);
    }
    for (number, agent) in (1..).zip(&mut agents) {
        assert_eq!(falls_behind(agent, number).await, number == 1);
    }
    agents[1].send_numbered(uid(2), 11, full()).await;
    agents[1].receive().await;
    agents.remove(2);
    server.until("it is gone", |handle| handle.stats().websocket_active == 3).await;
    server.clock.advance(1);
    assert_eq!(agents[2].receive().await.flags, REPORT_FULL_STATE);
    assert_eq!(waiting(&server), 0);
    // The one that was gone comes back, and still lacks something.
    server.clock.advance(1);
    let mut back = server.connect(None).await;
    back.send_numbered(uid(3), 11, pb::AgentToServer::default()).await;
    assert_eq!(back.receive().await.flags, REPORT_FULL_STATE);
}

#[tokio::test]
async fn what_the_application_asks_for_keeps_the_pace_too() {
    let server = paced(1, 1).await;
    let mut agents = [known(&server, 1).await, known(&server, 2).await, known(&server, 3).await];
    for number in 1..=3 {
        server.handle.request_full_state(&uid(number));
    }
    server.until("two wait", |handle| handle.stats().admission.resyncs_waiting == 2).await;
    for _ in 0..2 {
        server.clock.advance(1);
        let before = server.handle.stats().full_state_requested;
        server.until("one more is asked", |handle| handle.stats().full_state_requested == before + 1).await;
    }
    for agent in &mut agents {
        assert_eq!(agent.receive().await.flags, REPORT_FULL_STATE);
    }
}

#[tokio::test]
async fn of_a_whole_fleet_that_fell_behind_everybody_is_asked_once_and_no_second_has_more_than_the_rate() {
    const FLEET: u8 = 250;
    let server = paced(40, 10).await;
    let mut socket = server.connect(None).await;
    for number in 1..=FLEET {
        socket.send_numbered(uid(number), 1, full()).await;
        socket.receive().await;
    }
    let mut at_once = 0;
    for number in 1..=FLEET {
        at_once += u64::from(falls_behind(&mut socket, number).await);
    }
    assert_eq!(at_once, 10);
    let mut seconds = 0;
    let asked = || server.handle.stats().full_state_requested;
    while waiting(&server) > 0 {
        let before = asked();
        server.clock.advance(1);
        seconds += 1;
        let expected = (before + 10).min(FLEET.into());
        server.until("the next are asked", |_| asked() >= expected).await;
        // The bucket holds ten at most, however long nobody looked at it.
        assert_eq!(asked(), expected);
    }
    assert_eq!((asked(), seconds), (FLEET.into(), 24));
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..FLEET as u64 - at_once {
        let asked = socket.receive().await;
        assert_eq!(asked.flags, REPORT_FULL_STATE);
        assert!(told.insert(asked.instance_uid), "asked twice");
    }
}
