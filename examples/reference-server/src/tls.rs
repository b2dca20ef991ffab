//! TLS configurations from PEM files.
//!
//! The cryptography is ring's: libraries leave that choice to the binary, and this is the binary.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    config::{AdminConfig, AgentAuth, OpampConfig},
    self_agent::certificate::OwnOrIssued,
};

/// Files of one TLS port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Whose client certificates are accepted, if they are asked for.
    pub clients: Option<ClientAuthorities>,
}

/// Whose client certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthorities {
    /// Certificates of the authorities.
    pub path: PathBuf,
    /// Whether a client without a certificate is turned away in the handshake.
    pub required: bool,
    /// Certificates that are accepted beside those, as they are: the Self-Agent's.
    pub own: Vec<CertificateDer<'static>>,
}

/// What the files of a port hold.
#[derive(Debug)]
pub struct LoadedTls {
    /// The configuration of the port.
    pub config: ServerConfig,
    /// The certificate that it shows.
    pub leaf: CertificateDer<'static>,
}

/// A file that TLS cannot use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// It cannot be read: check path and mode.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// It holds nothing usable.
    #[error("{}: {message}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, without any of the content.
        message: String,
    },
}

impl TlsFiles {
    /// The files of the OpAMP port, if it is to speak TLS, and the client certificates that it accepts beside those
    /// of the operator.
    pub fn of_opamp(config: &OpampConfig, own: Vec<CertificateDer<'static>>) -> Option<Self> {
        let required = config.auth == AgentAuth::Mtls;
        let clients = config.client_ca.clone().map(|path| ClientAuthorities { path, required, own });
        Some(TlsFiles { cert: config.tls_cert.clone()?, key: config.tls_key.clone()?, clients })
    }

    /// The files of the admin port, if it is to speak TLS.
    pub fn of_admin(config: &AdminConfig) -> Option<Self> {
        Some(TlsFiles { cert: config.tls_cert.clone()?, key: config.tls_key.clone()?, clients: None })
    }

    /// The files to watch.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let clients = self.clients.as_ref().map(|clients| clients.path.as_path());
        [self.cert.as_path(), self.key.as_path()].into_iter().chain(clients)
    }

    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(&self) -> Result<LoadedTls, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| content(&self.cert, error))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
        };
        let chain = certificates(&self.cert)?;
        let leaf = chain[0].clone(); // there is at least one
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(|_| content(&self.key, "no usable private key in PEM form"))?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            content(&self.key, format!("does not go with {}: {error}", self.cert.display()))
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(LoadedTls { config, leaf })
    }
}

fn verifier(
    clients: &ClientAuthorities,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&clients.path)? {
        roots.add(certificate).map_err(|error| content(&clients.path, error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    let issued = builder.build().map_err(|error| content(&clients.path, error))?;
    Ok(Arc::new(OwnOrIssued { own: clients.own.clone(), issued }))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(content(path, "no certificate in PEM form")),
        Err(_) => Err(content(path, "broken PEM")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.into(), source })
}

fn content(path: &Path, message: impl fmt::Display) -> TlsError {
    TlsError::Content { path: path.into(), message: message.to_string() }
}
