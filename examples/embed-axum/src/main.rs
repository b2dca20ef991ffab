//! OpAMP as one more path of an axum application: agents connect to `/v1/opamp`, the application lists them.
//!
//! `cargo run -p embed-axum [ADDRESS:PORT]`, then point an agent to `ws://127.0.0.1:8080/v1/opamp`.

use std::{net::SocketAddr, sync::Arc};

use axum::extract::{ConnectInfo, Request, State};
use axum::{Json, Router, middleware, routing::get};
use opamp_proto::{Part, pb};
use opamp_server::{
    AgentSnapshot, Event, Events, InsecureAcceptEveryone, OpampServer, PeerInfo, ServerHandle,
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    // Everybody is let in, so this stays on loopback. A real application implements `Authenticate`.
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let (opamp, agents, driver) = OpampServer::builder(Arc::new(InsecureAcceptEveryone)).build();
    tokio::spawn(driver.run());
    if let Some(events) = agents.events() {
        tokio::spawn(print_agents(events));
    }

    let app = Router::new()
        .route("/", get(|| async { "an application of its own\n" }))
        .route("/agents", get(list_agents))
        .route_service("/v1/opamp", opamp)
        .layer(middleware::map_request(tell_peer))
        .with_state(agents);
    let listener = TcpListener::bind(address).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// What the OpAMP service cannot know by itself when it is mounted: who is at the other end.
async fn tell_peer(ConnectInfo(remote_addr): ConnectInfo<SocketAddr>, mut request: Request) -> Request {
    request.extensions_mut().insert(PeerInfo { remote_addr, tls: false, client_certificate: None });
    request
}

async fn list_agents(State(agents): State<ServerHandle>) -> Json<Value> {
    Json(agents.agents().iter().map(describe).collect())
}

/// One line per change; refusals too, so that a misconfigured agent is noticed.
async fn print_agents(mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            Event::Agent(change) => println!("agent {}", describe(&change.snapshot)),
            Event::Refused(refusal) => println!("refused: {} ({})", refusal.reason, refusal.detail),
            _ => {}
        }
    }
}

fn describe(agent: &AgentSnapshot) -> Value {
    let description = agent.state.part(Part::AgentDescription);
    let description = description.and_then(|part| pb::AgentDescription::decode(part.clone()).ok());
    json!({
        "uid": agent.uid.to_string(),
        "liveness": format!("{:?}", agent.liveness).to_lowercase(),
        "transport": agent.connection.as_ref().map(|connection| connection.transport.as_str()),
        "service_name": description.as_ref().and_then(service_name),
    })
}

fn service_name(description: &pb::AgentDescription) -> Option<&str> {
    let mut attributes = description.identifying_attributes.iter();
    let name = attributes.rfind(|attribute| attribute.key == "service.name")?.value.as_ref()?;
    match &name.value {
        Some(pb::any_value::Value::StringValue(name)) => Some(name),
        _ => None,
    }
}
