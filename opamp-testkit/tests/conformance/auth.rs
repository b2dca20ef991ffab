//! R-AUTH: authentication.

use std::sync::Arc;

use futures::future::BoxFuture;
use opamp_server::{
    AuthRequest, Authenticate, Denied, DeniedReason, MutualTls, Principal, PrincipalKind, RefusalReason,
    StaticToken, StaticTokens,
};
use opamp_testkit::certs::Authority;

use super::common::*;

const TOKEN: &str = "correct-horse-battery-staple";

async fn guarded() -> (TestServer, StaticTokens) {
    let revoked = StaticToken { revoked: true, ..StaticToken::new("old", "revoked-token") };
    let tokens = StaticTokens::new(vec![StaticToken::new("fleet", TOKEN), revoked]);
    let auth = tokens.clone();
    (TestServer::with(|setup| setup.auth = Arc::new(auth)).await, tokens)
}

/// Status of an attempt with this `Authorization` header, on either transport.
async fn attempt(server: &TestServer, wire: Wire, authorization: Option<&str>) -> HttpResponse {
    let endpoint = server.endpoint();
    let request = match wire {
        Wire::WebSocket => Handshake::new(&endpoint).request,
        Wire::Http => HttpRequest::opamp(&endpoint, &Persona::new(1).full_state()),
    };
    let request = authorization.map_or(request.clone(), |value| request.with("Authorization", value));
    server.http().await.exchange(&request).await.unwrap()
}

fn accepted(wire: Wire) -> u16 {
    if wire == Wire::WebSocket { 101 } else { 200 }
}

/// HTTP Basic, as an application would add it.
struct Basic;

impl Authenticate for Basic {
    fn authenticate<'a>(&'a self, request: AuthRequest<'a>) -> BoxFuture<'a, Result<Principal, Denied>> {
        Box::pin(async move {
            let value = request.headers.get("authorization").and_then(|value| value.to_str().ok());
            match value {
                // "agent:secret"
                Some("Basic YWdlbnQ6c2VjcmV0") => {
                    Ok(Principal { kind: PrincipalKind::Custom, id: "agent".to_owned() })
                }
                Some(_) => Err(DeniedReason::Unknown.into()),
                None => Err(DeniedReason::MissingCredentials.into()),
            }
        })
    }
}

on_both_transports! {
    /// R-AUTH-01: Bearer is built in.
    async fn a_bearer_token_lets_an_agent_in(wire: Wire) {
        let (server, _) = guarded().await;
        let (agent, answer) = server.connector(wire).with_token(TOKEN).start(Persona::new(1)).await.unwrap();
        assert!(answer.error_response.is_none());
        let principal = server.snapshot(agent.persona.uid).connection.unwrap().principal.clone();
        assert_eq!(principal.to_string(), "token:fleet");
    }

    /// R-AUTH-01: any other scheme is an implementation of one trait.
    async fn an_application_may_bring_basic_authentication(wire: Wire) {
        let server = TestServer::with(|setup| setup.auth = Arc::new(Basic)).await;
        let response = attempt(&server, wire, Some("Basic YWdlbnQ6c2VjcmV0")).await;
        assert_eq!(response.status, accepted(wire));
        for wrong in [None, Some("Basic YWdlbnQ6d3Jvbmc=")] {
            assert_eq!(attempt(&server, wire, wrong).await.status, 401);
        }
    }

    /// R-AUTH-02, R-AUTH-03.
    async fn missing_and_wrong_credentials_are_answered_401(wire: Wire) {
        let (server, _) = guarded().await;
        for (authorization, reason) in [
            (None, "missing-credentials"),
            (Some(TOKEN), "missing-scheme"),
            (Some("Basic YWdlbnQ6c2VjcmV0"), "missing-scheme"),
            (Some("Bearer wrong"), "unknown"),
            (Some("Bearer "), "missing-scheme"),
            (Some("Bearer revoked-token"), "revoked"),
        ] {
            let before = server.refusals().len();
            let response = attempt(&server, wire, authorization).await;
            assert_eq!(response.status, 401, "{authorization:?}");
            assert!(response.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
            let refusal = server.eventually(|| server.refusals().get(before).cloned()).await.unwrap();
            assert_eq!((refusal.reason, refusal.detail.as_str()), (RefusalReason::AuthFailed, reason));
            assert!(refusal.remote_addr.is_some_and(|addr| addr.ip().is_loopback()), "the source address");
            let everything = format!("{refusal:?} {response:?}");
            assert!(!everything.contains(TOKEN) && !everything.contains("revoked-token"), "{everything}");
        }
        assert!(!server.knows(Persona::new(1).uid));
        assert_eq!(server.rejected(RefusalReason::AuthFailed), 6);
    }

    /// R-AUTH-02: before anything else is looked at, so that strangers learn nothing and cost nothing.
    async fn a_stranger_learns_nothing_about_his_request(wire: Wire) {
        let (server, _) = guarded().await;
        let endpoint = server.endpoint();
        let request = match wire {
            Wire::WebSocket => Handshake::new(&endpoint).request.without("Sec-WebSocket-Key"),
            Wire::Http => HttpRequest::post(&endpoint, vec![0xff; 100]).with("Content-Encoding", "br"),
        };
        assert_eq!(server.post(&request).await.status, 401);
        // Even without the body: the answer does not wait for it.
        let mut http = server.http().await;
        let claimed = HttpRequest::post(&endpoint, "").framed(Framing::Claimed(1 << 40));
        http.send_head(&claimed).await.unwrap();
        assert_eq!(http.read_response().await.unwrap().status, 401);
    }

    /// R-AUTH-03 in time: tokens change without a restart.
    async fn tokens_can_be_replaced_while_the_server_runs(wire: Wire) {
        let (server, tokens) = guarded().await;
        let bearer = format!("Bearer {TOKEN}");
        assert_eq!(attempt(&server, wire, Some(&bearer)).await.status, accepted(wire));
        tokens.replace(vec![StaticToken::new("next", "next-token")]);
        assert_eq!(attempt(&server, wire, Some(&bearer)).await.status, 401);
        assert_eq!(attempt(&server, wire, Some("bearer next-token")).await.status, accepted(wire), "any letter case");
    }

    /// R-AUTH-01: a client certificate is credentials too.
    async fn a_client_certificate_names_the_agent(wire: Wire) {
        let ca = Authority::new("fleet CA");
        let tls = ca.mutual_server_config(&ca.server(&["opamp.test"]), false);
        let server = TestServer::with(|setup| {
            setup.tls = Some(tls);
            setup.auth = Arc::new(MutualTls);
        })
        .await;
        let addr = server.endpoint().addr;
        let known = Endpoint::tls(addr, ca.client_config_with(&ca.client("agent-7", &[])), "opamp.test");
        let (agent, _) = Connector::new(known, wire).start(Persona::new(7)).await.unwrap();
        let principal = server.snapshot(agent.persona.uid).connection.unwrap().principal.clone();
        assert_eq!(principal.to_string(), "certificate:agent-7");

        let stranger = Endpoint::tls(addr, ca.client_config(), "opamp.test");
        let transcript = Transcript::new();
        let mut http = RawHttp::connect(&stranger, &transcript).await.unwrap();
        let request = match wire {
            Wire::WebSocket => Handshake::new(&stranger).request,
            Wire::Http => HttpRequest::opamp(&stranger, &Persona::new(8).full_state()),
        };
        assert_eq!(http.exchange(&request).await.unwrap().status, 401);
        assert!(!server.knows(Persona::new(8).uid));
    }
}

/// R-AUTH-03: who fails in the TLS handshake gets no HTTP status, and is audited all the same.
#[tokio::test]
async fn a_failed_client_certificate_is_refused_in_the_handshake_and_audited() {
    let (ca, other) = (Authority::new("fleet CA"), Authority::new("other CA"));
    let tls = ca.mutual_server_config(&ca.server(&["opamp.test"]), true);
    let server = TestServer::with(|setup| {
        setup.tls = Some(tls);
        setup.auth = Arc::new(MutualTls);
    })
    .await;
    let addr = server.endpoint().addr;
    for config in [
        ca.client_config(),
        ca.client_config_with(&other.client("intruder", &[])),
        ca.client_config_with(&ca.expired_client("late")),
    ] {
        let before = server.refusals().len();
        let outcome = Connector::new(Endpoint::tls(addr, config, "opamp.test"), Wire::Http)
            .start(Persona::new(1))
            .await;
        assert!(outcome.is_err());
        let refusal = server.eventually(|| server.refusals().get(before).cloned()).await.unwrap();
        assert_eq!(refusal.reason, RefusalReason::AuthFailed, "{refusal:?}");
        assert!(refusal.remote_addr.is_some());
    }
    assert!(!server.knows(Persona::new(1).uid));
}
