//! TLS as a server offers it, measured by what the agent was configured with.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, Resumption};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::tls::{NoIdentity, Pem, TlsOptions, TlsSource};
use crate::config::Rejected;
use crate::connection::{ClientCertificate, SettingsPolicy, TlsParameters};

impl TlsSource {
    /// TLS of an offered connection: what was configured, with what the offer names in place of it. A certificate that is
    /// not offered is none (R-CONN-30). `None` if nothing says whom to trust.
    pub(crate) fn offered(
        local: Option<&Self>,
        tls: Option<&TlsParameters>,
        certificate: Option<&ClientCertificate>,
        policy: SettingsPolicy,
    ) -> Result<Option<Self>, Rejected> {
        let options = match (local.map(Self::origin), tls) {
            (None, None) => return Ok(None),
            (None, Some(tls)) => {
                // The one the program has chosen for all of itself, if it has.
                let provider = CryptoProvider::get_default();
                let provider =
                    provider.ok_or("tls: this agent was configured without TLS, and has no means for it")?;
                if tls.ca_pem.is_empty() && !tls.system_ca {
                    return Err("tls names no authority, and this agent knows none".into());
                }
                TlsOptions::new(Arc::clone(provider))
            }
            (Some(Origin::Options(options)), _) => TlsOptions::clone(&options),
            (Some(Origin::Whole(config)), None) => {
                return with_identity(&config, certificate).map(|config| Some(Self::new(config)));
            }
            (Some(Origin::Whole(config)), Some(tls)) => {
                if tls.ca_pem.is_empty() && !tls.system_ca {
                    return Err(
                        "tls names no authority, and those this agent trusts cannot be taken over".into()
                    );
                }
                // What it allows is in it and cannot be asked for, so nothing below the best is taken to be allowed.
                TlsOptions::new(Arc::clone(config.crypto_provider())).speaking(vec![&TLS13])
            }
        };
        let mut options = options.with_identity(certificate);
        if let Some(tls) = tls {
            options = options.changed(tls, policy)?;
        }
        let source = Self::from_options(options).map_err(|error| Rejected::new(format!("tls: {error}")))?;
        Ok(Some(source))
    }
}

/// What a [`TlsSource`] was made from.
pub(super) enum Origin {
    Options(Arc<TlsOptions>),
    Whole(Arc<ClientConfig>),
}

impl TlsOptions {
    fn with_identity(mut self, certificate: Option<&ClientCertificate>) -> Self {
        self.identity = certificate
            .map(|offered| (Pem::text(offered.cert.clone()), Pem::text(offered.key.expose().to_vec())));
        self
    }

    fn speaking(mut self, versions: Vec<&'static SupportedProtocolVersion>) -> Self {
        self.versions = versions;
        self
    }

    fn changed(mut self, tls: &TlsParameters, policy: SettingsPolicy) -> Result<Self, Rejected> {
        if !tls.ca_pem.is_empty() {
            self.authorities = vec![Pem::text(tls.ca_pem.clone().into_bytes())];
            self.trust_system(tls.system_ca)?;
        } else if tls.system_ca {
            self.authorities.clear();
            self.trust_system(true)?;
        }
        self.versions = versions(&self.versions, tls, policy)?;
        if !tls.cipher_suites.is_empty() {
            self.provider = Arc::new(restricted(&self.provider, &tls.cipher_suites)?);
        }
        if tls.insecure_skip_verify && !policy.allows_insecure_skip_verify() {
            return Err("tls.insecure_skip_verify is not obeyed by this agent".into());
        }
        self.unverified = tls.insecure_skip_verify;
        Ok(self)
    }

    #[cfg(feature = "native-roots")]
    fn trust_system(&mut self, wanted: bool) -> Result<(), Rejected> {
        self.native_roots = wanted;
        Ok(())
    }

    #[cfg(not(feature = "native-roots"))]
    fn trust_system(&mut self, wanted: bool) -> Result<(), Rejected> {
        match wanted {
            true => {
                Err("tls.include_system_ca_certs_pool: this agent was built without the system's authorities"
                    .into())
            }
            false => Ok(()),
        }
    }
}

/// A whole configuration with another client certificate.
fn with_identity(
    config: &ClientConfig,
    certificate: Option<&ClientCertificate>,
) -> Result<ClientConfig, Rejected> {
    let mut config = ClientConfig::clone(config);
    config.client_auth_cert_resolver = match certificate {
        None => Arc::new(NoIdentity),
        Some(offered) => {
            let wrong = |what: &dyn std::fmt::Display| Rejected::new(format!("certificate: {what}"));
            let chain = Pem::text(offered.cert.clone()).certificates().map_err(|error| wrong(&error))?;
            let key =
                Pem::text(offered.key.expose().to_vec()).private_key().map_err(|error| wrong(&error))?;
            let key = CertifiedKey::from_der(chain, key, config.crypto_provider())
                .map_err(|error| wrong(&error))?;
            Arc::new(SingleCertAndKey::from(key))
        }
    };
    // Sessions are resumed with whom they were begun.
    config.resumption = Resumption::default();
    Ok(config)
}

/// The versions that are allowed here and by the offer.
fn versions(
    local: &[&'static SupportedProtocolVersion],
    tls: &TlsParameters,
    policy: SettingsPolicy,
) -> Result<Vec<&'static SupportedProtocolVersion>, Rejected> {
    let older = local.contains(&&TLS12);
    let min = version(&tls.min_version).ok_or_else(|| {
        Rejected::new(format!("tls.min_version: {:?} is not spoken; 1.2 and 1.3 are", tls.min_version))
    })?;
    let max = version(&tls.max_version).ok_or_else(|| {
        Rejected::new(format!("tls.max_version: {:?} is not spoken; 1.2 and 1.3 are", tls.max_version))
    })?;
    let oldest = match min {
        // Unset: the default of the protocol is 1.2, but what is asked for here is not given up for that.
        None => older,
        Some(Version::V1_2) if older || policy.allows_older_tls() => true,
        Some(Version::V1_2) => {
            return Err("tls.min_version is lower than what this agent was configured with".into());
        }
        Some(Version::V1_3) => false,
    };
    match (oldest, max) {
        (true, Some(Version::V1_2)) => Ok(vec![&TLS12]),
        (false, Some(Version::V1_2)) => {
            Err("tls.max_version is lower than what this agent asks for at least".into())
        }
        (true, _) => Ok(vec![&TLS13, &TLS12]),
        (false, _) => Ok(vec![&TLS13]),
    }
}

#[derive(Clone, Copy)]
enum Version {
    V1_2,
    V1_3,
}

/// A version as offers name it (R-TLS-06): the outer `None` for one that is not spoken, the inner for none named.
fn version(text: &str) -> Option<Option<Version>> {
    let text = text.trim().to_ascii_lowercase();
    match text.trim_start_matches("tls").trim_start_matches('v') {
        "" if text.is_empty() => Some(None),
        "1.2" => Some(Some(Version::V1_2)),
        "1.3" => Some(Some(Version::V1_3)),
        _ => None,
    }
}

/// The provider with these cipher suites alone, by their IANA names (R-TLS-08).
fn restricted(provider: &CryptoProvider, names: &[String]) -> Result<CryptoProvider, Rejected> {
    // rustls names those of TLS 1.3 in a way of its own.
    let iana = |name: &str| name.replacen("TLS13_", "TLS_", 1).to_ascii_uppercase();
    let mut wanted: Vec<String> = names.iter().map(|name| iana(name.trim())).collect();
    let mut provider = provider.clone();
    provider.cipher_suites.retain(|suite| {
        let known = suite.suite().as_str().map(iana);
        known.is_some_and(|known| wanted.contains(&known))
    });
    let has = |name: &String| {
        provider.cipher_suites.iter().any(|suite| suite.suite().as_str().map(iana).as_ref() == Some(name))
    };
    wanted.retain(|name| !has(name));
    match wanted.first() {
        None => Ok(provider),
        Some(unknown) => {
            Err(Rejected::new(format!("tls.cipher_suites: {unknown:?} is not known to this agent")))
        }
    }
}

/// Takes every server for the one that is meant. Only by express permission of the local configuration.
#[derive(Debug)]
pub(super) struct Unverified(pub(super) WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use opamp_testkit::certs::Authority;
    use rustls::crypto::ring;

    use super::*;

    fn local() -> TlsSource {
        let options = TlsOptions::new(Arc::new(ring::default_provider())).ca_pem(Authority::new("ca").pem());
        TlsSource::from_options(options).unwrap()
    }

    /// Also where nobody has looked before: what is obeyed is decided by the policy alone.
    #[test]
    fn verification_is_not_switched_off_without_permission_wherever_the_settings_come_from() {
        let blind = TlsParameters { insecure_skip_verify: true, ..TlsParameters::default() };
        let strict = SettingsPolicy::strict().allow_older_tls().allow_plaintext();
        for local in
            [local(), TlsSource::new(rustls::ClientConfig::clone(&Authority::new("ca").client_config()))]
        {
            assert!(TlsSource::offered(Some(&local), Some(&blind), None, strict).is_err());
        }
        let allowed = SettingsPolicy::strict().allow_insecure_skip_verify();
        assert!(TlsSource::offered(Some(&local()), Some(&blind), None, allowed).unwrap().is_some());
    }

    #[test]
    fn versions_are_understood_in_the_forms_that_there_are() {
        for (text, known) in
            [("1.2", true), ("TLSv1.3", true), ("tls1.2", true), (" 1.3 ", true), ("v1.2", true)]
        {
            assert_eq!(matches!(version(text), Some(Some(_))), known, "{text}");
        }
        assert!(matches!(version(""), Some(None)));
        for bad in ["1.1", "TLS", "v", "SSLv3", "1.4", "13"] {
            assert!(version(bad).is_none(), "{bad}");
        }
    }
}
