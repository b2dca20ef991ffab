//! Who may call what: API tokens, roles, and a record of every refusal.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, header, request::Parts};
use opamp_fleet::manager::Actor;
use opamp_proto::Wall;
use opamp_server::DeniedReason;
use opamp_store::{ApiToken, Role};
use serde_json::json;

use super::{error::ApiError, state::App};
use crate::{
    admin::{listener::Peer, source},
    exposure, token,
};

/// Refusals written to the audit log in a burst; after that one per [`AUDIT_REFILL_MS`].
const AUDIT_BURST: u64 = 30;
/// Milliseconds until one more refusal may be written.
const AUDIT_REFILL_MS: u64 = 2_000;

/// Lets a caller with at least `role` through, and puts the [`Actor`] into the request.
pub(crate) async fn authorize(
    State((app, role)): State<(Arc<App>, Role)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut head, body) = request.into_parts();
    match identify(&app, role, &head).await {
        Ok(actor) => {
            head.extensions.insert(actor);
            next.run(Request::from_parts(head, body)).await
        }
        Err(error) => error.into_response(),
    }
}

/// On a port beyond loopback without TLS only trusted proxies and this machine are served. The credentials of others
/// are not looked at.
pub(crate) async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let admin = &app.config.admin;
    let (head, body) = request.into_parts();
    let Some(peer) = head.extensions.get::<Peer>() else {
        return ApiError::internal("no peer address").into_response();
    };
    let exposed = !exposure::is_loopback(&admin.listen) && !peer.tls;
    if exposed && !exposure::plain_peer_allowed(peer.addr.ip(), &admin.trusted_proxies) {
        let nobody = caller(&app, &head, "anonymous", "none");
        let reason = json!({"reason": DeniedReason::InsecureTransport.as_str()});
        app.audit_refusal("api.insecure_transport", &nobody, head.uri.path(), reason).await;
        return ApiError::forbidden("plain connections are accepted from trusted proxies only")
            .hint("connect through the proxy that terminates TLS, see `admin.trusted_proxies`")
            .into_response();
    }
    next.run(Request::from_parts(head, body)).await
}

async fn identify(app: &App, role: Role, request: &Parts) -> Result<Actor, ApiError> {
    let place = request.uri.path();
    let found = match presented(&request.headers) {
        Ok(token) => lookup(app, token).await?,
        Err(reason) => Err(reason),
    };
    let token = match found {
        Ok(token) => token,
        Err(reason) => {
            let nobody = caller(app, request, "anonymous", "none");
            app.audit_refusal("api.auth_failed", &nobody, place, json!({"reason": reason})).await;
            // One answer for every kind of bad credentials; why is in the audit log.
            return Err(ApiError::unauthorized("a valid API token is required").hint(
                "send `Authorization: Bearer opamp-pat.…`; `reference-server token create` makes one",
            ));
        }
    };
    let actor = caller(app, request, &token.name, token.role.as_str());
    if token.role < role {
        let wanted = json!({"needs": role.as_str(), "method": request.method.as_str()});
        app.audit_refusal("api.forbidden", &actor, place, wanted).await;
        return Err(ApiError::forbidden(format!(
            "this needs role {role}; token {:?} is {}",
            token.name, token.role
        )));
    }
    Ok(actor)
}

/// Whoever sent a request, as the audit log shows it.
fn caller(app: &App, request: &Parts, name: &str, role: &str) -> Actor {
    let peer = request.extensions.get::<Peer>();
    Actor {
        name: name.to_owned(),
        role: role.to_owned(),
        source: peer.map(|peer| source(peer.addr, &request.headers, &app.config.admin.trusted_proxies)),
        trace_id: trace_id(&request.headers),
    }
}

/// The valid token with this text, or why there is none.
async fn lookup(app: &App, token: &str) -> Result<Result<ApiToken, &'static str>, ApiError> {
    let found = app.store.token_by_secret_hash(&token::sha256(token)).await;
    let found = found.map_err(|error| ApiError::unavailable(format!("tokens cannot be checked: {error}")))?;
    Ok(match found {
        None => Err("unknown"),
        Some(token) if token.revoked_at.is_some() => Err("revoked"),
        Some(token) if token.expires_at.is_some_and(|at| at <= app.now()) => Err("expired"),
        Some(token) => Ok(token),
    })
}

fn presented(headers: &HeaderMap) -> Result<&str, &'static str> {
    let value =
        headers.get(header::AUTHORIZATION).ok_or("missing")?.to_str().map_err(|_| "missing-scheme")?;
    let (scheme, token) = value.split_once(' ').ok_or("missing-scheme")?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err("missing-scheme");
    }
    let token = token.trim();
    if token::is_well_formed(token) { Ok(token) } else { Err("truncated") }
}

/// The trace id of a W3C `traceparent` header.
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("traceparent")?.to_str().ok()?.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// Bounds how many refusals reach the audit log, so that nobody fills the disk by guessing. What is left out is counted
/// and reported with the next entry that goes in.
#[derive(Debug, Default)]
pub(crate) struct RefusalGate(Mutex<GateState>);

#[derive(Debug, Default)]
struct GateState {
    used: u64,
    refilled_at: Wall,
    folded: u64,
}

impl RefusalGate {
    /// Whether this refusal is written, and how many were left out since the last one that was.
    pub(crate) fn admit(&self, now: Wall) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let refill = now.0.saturating_sub(state.refilled_at.0) / AUDIT_REFILL_MS;
        if refill > 0 {
            state.used = state.used.saturating_sub(refill);
            state.refilled_at = now;
        }
        if state.used >= AUDIT_BURST {
            state.folded += 1;
            return None;
        }
        state.used += 1;
        Some(std::mem::take(&mut state.folded))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_beyond_the_burst_are_folded_and_counted() {
        let gate = RefusalGate::default();
        let start = Wall(1_000_000);
        for _ in 0..AUDIT_BURST {
            assert_eq!(gate.admit(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(gate.admit(start), None);
        }
        let later = Wall(start.0 + AUDIT_REFILL_MS);
        assert_eq!((gate.admit(later), gate.admit(later)), (Some(7), None));
    }

    #[test]
    fn credentials_are_told_apart_for_the_audit_log() {
        let reason = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            presented(&headers).map(str::to_owned)
        };
        assert_eq!(presented(&HeaderMap::new()), Err("missing"));
        assert_eq!(reason("opamp-pat.AAAA.BBBB"), Err("missing-scheme"));
        assert_eq!(reason("Basic dXNlcjpwdw=="), Err("missing-scheme"));
        assert_eq!(reason("Bearer opamp-pat.AAAA.BBBB"), Err("truncated"));
    }
}
