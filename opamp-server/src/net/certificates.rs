//! Certificates for agents that ask for one: the request is checked here, and decided by the application.

use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use opamp_proto::InstanceUid;
use rustls::crypto::CryptoProvider;
use tokio::sync::Semaphore;

use super::core::{Core, Sender};
use super::csr;
use super::directory::Slot;
use super::settings::ServerSettings;
use crate::desired::{ConnectionSettingsOffer, Target};
use crate::session::Input;
use crate::snapshot::Principal;

/// Issues certificates to agents that send a signing request (spec section "Agent-initiated CSR Flow"): a CA of the application's
/// own, or one that stands behind it.
///
/// The request is acknowledged at once; the decision may take as long as
/// [`ServerSettings::certificate_timeout`](crate::ServerSettings).
pub trait IssueCertificate: Send + Sync + 'static {
    /// Decides a request whose signature was verified and whose subject, if it names an identity, names this agent's.
    ///
    /// What is returned is what the agent should have from now on: settings made with
    /// [`OfferRules::issued_certificate`](crate::OfferRules), under a generation greater than the one before. The application
    /// keeps them as it keeps what it gives to
    /// [`set_desired`](crate::ServerHandle::set_desired); the library offers them at once. The same request may come again if
    /// an answer was lost, and should then get the same certificate.
    ///
    /// # Errors
    ///
    /// [`CertificateRefused`]: the agent is told BadRequest with this reason (R-CSR-14).
    fn issue(
        &self,
        request: CertificateRequest,
    ) -> BoxFuture<'_, Result<Target<ConnectionSettingsOffer>, CertificateRefused>>;
}

/// An agent's wish for a client certificate.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    /// The agent.
    pub uid: InstanceUid,
    /// Who authenticated its connection.
    pub principal: Principal,
    /// The signing request (PKCS #10) in PEM, as it came.
    pub csr: Bytes,
    /// Where it came from, if the transport told.
    pub remote_addr: Option<SocketAddr>,
}

/// Why a certificate is not issued. The agent is told: no secret belongs in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CertificateRefused(pub String);

/// Has a request checked and decided, and its outcome told to the agent's session. The agent was acknowledged already.
pub(crate) fn decide(core: &Arc<Core>, slot: &Arc<Slot>, uid: InstanceUid, sender: Sender<'_>, csr: Bytes) {
    core.counters.certificates_requested.fetch_add(1, Ordering::Relaxed);
    // Without an issuer the capability is not announced, and the session takes no request.
    let Some(issuer) = core.issuer.as_ref() else { return };
    let request = CertificateRequest {
        uid,
        principal: sender.principal().clone(),
        csr,
        remote_addr: sender.remote_addr(),
    };
    let place = Arc::clone(&issuer.places).try_acquire_owned();
    let (core, slot) = (Arc::clone(core), Arc::clone(slot));
    let Ok(place) = place else {
        let why = "too many certificate requests wait for their decision; ask again later";
        outcome(&core, &slot, Err(CertificateRefused(why.to_owned())));
        return;
    };
    tokio::spawn(async move {
        // Whatever panics must not leave the agent waiting for ever.
        let decided = AssertUnwindSafe(decision(&core, request)).catch_unwind();
        let decision = tokio::select! {
            biased;
            () = core.draining.cancelled() => return,
            decided = decided => decided.unwrap_or_else(|_| {
                tracing::error!("the decision about a certificate request panicked");
                Err(CertificateRefused("the certificate could not be issued".to_owned()))
            }),
        };
        outcome(&core, &slot, decision);
        drop(place);
    });
}

/// What is decided about a request.
async fn decision(core: &Core, request: CertificateRequest) -> Decision {
    let Some(issuer) = core.issuer.as_ref() else {
        return Err(CertificateRefused("this server issues no certificates".to_owned()));
    };
    let key = csr::check(&request.csr, &request.uid, &issuer.provider)
        .map_err(|why| CertificateRefused(why.to_string()))?;
    let issued = issuer.application.issue(request);
    let issued = match tokio::time::timeout(core.settings.certificate_timeout, issued).await {
        Ok(issued) => issued?,
        Err(_) => {
            let why = "the certificate request was not decided in time; ask again";
            return Err(CertificateRefused(why.to_owned()));
        }
    };
    let certificate = issued.offer.as_ref().and_then(|offer| {
        let opamp = offer.settings().opamp.as_ref()?;
        Some(opamp.certificate.as_ref()?.cert.clone())
    });
    match certificate {
        Some(certificate) if csr::certifies(&certificate, &key) => Ok(issued),
        Some(_) | None => {
            tracing::error!("the certificate issuer returned no certificate for the key of the request");
            Err(CertificateRefused("the certificate could not be issued".to_owned()))
        }
    }
}

fn outcome(core: &Core, slot: &Arc<Slot>, decision: Decision) {
    let input = match decision {
        Ok(target) => Input::CertificateIssued(target),
        Err(CertificateRefused(why)) => {
            tracing::debug!(why, "a certificate request was refused");
            Input::CertificateRefused(why)
        }
    };
    // None if the agent was forgotten meanwhile: then there is nobody to tell.
    let _ = core.dispatch(slot, || input);
}

type Decision = Result<Target<ConnectionSettingsOffer>, CertificateRefused>;

/// The application's issuer, with what the library does before it is asked.
pub(crate) struct Issuer {
    application: Arc<dyn IssueCertificate>,
    provider: Arc<CryptoProvider>,
    /// One permit for each request that is being decided.
    places: Arc<Semaphore>,
}

impl Issuer {
    pub(crate) fn new(
        application: Arc<dyn IssueCertificate>,
        provider: Option<Arc<CryptoProvider>>,
        settings: &ServerSettings,
    ) -> Option<Self> {
        let Some(provider) = provider.or_else(|| CryptoProvider::get_default().cloned()) else {
            tracing::error!(
                "no certificates are issued, because their requests cannot be verified: give the builder a crypto provider"
            );
            return None;
        };
        let places = settings.certificate_requests_max.min(Semaphore::MAX_PERMITS);
        Some(Self { application, provider, places: Arc::new(Semaphore::new(places)) })
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").finish_non_exhaustive()
    }
}
