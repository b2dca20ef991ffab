//! Endpoints of custom messages.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use bytes::Bytes;
use data_encoding::BASE64;
use http::StatusCode;
use opamp_fleet::manager::{Actor, SendCustomError};
use opamp_proto::Wall;
use opamp_server::{CustomError, CustomMessage};

use super::{
    agents::{AgentPath, Dispatched},
    error::ApiError,
    extract::{Body, NoParameters, Query},
    schema::{reply, request},
    state::App,
    values::{self, TextOrBytes},
};

request! {
    /// A custom message for an agent. Without `data` and `data_base64` it carries none.
    pub(crate) struct CustomRequest {
        /// One of the custom capabilities that both this server (`opamp.custom_capabilities`) and the agent announce.
        capability: String,
        /// What kind of message of that capability.
        r#type: String,
        /// Its data, if that is text.
        data: Option<String>,
        /// Its data in base64.
        data_base64: Option<String>,
    }
}

reply! {
    /// A custom message of an agent.
    pub(crate) struct ReceivedMessage {
        /// Counts the messages of all agents since the start of the server.
        number: u64,
        /// When it arrived.
        received_at: Wall,
        /// The custom capability it belongs to.
        capability: String,
        /// What kind of message of that capability.
        r#type: String,
        /// Size of the data in bytes, as it arrived.
        size_bytes: u64,
        /// Whether the data is not shown, because it was larger than `fleet.custom_bytes_max`.
        data_left_out: bool,
        /// The data, if it is UTF-8 text.
        data: Option<String>,
        /// The data in base64, if it is not text.
        data_base64: Option<String>,
    }
}

reply! {
    /// The last custom messages of an agent. They are in memory only, and their number and size are bounded.
    pub(crate) struct ReceivedMessages {
        /// Oldest first.
        messages: Vec<ReceivedMessage>,
        /// How many came and are not shown any more, since the start of the server.
        dropped: u64,
    }
}

pub(crate) async fn send(
    State(app): State<Arc<App>>,
    Extension(actor): Extension<Actor>,
    AgentPath(id): AgentPath,
    Body(wanted): Body<CustomRequest>,
) -> Result<(StatusCode, Json<Dispatched>), ApiError> {
    let data = match (wanted.data, wanted.data_base64) {
        (Some(text), None) => text.into(),
        (None, Some(encoded)) => BASE64
            .decode(encoded.as_bytes())
            .map_err(|_| ApiError::bad_request("`data_base64` is not base64 with padding"))?
            .into(),
        (None, None) => Bytes::new(),
        (Some(_), Some(_)) => {
            return Err(ApiError::bad_request("the message has both `data` and `data_base64`"));
        }
    };
    let message = CustomMessage { capability: wanted.capability, kind: wanted.r#type, data };
    let dispatch = app.fleet.send_custom(&actor, &id, message).await?;
    Ok((StatusCode::ACCEPTED, Json(Dispatched::from(dispatch))))
}

pub(crate) async fn received(
    State(app): State<Arc<App>>,
    AgentPath(id): AgentPath,
    _: Query<NoParameters>,
) -> Result<Json<ReceivedMessages>, ApiError> {
    let log = app
        .fleet
        .custom_messages(&id)
        .ok_or_else(|| ApiError::not_found(format!("there is no agent {id}")))?;
    let messages = log.messages.into_iter().map(|received| {
        let shown = (!received.data_left_out).then(|| values::text_or_bytes(&received.message.data));
        let TextOrBytes { text, base64 } = shown.unwrap_or_default();
        ReceivedMessage {
            number: received.number,
            received_at: received.at,
            capability: received.message.capability,
            r#type: received.message.kind,
            size_bytes: received.data_bytes as u64,
            data_left_out: received.data_left_out,
            data: text,
            data_base64: base64,
        }
    });
    Ok(Json(ReceivedMessages { messages: messages.collect(), dropped: log.dropped }))
}

impl From<SendCustomError> for ApiError {
    fn from(error: SendCustomError) -> Self {
        let text = error.to_string();
        match error {
            SendCustomError::NotFound(_) => ApiError::not_found(text),
            SendCustomError::NotSent(refused) => match refused {
                CustomError::Full { .. } => {
                    ApiError::too_many(text).hint("wait until the agent has taken some of them")
                }
                CustomError::NotOurs { .. } => {
                    ApiError::conflict(text).hint("name it in `opamp.custom_capabilities`")
                }
                CustomError::TooLarge { .. } => ApiError::too_large(text),
                CustomError::NoSession | CustomError::NotAnnounced { .. } => ApiError::conflict(text),
            },
            SendCustomError::Store(failure) => failure.into(),
            _ => ApiError::internal(text),
        }
    }
}
