//! The certificates of one test as files: an authority, a server, a client, and a client of another authority.

use std::fs;
use std::path::{Path, PathBuf};

use opamp_testkit::certs::{Authority, Identity};

use crate::failure::Outcome;

/// PEM files of a test.
#[derive(Debug)]
pub struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Issues everything into a directory.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn issue(directory: &Path) -> Outcome<Self> {
        let files = Self { directory: directory.to_owned() };
        let authority = Authority::new("interop authority");
        fs::write(files.certificate("ca"), authority.pem())?;
        files.write("server", &authority.server(&["localhost", "127.0.0.1"]))?;
        files.write("client", &authority.client("interop client", &[]))?;
        files.write("stranger", &Authority::new("another authority").client("stranger", &[]))?;
        Ok(files)
    }

    /// The file with the certificate of `ca`, `server`, `client` or `stranger`.
    #[must_use]
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.pem"))
    }

    /// The file with the key of `server`, `client` or `stranger`.
    #[must_use]
    pub fn key(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.key"))
    }

    fn write(&self, name: &str, identity: &Identity) -> Outcome {
        fs::write(self.certificate(name), &identity.cert_pem)?;
        fs::write(self.key(name), &identity.key_pem)?;
        Ok(())
    }
}
