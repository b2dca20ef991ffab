//! Certificates on disk, as the configuration wants them.

use std::{fs, path::PathBuf, sync::Arc};

use opamp_testkit::certs::Authority;
use rustls::ClientConfig;

use super::dir::TempDir;

/// An authority, the files of a server it signed, and the clients it signs.
pub struct Pki {
    pub authority: Authority,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub client_ca: PathBuf,
}

impl Pki {
    pub fn new(dir: &TempDir) -> Self {
        let authority = Authority::new("e2e");
        let server = authority.server(&["localhost"]);
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let cert = write("server.pem", &server.cert_pem);
        let key = write("server.key", &server.key_pem);
        let client_ca = write("clients.pem", &authority.pem());
        Pki { authority, cert, key, client_ca }
    }

    /// A client that trusts the server and shows a certificate of this name.
    pub fn client(&self, name: &str) -> Arc<ClientConfig> {
        self.authority.client_config_with(&self.authority.client(name, &[]))
    }
}
