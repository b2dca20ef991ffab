//! TLS towards the server's own port: exactly the certificate that it is configured to show now is trusted.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::certificate::ClientCertificate;

/// The certificate that the OpAMP port shows; follows every reload.
#[derive(Clone, Debug)]
pub(crate) struct Served(Arc<RwLock<Current>>);

#[derive(Debug)]
struct Current {
    leaf: CertificateDer<'static>,
    generation: u64,
}

impl Served {
    pub(crate) fn new(leaf: CertificateDer<'static>) -> Self {
        Served(Arc::new(RwLock::new(Current { leaf, generation: 0 })))
    }

    /// From now on the port shows this one.
    pub(crate) fn replace(&self, leaf: CertificateDer<'static>) {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { leaf, generation: current.generation + 1 };
    }

    /// Changes with every [`Served::replace`]: a handshake that was under way meanwhile proves nothing.
    pub(crate) fn generation(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).generation
    }

    /// A client that trusts this certificate alone.
    ///
    /// # Errors
    /// The client certificate cannot be used.
    pub(crate) fn client_config(&self, own: Option<&ClientCertificate>) -> Result<ClientConfig, Error> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Verifier { served: self.clone(), provider: Arc::clone(&provider) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let (chain, key) = own.identity();
                builder.with_client_auth_cert(chain, key)?
            }
        };
        // A resumed session verifies nothing.
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn is(&self, leaf: &CertificateDer<'_>) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).leaf == *leaf
    }
}

/// Takes the served certificate while it is valid, under whatever name, and verifies that the peer has its key.
#[derive(Debug)]
struct Verifier {
    served: Served,
    provider: Arc<CryptoProvider>,
}

#[derive(thiserror::Error)]
#[error("it is not the certificate that the server is configured with")]
struct NotServed;

/// The text: this is how it shows within rustls' error.
impl fmt::Debug for NotServed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if !self.served.is(end_entity) {
            return Err(CertificateError::Other(OtherError(Arc::new(NotServed))).into());
        }
        let (_, certificate) =
            X509Certificate::from_der(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < certificate.validity().not_before.timestamp() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > certificate.validity().not_after.timestamp() {
            return Err(CertificateError::Expired.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use opamp_testkit::certs::Authority;
    use rustls::{ClientConnection, ServerConfig, ServerConnection};

    use super::*;

    /// A handshake in memory: what the client makes of the server.
    fn handshake(client: &ClientConfig, server: ServerConfig) -> Result<(), Error> {
        let name = ServerName::try_from("198.51.100.1").unwrap();
        let mut client = ClientConnection::new(Arc::new(client.clone()), name).unwrap();
        let mut server = ServerConnection::new(Arc::new(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut wire.as_slice()).unwrap();
            // What the server makes of an alert is its own affair.
            let _ = server.process_new_packets();
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn the_served_certificate_is_trusted_under_any_name_and_no_other_one() {
        let authority = Authority::new("a");
        let (old, new) = (authority.server(&["old.example.com"]), authority.server(&["old.example.com"]));
        let served = Served::new(old.cert.clone());
        let client = served.client_config(None).unwrap();
        // Each remembers its sessions.
        let [old_server, new_server] = [&old, &new].map(Authority::server_config);
        let show = |server: &ServerConfig| handshake(&client, server.clone());
        show(&old_server).unwrap();
        let error = show(&new_server).unwrap_err().to_string();
        assert!(error.contains("not the certificate that the server is configured with"), "{error}");
        served.replace(new.cert.clone());
        // Also not by a session that was begun when it was.
        show(&old_server).unwrap_err();
        show(&new_server).unwrap();
        assert_eq!(served.generation(), 1);
    }

    #[test]
    fn the_certificate_alone_is_nothing_without_its_key() {
        let authority = Authority::new("a");
        let (real, thief) = (authority.server(&["h"]), authority.server(&["h"]));
        let client = Served::new(real.cert.clone()).client_config(None).unwrap();
        // `with_single_cert` would notice; a peer that means harm would not.
        let key = ring::sign::any_supported_type(&thief.private_key()).unwrap();
        let stolen = rustls::sign::CertifiedKey::new(vec![real.cert.clone()], key);
        let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
        let error = handshake(&client, server).unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(CertificateError::BadSignature)), "{error}");
    }

    #[test]
    fn the_served_certificate_is_not_trusted_beyond_its_time() {
        let expired = Authority::new("a").expired_server(&["h"]);
        let client = Served::new(expired.cert.clone()).client_config(None).unwrap();
        let error = handshake(&client, Authority::server_config(&expired)).unwrap_err();
        assert!(matches!(error, Error::InvalidCertificate(CertificateError::Expired)), "{error}");

        let verifier = Verifier {
            served: Served::new(expired.cert.clone()),
            provider: Arc::new(ring::default_provider()),
        };
        let before = UnixTime::since_unix_epoch(Duration::from_secs(900_000_000)); // 1998
        let name = ServerName::try_from("h").unwrap();
        let verified = verifier.verify_server_cert(&expired.cert, &[], &name, &[], before);
        assert_eq!(verified.unwrap_err(), CertificateError::NotValidYet.into());
    }
}
