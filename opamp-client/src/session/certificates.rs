//! Client certificates that the agent asks for: when, and what became of it.
//!
//! ```text
//!          wanted, and the server takes requests     made              offered and in use
//! nothing ─────────────────────────────────────► making ────► asked ───────────────────► nothing
//!    ▲                                              │          │  ▲  │
//!    │ cannot be made                               │          │  └──┘ another connection, or nobody answers
//!    └──────────────────────────────────────────────┴──────────┘ refused: later again
//! ```

use std::time::Duration;

use bytes::Bytes;
use opamp_proto::{Mono, Now, Part, ServerCapabilities, pb};
use prost::Message as _;

use super::Session;
use super::link::{Link, Open};
use super::outbox::{Outbox, Output};
use crate::config::Rejected;
use crate::connection::{CertificateSigningRequest, OpampSettings, Secret, Validity};
use crate::event::Event;
use crate::retry::Random;

/// The longest wait before the clock is looked at again: it may have been set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// The request that is under way, and when the next one is due.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    request: Option<CertificateSigningRequest>,
    /// The server does not want it, as far as can be told. Its key is kept: the error may have meant something else.
    refused: bool,
    /// The message with it.
    encoded: Option<Bytes>,
    /// A request is to be made as soon as the server takes it.
    wanted: bool,
    /// The application is at it.
    making: bool,
    /// The request is to be sent.
    unsent: bool,
    /// When to ask again, whatever has happened until then.
    again_at: Option<Mono>,
    /// When the agent asked last. With a clock that is wrong each certificate is due as soon as it is there.
    asked_at: Option<Mono>,
    /// When the certificate in use is to be renewed, by the clock on the wall.
    renew_at_ms: Option<u64>,
    /// When to look at that clock.
    look_at: Option<Mono>,
}

impl Certificates {
    /// Goes on where an earlier process ended. A certificate is wanted if there is none from the server and none is on its
    /// way.
    pub(super) fn restore(
        request: Option<CertificateSigningRequest>,
        accepted: Option<&OpampSettings>,
        spread: &mut Random,
    ) -> Self {
        let has_one = accepted.is_some_and(|accepted| accepted.certificate.is_some());
        let mut restored = Self { wanted: !has_one && request.is_none(), ..Self::default() };
        if let Some(request) = request {
            restored.ask(request);
        }
        if let Some(accepted) = accepted {
            restored.renew_later(accepted, spread);
            restored.look_at = restored.renew_at_ms.map(|_| Mono(0));
        }
        restored
    }

    pub(super) fn saved(&self) -> Option<CertificateSigningRequest> {
        self.request.clone()
    }

    /// The key of the request that is under way.
    pub(super) fn key(&self) -> Option<&Secret> {
        self.request.as_ref().map(|request| &request.key)
    }

    /// A connection begins: who is at the other end may not know of the request.
    pub(super) fn connected(&mut self) {
        self.unsent = self.request.is_some() && !self.refused;
    }

    /// A certificate is in use. If it is that of the request, there is nothing to wait for any more.
    pub(super) fn accepted(&mut self, settings: &OpampSettings, now: Now, spread: &mut Random) {
        let Some(certificate) = &settings.certificate else { return };
        if self.key() == Some(&certificate.key) {
            (self.request, self.encoded, self.unsent, self.again_at) = (None, None, false, None);
            self.refused = false;
        }
        self.renew_later(settings, spread);
        self.look_at = self.renew_at_ms.map(|_| now.mono);
    }

    /// After two thirds of its time at the earliest, and some while before its end; a fleet does not renew all at once.
    fn renew_later(&mut self, settings: &OpampSettings, spread: &mut Random) {
        let validity =
            settings.certificate.as_ref().and_then(|certificate| Validity::of_pem(&certificate.cert));
        self.renew_at_ms = validity.map(|validity| {
            let lifetime = validity.until_ms.saturating_sub(validity.from_ms) as f64;
            validity.from_ms + (lifetime * (2.0 / 3.0 + spread.share() / 6.0)) as u64
        });
    }

    fn ask(&mut self, request: CertificateSigningRequest) {
        let certificate_request = pb::CertificateRequest { csr: request.csr.clone().into() };
        let opamp = pb::OpAmpConnectionSettingsRequest { certificate_request: Some(certificate_request) };
        let message = pb::ConnectionSettingsRequest { opamp: Some(opamp) };
        self.encoded = Some(message.encode_to_vec().into());
        self.request = Some(request);
        (self.refused, self.unsent) = (false, true);
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Mono> {
        [self.again_at, self.look_at].into_iter().flatten().min()
    }
}

impl Session {
    /// Does what is due about certificates.
    pub(super) fn look_after_certificates(&mut self, now: Now, out: &mut Outbox) {
        if !self.abilities.certificates || self.is_stopping() {
            return;
        }
        let spacing = self.settings.certificate_spacing;
        let certificates = &mut self.certificates;
        if certificates.look_at.take_if(|at| *at <= now.mono).is_some()
            && let Some(renew_at_ms) = certificates.renew_at_ms
        {
            let left = Duration::from_millis(renew_at_ms.saturating_sub(now.wall.0));
            let asked_lately = certificates.asked_at.map(|at| at + spacing).filter(|at| *at > now.mono);
            if left.is_zero() && asked_lately.is_some() {
                certificates.look_at = asked_lately;
            } else if left.is_zero() {
                certificates.renew_at_ms = None;
                certificates.wanted = true;
            } else {
                certificates.look_at = Some(now.mono + left.min(LOOK_AGAIN));
            }
        }
        if certificates.again_at.take_if(|at| *at <= now.mono).is_some() {
            match certificates.request {
                Some(_) if !certificates.refused => certificates.unsent = true,
                _ => certificates.wanted = true,
            }
        }
        let asks = certificates.wanted && !certificates.making;
        if asks && self.takes_requests() {
            let certificates = &mut self.certificates;
            (certificates.wanted, certificates.making) = (false, true);
            certificates.asked_at = Some(now.mono);
            certificates.again_at = Some(now.mono + spacing);
            out.push(Output::RequestCertificate(self.uid));
        }
    }

    /// The application wants one now.
    pub(super) fn want_certificate(&mut self) {
        self.certificates.wanted = self.abilities.certificates;
    }

    /// The identity has changed. One that names the old one is not worth waiting for (R-CSR-18).
    pub(super) fn renew_identity(&mut self) {
        if self.abilities.certificates && self.abilities.certificates_name_identity {
            self.certificates.wanted = true;
        }
    }

    /// A request was made, or not.
    pub(super) fn certificate_made(
        &mut self,
        result: Result<CertificateSigningRequest, Rejected>,
        out: &mut Outbox,
    ) {
        if !std::mem::take(&mut self.certificates.making) {
            return;
        }
        match result {
            Ok(request) => {
                self.certificates.ask(request);
                // The certificate is worth nothing without the key.
                out.push(Output::Persist);
            }
            // Tried again when the time has come.
            Err(why) => out.event(Event::CertificateNotRequested { why: why.reason().to_owned() }),
        }
    }

    /// The request to be sent, if the server can take it now. It travels alone, so that an error is known to be its own.
    pub(super) fn request_to_send(&mut self, now: Mono) -> Option<Bytes> {
        if !self.certificates.unsent || !self.takes_requests() {
            return None;
        }
        self.certificates.unsent = false;
        self.certificates.again_at = Some(now + self.settings.certificate_spacing);
        let encoded = self.certificates.encoded.clone()?;
        let fits = encoded.len() + super::custom::ENVELOPE_BYTES <= self.settings.send_limit();
        fits.then_some(encoded)
    }

    /// Whether an error is taken for the answer to a request, since no report is unanswered. It is not sent again, and another
    /// one is made later.
    pub(super) fn is_request_refused(&mut self, message: &str, now: Mono, out: &mut Outbox) -> bool {
        let certificates = &mut self.certificates;
        if certificates.request.is_none() || certificates.refused || !self.report.outstanding().is_empty() {
            return false;
        }
        (certificates.refused, certificates.encoded, certificates.unsent) = (true, None, false);
        certificates.again_at = Some(now + self.settings.certificate_spacing);
        out.event(Event::CertificateRefused { message: message.to_owned() });
        true
    }

    /// Whether the server is there and takes requests (R-CAP-31).
    fn takes_requests(&self) -> bool {
        let takes = ServerCapabilities::ACCEPTS_CONNECTION_SETTINGS_REQUEST;
        let open = matches!(&self.link, Link::Open(Open { greeted: true, leaving: None, .. }));
        open && self.server.is_some_and(|server| server.contains(takes)) && !self.connections.is_trying()
    }

    /// The field of a request.
    pub(super) const fn request_part() -> Part {
        Part::ConnectionSettingsRequest
    }
}
