//! Test tools of the OpAMP crates: scripted peers that can say anything, transcripts that read like documentation, and
//! the requirement registry.
//!
//! - [`raw`]: an HTTP/1.1 and WebSocket client written by hand over a plain or TLS stream. It sends any bytes in any
//!   pieces, breaks every rule on request, and waits with a bound everywhere.
//! - [`agent`]: a [`ScriptedAgent`](agent::ScriptedAgent) that speaks OpAMP over that client on either transport.
//! - [`transcript`]: what was said, one line a message, with secrets left out.
//! - [`proxy`]: an HTTP proxy and a plain forwarder that stall, refuse or cut what passes, when told.
//! - [`certs`]: certificate authorities and certificates, good and bad, for TLS tests.
//! - [`registry`]: every conformance requirement and the tests that prove it.
//! - `sim`, with the feature of that name: whole fleets with rollouts on a virtual clock.
//!
//! It is a test dependency and is not published.

pub mod agent;
pub mod certs;
pub mod proxy;
pub mod raw;
pub mod registry;
#[cfg(feature = "sim")]
pub mod sim;
pub mod transcript;

/// Runs each test function of the body once per transport.
///
/// Every function takes one argument, the transport ([`agent::Wire`]); `#[tokio::test]` is implied. `name(wire)`
/// becomes the tests `name::websocket` and `name::http`.
///
/// ```text
/// opamp_testkit::on_both_transports! {
///     /// R-MSG-02.
///     async fn every_report_is_answered(wire: Wire) { … }
/// }
/// ```
#[macro_export]
macro_rules! on_both_transports {
    ($($(#[$meta:meta])* async fn $name:ident($wire:ident : $kind:ty) $body:block)+) => {$(
        $(#[$meta])*
        async fn $name($wire: $kind) $body

        mod $name {
            #[tokio::test]
            async fn websocket() {
                super::$name($crate::agent::Wire::WebSocket).await;
            }

            #[tokio::test]
            async fn http() {
                super::$name($crate::agent::Wire::Http).await;
            }
        }
    )+};
}

/// Runs each test function of the body once per implementation of WebSocket frames.
///
/// Every function takes one argument, the implementation (`opamp_server::FrameReader`, a crate the caller depends on);
/// `#[tokio::test]` is implied. `name(frames)` becomes the tests `name::lean` and `name::tungstenite`.
///
/// ```text
/// opamp_testkit::on_both_frame_readers! {
///     /// R-WS-01.
///     async fn a_text_message_is_not_opamp(frames: FrameReader) { … }
/// }
/// ```
#[macro_export]
macro_rules! on_both_frame_readers {
    ($($(#[$meta:meta])* async fn $name:ident($frames:ident : $kind:ty) $body:block)+) => {$(
        $(#[$meta])*
        async fn $name($frames: $kind) $body

        mod $name {
            #[tokio::test]
            async fn lean() {
                super::$name(::opamp_server::FrameReader::Lean).await;
            }

            #[tokio::test]
            async fn tungstenite() {
                super::$name(::opamp_server::FrameReader::Tungstenite).await;
            }
        }
    )+};
}
