//! Ways to a server as it was configured, and as a server has set them.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;

use super::connector::{Connected, Connector, Rigour};
use super::credentials::Credentials;
use super::endpoint::Endpoint;
use super::proxy::Proxy;
use super::tls::TlsSource;
use crate::config::Rejected;
use crate::connection::{Header, OpampSettings, ProxyParameters, SettingsPolicy};
use crate::failure::{Failure, FailureKind};

/// The configured way, and the offered one that was used last. What belongs to an offer is used for its own connections and
/// for no other.
pub(crate) struct Offered {
    configured: Arc<Connector>,
    policy: SettingsPolicy,
    known: Mutex<Option<(Arc<OpampSettings>, Arc<Connector>)>>,
}

impl Offered {
    pub(crate) fn new(configured: Connector, policy: SettingsPolicy) -> Arc<Self> {
        Arc::new(Self { configured: Arc::new(configured), policy, known: Mutex::new(None) })
    }

    pub(crate) fn configured(&self) -> &Arc<Connector> {
        &self.configured
    }

    /// Whether settings make a way at all: whether certificates, authorities, cipher suites, proxy and headers can be used
    /// here. Nobody is connected to.
    pub(crate) fn examine(
        self: &Arc<Self>,
        settings: Arc<OpampSettings>,
    ) -> BoxFuture<'static, Result<(), Rejected>> {
        let connector = Arc::clone(self).connector(settings);
        Box::pin(async move { connector.await.map(drop) })
    }

    /// Connects with settings.
    pub(crate) fn dial(
        self: &Arc<Self>,
        settings: Arc<OpampSettings>,
    ) -> BoxFuture<'static, Result<Connected, Failure>> {
        let connector = Arc::clone(self).connector(settings);
        Box::pin(async move { connector.await.map_err(|rejected| unusable(&rejected))?.connect(0).await })
    }

    /// Whether somebody is there.
    pub(crate) fn probe(self: &Arc<Self>, settings: Arc<OpampSettings>) -> BoxFuture<'static, bool> {
        let connector = Arc::clone(self).connector(settings);
        Box::pin(async move {
            match connector.await {
                Ok(connector) => connector.try_out(0, Rigour::SomebodyIsThere).await.is_ok(),
                Err(_) => false,
            }
        })
    }

    /// The way that settings make. Certificates may have to be read from a disk, so not on this thread.
    async fn connector(self: Arc<Self>, settings: Arc<OpampSettings>) -> Result<Arc<Connector>, Rejected> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, connector)) = &*known()
            && *of == settings
        {
            return Ok(Arc::clone(connector));
        }
        let (this, wanted) = (Arc::clone(&self), Arc::clone(&settings));
        let built = tokio::task::spawn_blocking(move || this.build(&wanted)).await;
        let built = built.map_err(|_| Rejected::new("the settings could not be examined"))??;
        let connector = Arc::new(built);
        *known() = Some((settings, Arc::clone(&connector)));
        Ok(connector)
    }

    fn build(&self, settings: &OpampSettings) -> Result<Connector, Rejected> {
        let local = &*self.configured;
        let refused = |error: &dyn std::fmt::Display| Rejected::new(format!("destination_endpoint: {error}"));
        let endpoint = Endpoint::parse(&settings.endpoint).map_err(|error| refused(&error))?;
        let tls = TlsSource::offered(
            local.tls.as_ref(),
            settings.tls.as_ref(),
            settings.certificate.as_ref(),
            self.policy,
        )?;
        if endpoint.tls && tls.is_none() {
            return Err("destination_endpoint needs TLS, and nothing says whom this agent trusts".into());
        }
        let credentials = match &settings.headers {
            Some(headers) => credentials(headers)?,
            None if self.policy.allows_credentials_elsewhere()
                || endpoint.is_same_origin(&local.endpoints[0]) =>
            {
                local.credentials.clone()
            }
            None => Credentials::new(),
        };
        let proxy = match &settings.proxy {
            Some(offered) => proxy(offered)?,
            None => local.proxy.clone(),
        };
        Ok(Connector {
            endpoints: vec![endpoint],
            tls,
            // The proxy is shown the certificate of the connection (R-TLS-11).
            proxy: proxy.showing_identity(),
            credentials,
            settings: local.settings.clone(),
            clock: Arc::clone(&local.clock),
        })
    }
}

pub(super) fn credentials(headers: &[Header]) -> Result<Credentials, Rejected> {
    let mut credentials = Credentials::new();
    for header in headers {
        let value = header.value.expose_text().unwrap_or("\0");
        credentials.add(&header.name, value).map_err(|error| Rejected::new(format!("headers: {error}")))?;
    }
    Ok(credentials)
}

pub(super) fn proxy(offered: &ProxyParameters) -> Result<Proxy, Rejected> {
    let url = offered.url.expose_text().unwrap_or_default().trim();
    // Host and port alone are an HTTP proxy (R-TLS-12).
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let mut proxy = Proxy::url(&url).map_err(|error| Rejected::new(format!("proxy.url: {error}")))?;
    for header in &offered.connect_headers {
        let value = header.value.expose_text().unwrap_or("\0");
        proxy = proxy
            .connect_header(&header.name, value)
            .map_err(|error| Rejected::new(format!("proxy.connect_headers: {error}")))?;
    }
    Ok(proxy)
}

/// Settings that were accepted and make no way any more, because something on this machine has changed.
fn unusable(rejected: &Rejected) -> Failure {
    Failure::new(
        FailureKind::Local,
        format!("the connection settings given by the server cannot be used: {rejected}"),
    )
}
