//! Sending the agent's own telemetry where the server wants it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::clock::{Clock, SystemClock};
use super::connector::{Connector, Refusal};
use super::endpoint::{Endpoint, with_path};
use super::offered;
use super::polling::{addressed, uri};
use super::proxy::Proxy;
use super::settings::ClientSettings;
use super::task::OwnedTask;
use super::tls::TlsSource;
use super::{body, exchange};
use crate::config::Rejected;
use crate::connection::{SettingsPolicy, TelemetrySettings};
use crate::event::Transport;
use crate::failure::{Failure, FailureKind};

/// How much of an answer is read. OTLP says in it what was not taken.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Posts to a destination of own telemetry, with the headers, certificate, TLS and proxy that were offered for it, within what
/// the local configuration allows. What is posted, OTLP for example, is the application's.
///
/// Each request has a connection of its own, so nothing is held open in between.
pub struct TelemetrySender {
    connector: Connector,
    timeout: Duration,
}

impl TelemetrySender {
    /// A sender to where these settings lead. `tls` and `proxy` are what the agent was configured with, for what the settings
    /// do not say. Certificate authorities may be read from the disk, which blocks.
    ///
    /// # Errors
    ///
    /// [`Rejected`] if nothing can be sent by these settings; worth being the answer of an
    /// [`OwnTelemetryHandler`](crate::OwnTelemetryHandler).
    pub fn new(
        settings: &TelemetrySettings,
        tls: Option<&TlsSource>,
        proxy: &Proxy,
        policy: SettingsPolicy,
    ) -> Result<Self, Rejected> {
        policy.check_telemetry(settings).map_err(Rejected::new)?;
        let refused = |error: &dyn fmt::Display| Rejected::new(format!("destination_endpoint: {error}"));
        let endpoint = Endpoint::parse(&with_path(&settings.endpoint)).map_err(|error| refused(&error))?;
        if endpoint.transport != Transport::Http {
            return Err(refused(&"neither https nor http"));
        }
        let tls = TlsSource::offered(tls, settings.tls.as_ref(), settings.certificate.as_ref(), policy)?;
        if endpoint.tls && tls.is_none() {
            return Err("destination_endpoint needs TLS, and nothing says whom this agent trusts".into());
        }
        let proxy = match &settings.proxy {
            Some(offered) => offered::proxy(offered)?.showing_identity(),
            None => proxy.clone(),
        };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let credentials = offered::credentials(&settings.headers)?;
        let (endpoints, settings) = (vec![endpoint], ClientSettings::default());
        let timeout = settings.session.response_timeout;
        Ok(Self { connector: Connector { endpoints, tls, proxy, credentials, settings, clock }, timeout })
    }

    /// How long one request may take altogether. Default 30 s.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Posts a body of this media type, and returns that of the answer. Redirects are not followed.
    ///
    /// # Errors
    ///
    /// [`Failure`] if it was not taken, with what to do and, if the destination says so, how long to wait.
    pub async fn send(&self, content_type: &'static str, body: Bytes) -> Result<Bytes, Failure> {
        let clock = &self.connector.clock;
        let too_late = clock.sleep_until(clock.now().mono + self.timeout);
        let seconds = self.timeout.as_secs_f64();
        let late = || Failure::new(FailureKind::Timeout, format!("no answer within {seconds:.1} s"));
        tokio::select! {
            sent = Box::pin(self.post(content_type, body)) => sent,
            () = too_late => Err(late()),
        }
    }

    async fn post(&self, content_type: &'static str, body: Bytes) -> Result<Bytes, Failure> {
        let target = &self.connector.endpoints[0];
        let headers = self.connector.credentials.headers().await?;
        let reached = self.connector.reach(target).await?;
        let request = Request::post(uri(target, reached.through_proxy.as_ref())).body(Full::new(body));
        let mut request = addressed(request, target, reached.through_proxy.as_ref(), headers)?;
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        let failed = |error: hyper::Error| {
            exchange::failure("the request failed", FailureKind::Protocol, FailureKind::Closed, &error)
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(reached.io)).await.map_err(failed)?;
        let _connection = OwnedTask::spawn(async move {
            // How it went shows in the answer.
            let _ = connection.await;
        });
        let (parts, answer) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let answer = body::read(&parts.headers, answer, ANSWER_BYTES_MAX).await;
        if parts.status.is_success() {
            // What was taken is taken, whatever is wrong with the words about it.
            return Ok(answer.unwrap_or_default().into());
        }
        let refusal =
            Refusal { status: parts.status, headers: parts.headers, body: answer.unwrap_or_default() };
        Err(refusal.failure(&*self.connector.clock))
    }
}

/// Shows where it sends to, without what may be secret in that.
impl fmt::Debug for TelemetrySender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetrySender")
            .field("endpoint", &self.connector.endpoints[0])
            .finish_non_exhaustive()
    }
}
