//! Signing packages, away from any server: whoever has the server must not be able to sign.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use opamp_client::packages::statement;
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// A private Ed25519 key up to the key itself (RFC 8410 §7).
const KEY_INFO: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// How much of a file is read at a time.
const READ_BYTES: usize = 64 << 10;

/// What was made for a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// SHA-256 of the file.
    pub content_hash: [u8; 32],
    /// The signature over name, version and that.
    pub signature: Vec<u8>,
}

/// Why nothing could be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// A file cannot be read or written.
    #[error("{}: {source}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The key is none that packages can be signed with.
    #[error("{}: not a private Ed25519 key in PEM form; `self-agent make-key` makes one", .0.display())]
    Key(PathBuf),
    /// The system gave no random numbers.
    #[error("no random numbers; try again")]
    Random,
}

/// Makes a key: the private one in a file that only its owner may read, the public one beside it under the same name with
/// `.pub` behind. Files that are there are not replaced. Returns the public one as PEM.
///
/// # Errors
///
/// [`SignError`], and nothing was made that could be mistaken for a key.
pub fn make_key(path: &Path) -> Result<String, SignError> {
    let mut seed = Zeroizing::new([0; 32]);
    provider().secure_random.fill(&mut *seed).map_err(|_| SignError::Random)?;
    let der = Zeroizing::new([&KEY_INFO[..], &*seed].concat());
    let wrong = || SignError::Key(path.to_owned());
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.as_slice()));
    let key = provider().key_provider.load_private_key(key.clone_key()).map_err(|_| wrong())?;
    let public = pem("PUBLIC KEY", &key.public_key().ok_or_else(wrong)?);
    let mut public_path = path.as_os_str().to_owned();
    public_path.push(".pub");
    let public_path = PathBuf::from(public_path);
    write_new(&public_path, public.as_bytes(), 0o644)?;
    let private = pem("PRIVATE KEY", &der);
    if let Err(error) = write_new(path, private.as_bytes(), 0o600) {
        // Without the private key it is of no use.
        let _ = fs::remove_file(&public_path);
        return Err(error);
    }
    Ok(public.to_string())
}

/// Signs a file as a package of this name and version.
///
/// # Errors
///
/// [`SignError`] if the key or the file cannot be read.
pub fn sign(key: &Path, name: &str, version: &str, file: &Path) -> Result<Signed, SignError> {
    let wrong = || SignError::Key(key.to_owned());
    let pem = Zeroizing::new(fs::read(key).map_err(of(key))?);
    let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| wrong())?;
    let loaded = provider().key_provider.load_private_key(der).map_err(|_| wrong())?;
    let signer = loaded.choose_scheme(&[SignatureScheme::ED25519]).ok_or_else(wrong)?;
    let content_hash = hash(file)?;
    let signature = signer.sign(&statement(name, version, &content_hash)).map_err(|_| wrong())?;
    Ok(Signed { content_hash, signature })
}

/// Two lines, as the upload of a package takes them.
impl std::fmt::Display for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "sha256 {}", HEXLOWER.encode(&self.content_hash))?;
        writeln!(f, "signature {}", BASE64.encode(&self.signature))
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

fn hash(path: &Path) -> Result<[u8; 32], SignError> {
    let mut file = fs::File::open(path).map_err(of(path))?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer).map_err(of(path))? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    // An Ed25519 key fits into one line.
    let text = Zeroizing::new(BASE64.encode(der));
    Zeroizing::new(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", *text))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), SignError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all())).map_err(of(path))
}

fn of(path: &Path) -> impl FnOnce(io::Error) -> SignError {
    let path = path.to_owned();
    move |source| SignError::File { path, source }
}
