//! TLS towards the server: certificates from files or memory, replaced while the agent runs.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::tls_offered::{Origin, Unverified};

/// The TLS configuration of a client. It may change while the client runs; connections made afterwards use what it
/// is then, and [`Client::reconnect`](crate::Client::reconnect) makes one.
///
/// ALPN is set to `http/1.1` only, because WebSocket upgrades need it. Nothing a server offers can lower what is
/// verified here.
#[derive(Clone)]
pub struct TlsSource(Arc<Mutex<Inner>>);

/// Certificates and versions, to build a [`TlsSource`] from. Files are read again when they have changed.
///
/// The crypto provider is the caller's choice, for example `rustls::crypto::ring::default_provider()`.
#[derive(Clone)]
pub struct TlsOptions {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) authorities: Vec<Pem>,
    pub(super) identity: Option<(Pem, Pem)>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// No server is verified. Nothing that can be called from outside sets it.
    pub(super) unverified: bool,
    #[cfg(feature = "native-roots")]
    pub(super) native_roots: bool,
}

/// Why no TLS configuration can be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Certificate and key do not belong together, or are of a kind that is not supported.
    #[error("client certificate and key cannot be used: {0}")]
    Identity(String),
    /// No authority is trusted, so no server could be. Name a CA file, or trust the system's.
    #[error("no certificate authority is trusted; name a CA file or trust those of the system")]
    NoAuthority,
    /// A file or text is not what it should be.
    #[error("{location}: {what}")]
    Pem {
        /// Which file, or that it was given as text.
        location: String,
        /// What is wrong with it.
        what: String,
    },
    /// The crypto provider does not support the versions wanted.
    #[error("the crypto provider cannot do this: {0}")]
    Provider(String),
}

/// The lowest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinTlsVersion {
    /// TLS 1.2, the default.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

enum Inner {
    Fixed(Arc<ClientConfig>),
    Files(Files),
}

/// A configuration made of files.
struct Files {
    options: Arc<TlsOptions>,
    stamps: Vec<Stamp>,
    config: Arc<ClientConfig>,
    /// Somebody is looking whether they have changed, which takes as long as the disk does.
    looking: bool,
}

/// PEM text, in memory or to be read.
#[derive(Clone)]
pub(super) enum Pem {
    File(PathBuf),
    Text(Zeroizing<Vec<u8>>),
}

/// By what a changed file is noticed.
type Stamp = Option<(SystemTime, u64)>;

impl TlsOptions {
    /// Nothing trusted yet, no client certificate, TLS 1.2 and newer.
    #[must_use]
    pub fn new(provider: Arc<CryptoProvider>) -> Self {
        Self {
            provider,
            authorities: Vec::new(),
            identity: None,
            versions: vec![&TLS13, &TLS12],
            unverified: false,
            #[cfg(feature = "native-roots")]
            native_roots: false,
        }
    }

    /// Trusts the certificate authorities in a PEM file.
    #[must_use]
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.authorities.push(Pem::File(path.into()));
        self
    }

    /// Trusts the certificate authorities in PEM text.
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.authorities.push(Pem::text(pem.into()));
        self
    }

    /// Trusts the certificate authorities of the operating system as well.
    #[cfg(feature = "native-roots")]
    #[must_use]
    pub fn native_roots(mut self) -> Self {
        self.native_roots = true;
        self
    }

    /// Presents the certificate chain in one PEM file with the key in another, or in the same.
    #[must_use]
    pub fn client_certificate_files(mut self, chain: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Pem::File(chain.into()), Pem::File(key.into())));
        self
    }

    /// Presents the certificate chain and key in PEM text.
    #[must_use]
    pub fn client_certificate_pem(mut self, chain: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((Pem::text(chain.into()), Pem::text(key.into())));
        self
    }

    /// Speaks no version below this one.
    #[must_use]
    pub fn min_version(mut self, version: MinTlsVersion) -> Self {
        self.versions = match version {
            MinTlsVersion::V1_2 => vec![&TLS13, &TLS12],
            MinTlsVersion::V1_3 => vec![&TLS13],
        };
        self
    }

    fn build(&self) -> Result<ClientConfig, TlsError> {
        let provider_error = |error: rustls::Error| TlsError::Provider(error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&self.versions)
            .map_err(provider_error)?;
        let builder = if self.unverified {
            let nobody = Unverified(self.provider.signature_verification_algorithms);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(nobody))
        } else {
            let roots = self.roots()?;
            if roots.is_empty() {
                return Err(TlsError::NoAuthority);
            }
            let verifier =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                    .build()
                    .map_err(|error| TlsError::Provider(error.to_string()))?;
            builder.with_webpki_verifier(verifier)
        };
        let Some((chain, key)) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let certificates = chain.certificates()?;
        builder
            .with_client_auth_cert(certificates, key.private_key()?)
            .map_err(|error| TlsError::Identity(error.to_string()))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        #[cfg(feature = "native-roots")]
        if self.native_roots {
            // Systems carry certificates that nothing can read; the others count.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        for pem in &self.authorities {
            for certificate in pem.certificates()? {
                roots.add(certificate).map_err(|error| pem.error(error.to_string()))?;
            }
        }
        Ok(roots)
    }

    fn stamps(&self) -> Vec<Stamp> {
        let identity = self.identity.iter().flat_map(|(chain, key)| [chain, key]);
        self.authorities.iter().chain(identity).map(Pem::stamp).collect()
    }
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsOptions")
    }
}

impl TlsSource {
    /// Connects with a configuration that carries roots, client certificate and crypto provider.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self(Arc::new(Mutex::new(Inner::Fixed(prepared(config)))))
    }

    /// Connects with what the options say, and reads files again when they have changed.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if that makes no configuration now.
    pub fn from_options(options: TlsOptions) -> Result<Self, TlsError> {
        let stamps = options.stamps();
        let config = prepared(options.build()?);
        let files = Files { options: Arc::new(options), stamps, config, looking: false };
        Ok(Self(Arc::new(Mutex::new(Inner::Files(files)))))
    }

    /// Connects with another configuration from the next connection on.
    pub fn replace(&self, config: ClientConfig) {
        *self.inner() = Inner::Fixed(prepared(config));
    }

    /// Whether the files are usable as they are now. If not, connections go on with what they were before. Takes as long as
    /// reading them does.
    ///
    /// # Errors
    ///
    /// [`TlsError`]: what is wrong with them.
    pub fn check(&self) -> Result<(), TlsError> {
        let options = match &*self.inner() {
            Inner::Fixed(_) => return Ok(()),
            Inner::Files(files) => Arc::clone(&files.options),
        };
        options.build().map(drop)
    }

    /// Whether it shows a client certificate.
    pub(crate) fn has_identity(&self) -> bool {
        match &*self.inner() {
            Inner::Fixed(config) => config.client_auth_cert_resolver.has_certs(),
            Inner::Files(files) => files.options.identity.is_some(),
        }
    }

    pub(super) fn origin(&self) -> Origin {
        match &*self.inner() {
            Inner::Fixed(config) => Origin::Whole(Arc::clone(config)),
            Inner::Files(files) => Origin::Options(Arc::clone(&files.options)),
        }
    }

    /// The same trust, and no client certificate: for whoever is on the way.
    pub(crate) async fn without_identity(&self) -> Self {
        let mut config = ClientConfig::clone(&*self.current().await);
        config.client_auth_cert_resolver = Arc::new(NoIdentity);
        // Sessions are resumed with whom they were begun.
        config.resumption = Resumption::default();
        Self::new(config)
    }

    /// What connects now and whose handshakes are whole: a resumed session verifies no certificate.
    pub(crate) async fn without_resumption(&self) -> Self {
        let mut config = ClientConfig::clone(&*self.current().await);
        config.resumption = Resumption::disabled();
        Self::new(config)
    }

    /// The configuration for a connection made now. Files that have become unusable leave what was before in force:
    /// half of a rotation must not cut the agent off. Nor must a disk that does not answer: while somebody waits for it,
    /// others go on with what there is.
    pub(crate) async fn current(&self) -> Arc<ClientConfig> {
        let known = {
            let mut inner = self.inner();
            match &mut *inner {
                Inner::Fixed(config) => return Arc::clone(config),
                Inner::Files(files) if files.looking => return Arc::clone(&files.config),
                Inner::Files(files) => {
                    files.looking = true;
                    Arc::clone(&files.config)
                }
            }
        };
        let looking = Looking(self.clone());
        let looked = tokio::task::spawn_blocking(move || looking.0.look()).await;
        looked.ok().flatten().unwrap_or(known)
    }

    /// Reads the files again if they have changed.
    fn look(&self) -> Option<Arc<ClientConfig>> {
        let (options, stamps) = match &*self.inner() {
            Inner::Fixed(config) => return Some(Arc::clone(config)),
            Inner::Files(files) => (Arc::clone(&files.options), files.stamps.clone()),
        };
        let now = options.stamps();
        let built = (now != stamps).then(|| options.build());
        let mut inner = self.inner();
        let files = match &mut *inner {
            // Replaced meanwhile.
            Inner::Fixed(config) => return Some(Arc::clone(config)),
            Inner::Files(files) => files,
        };
        match built {
            Some(Ok(config)) => (files.config, files.stamps) = (prepared(config), now),
            Some(Err(error)) => tracing::warn!(%error, "changed TLS files cannot be used; the old ones stay"),
            None => {}
        }
        Some(Arc::clone(&files.config))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody looks at the files; however that ends, others may look afterwards.
struct Looking(TlsSource);

impl Drop for Looking {
    fn drop(&mut self) {
        if let Inner::Files(files) = &mut *self.0.inner() {
            files.looking = false;
        }
    }
}

#[derive(Debug)]
pub(super) struct NoIdentity;

impl ResolvesClientCert for NoIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

impl fmt::Debug for TlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsSource")
    }
}

impl Pem {
    pub(super) fn text(text: Vec<u8>) -> Self {
        Self::Text(Zeroizing::new(text))
    }

    fn bytes(&self) -> Result<Zeroizing<Vec<u8>>, TlsError> {
        match self {
            Self::File(path) => {
                std::fs::read(path).map(Zeroizing::new).map_err(|error| self.error(error.to_string()))
            }
            Self::Text(text) => Ok(text.clone()),
        }
    }

    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let bytes = self.bytes()?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let certificates = certificates.map_err(|error| self.error(error.to_string()))?;
        if certificates.is_empty() {
            return Err(self.error("no certificate in PEM form is in there".to_owned()));
        }
        Ok(certificates)
    }

    pub(super) fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let bytes = self.bytes()?;
        PrivateKeyDer::from_pem_slice(&bytes)
            .map_err(|_| self.error("no private key in PEM form is in there".to_owned()))
    }

    fn error(&self, what: String) -> TlsError {
        let location = match self {
            Self::File(path) => path.display().to_string(),
            Self::Text(_) => "PEM text".to_owned(),
        };
        TlsError::Pem { location, what }
    }

    fn stamp(&self) -> Stamp {
        let stamp = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        match self {
            Self::File(path) => stamp(path),
            Self::Text(_) => None,
        }
    }
}

fn prepared(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}
