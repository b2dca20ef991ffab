//! The probe from outside: what agents elsewhere would find at `self_agent.external_url`.

use std::{sync::Arc, time::Duration};

use opamp_client::{Client, FailureKind, TlsError, TlsOptions, TlsSource};
use rustls::crypto::ring;
use tokio::task::JoinHandle;

use super::{
    access::{Credential, Credentials},
    board::{Fault, Finding, Side},
    marks::Marks,
    pin::Served,
    probe::{Attempt, connect, description, local, timed, with_token},
};
use crate::config::{ExternalUrl, SelfAgentConfig};

/// Looks at the address that agents elsewhere use.
pub(crate) struct External {
    config: SelfAgentConfig,
    credential: Arc<Credential>,
    marks: Marks,
    /// What the server itself shows, if it speaks TLS.
    served: Option<Served>,
    /// Whom to trust there, once that is known.
    tls: Option<TlsSource>,
    /// Files that are being read and may never answer: they are not asked twice at a time.
    reading: Option<JoinHandle<Result<TlsSource, TlsError>>>,
}

impl External {
    pub(crate) fn new(config: SelfAgentConfig, credentials: &Credentials, served: Option<&Served>) -> Self {
        let (credential, marks) = (Arc::clone(&credentials.probe), credentials.marks.clone());
        External { config, credential, marks, served: served.cloned(), tls: None, reading: None }
    }

    /// Looks once, unless there is no such address.
    pub(crate) async fn look(&mut self, limit: Duration) -> Option<Finding> {
        let url = self.config.external_url.clone()?;
        let mut finding = timed(limit, Box::pin(self.run(&url, limit))).await;
        if self.reading.is_some() {
            finding.result = Err(local("the files of the authorities cannot be read: nothing came of it"));
        }
        Some(finding)
    }

    /// The same as over loopback, but through the proxy if there is one.
    async fn run(&mut self, url: &ExternalUrl, limit: Duration) -> Result<(), Fault> {
        let tls = if url.is_tls() { Some(self.tls().await?) } else { None };
        let attempt = self.attempt(url, tls, limit).await?;
        let tls_failed = matches!(&attempt.result, Err(fault) if fault.kind == TLS);
        let is_own = tls_failed && self.shows_own_certificate(url, limit).await;
        judged(attempt, is_own)
    }

    async fn attempt(
        &self,
        url: &ExternalUrl,
        tls: Option<TlsSource>,
        limit: Duration,
    ) -> Result<Attempt, Fault> {
        let proxy = self.config.proxy.proxy().map_err(|error| local(error.to_string()))?;
        let mut builder = Client::builder(url.as_str(), description()).proxy(proxy);
        if let Some(tls) = tls {
            builder = builder.tls(tls);
        }
        connect(with_token(builder, &self.credential), &self.marks, limit).await
    }

    /// Whether it is this very server that is reached, with a certificate that others cannot verify.
    async fn shows_own_certificate(&self, url: &ExternalUrl, limit: Duration) -> bool {
        let config =
            self.served.as_ref().map(|served| served.client_config(self.credential.certificate.as_ref()));
        let Some(Ok(config)) = config else { return false };
        let attempt = self.attempt(url, Some(TlsSource::new(config)), limit).await;
        attempt.is_ok_and(|attempt| attempt.arrived)
    }

    /// Whom to trust; made once, and then it follows its file.
    async fn tls(&mut self) -> Result<TlsSource, Fault> {
        if let Some(tls) = &self.tls {
            return Ok(tls.clone());
        }
        let (ca_file, credential) = (self.config.ca_file.clone(), Arc::clone(&self.credential));
        // The authorities of the operating system are many files, and a file may be on a disk that hangs.
        let reading = self.reading.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let options = TlsOptions::new(Arc::new(ring::default_provider()));
                let options = match ca_file {
                    Some(path) => options.ca_file(path),
                    None => options.native_roots(),
                };
                let options = match &credential.certificate {
                    Some(own) => {
                        let (chain, key) = own.pem();
                        options.client_certificate_pem(chain, key.as_bytes())
                    }
                    None => options,
                };
                TlsSource::from_options(options)
            })
        });
        let read = reading.await;
        self.reading = None;
        let made = read.map_err(|error| local(error.to_string()))?;
        let made = made.map_err(|error| local(error.to_string()))?;
        Ok(self.tls.insert(made).clone())
    }
}

const AUTH: &str = FailureKind::Auth.as_str();
const REDIRECT: &str = FailureKind::Redirect.as_str();
const THROTTLED: &str = FailureKind::Throttled.as_str();
const TLS: &str = FailureKind::Tls(opamp_client::TlsProblem::Other).as_str();

/// What an attempt means, and whose fault it is if it failed.
fn judged(attempt: Attempt, is_own_certificate: bool) -> Result<(), Fault> {
    const ELSEWHERE: &str = "`self_agent.external_url` must lead to this very server, and nothing on the way may take \
                             headers out or answer in its place";
    const STRIPPED: &str = "what the probe shows does not get through: let `Authorization`, or with mutual TLS the \
                            connection itself, pass; or nothing but this server may ask for credentials there";
    let Attempt { result, arrived, recognised } = attempt;
    let Err(fault) = result else {
        return if arrived {
            Ok(())
        } else {
            let detail = "somebody accepts connections there, but they do not arrive at this server";
            Err(Fault::new(Side::Path, "elsewhere", detail, ELSEWHERE))
        };
    };
    Err(match fault.kind {
        AUTH if arrived && !recognised => Fault { hint: STRIPPED, ..fault },
        AUTH | THROTTLED if arrived => {
            let hint = "the server itself answers this: see its log, its limits and `opamp.trusted_proxies`";
            Fault { side: Side::Server, hint, ..fault }
        }
        // A credential of this process that is refused was refused by somebody else.
        AUTH => Fault { hint: ELSEWHERE, ..fault },
        REDIRECT => Fault { hint: "set `self_agent.external_url` to where the server really is", ..fault },
        TLS if is_own_certificate => {
            let detail =
                format!("{}; it is the certificate that this server is configured with", fault.detail);
            let hint = "check the names and the chain of `opamp.tls_cert`, and `self_agent.ca_file`";
            Fault { side: Side::Server, detail, hint, ..fault }
        }
        _ => fault,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: &'static str, arrived: bool, recognised: bool) -> Attempt {
        Attempt { result: Err(Fault::new(Side::Path, kind, "what", "look")), arrived, recognised }
    }

    #[test]
    fn only_what_arrives_here_counts_and_what_this_server_refuses_is_its_own_fault() {
        assert_eq!(judged(Attempt { result: Ok(()), arrived: true, recognised: true }, false), Ok(()));
        let fault = judged(Attempt { result: Ok(()), arrived: false, recognised: false }, false).unwrap_err();
        assert_eq!((fault.kind, fault.side), ("elsewhere", Side::Path));
        for (kind, arrived, is_own_certificate, side) in [
            (AUTH, true, false, Side::Server),
            (AUTH, false, false, Side::Path),
            (THROTTLED, true, false, Side::Server),
            (THROTTLED, false, false, Side::Path),
            (TLS, false, true, Side::Server),
            (TLS, false, false, Side::Path),
            // The answer was lost on the way.
            ("timeout", true, false, Side::Path),
        ] {
            let fault = judged(failed(kind, arrived, arrived), is_own_certificate).unwrap_err();
            assert_eq!(fault.side, side, "{kind} {arrived} {is_own_certificate}");
        }
        // Something in front took the credential out.
        let fault = judged(failed(AUTH, true, false), false).unwrap_err();
        assert_eq!(fault.side, Side::Path);
        assert!(fault.hint.contains("does not get through"), "{fault}");
    }
}

#[cfg(all(test, unix))]
mod hung {
    use std::{fs, process::Command};

    use tokio::{runtime, time::timeout};

    use super::*;
    use crate::config::{AgentAuth, Config, Inputs};

    /// One thread is all there is for what blocks: whoever asked twice would still wait for the second answer.
    #[test]
    fn files_that_do_not_answer_are_asked_once_and_are_not_the_networks_fault() {
        let directory = std::env::temp_dir().join(format!("self-agent-hung-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("ca.pem");
        assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        let flags = vec![("self_agent.external_url", vec!["wss://127.0.0.1:9/x".into()])];
        let inputs = Inputs { flags, ..Inputs::default() };
        let mut config = Config::load(&inputs).unwrap().self_agent;
        config.ca_file = Some(file.clone());
        let credentials = Credentials::generate(AgentAuth::Token).unwrap();
        let mut external = External::new(config, &credentials, None);

        let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
        let runtime = runtime.unwrap();
        let free = runtime.block_on(async {
            for _ in 0..3 {
                let finding = external.look(Duration::from_millis(50)).await.unwrap();
                let fault = finding.result.unwrap_err();
                assert_eq!((fault.kind, fault.side), ("local", Side::Probe), "{fault}");
            }
            // One reader is let go.
            std::thread::spawn(move || fs::write(file, "no certificate"));
            timeout(Duration::from_secs(10), tokio::task::spawn_blocking(|| ())).await
        });
        runtime.shutdown_background();
        fs::remove_dir_all(&directory).unwrap();
        assert!(free.is_ok(), "more than one waits for the file");
    }
}
