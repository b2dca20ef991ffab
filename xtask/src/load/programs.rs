//! The programs that take part, built and put aside, so that a build in between changes none of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::go::Go;
use crate::process::{Program, find};
use crate::workspace::{Workspace, WorkspaceError};

use super::servers::Kind;

/// The Go module of the interop programs.
pub(crate) const MODULE: &str = "interop/opamp-go";
/// Compiling everything from nothing on a slow machine.
const COMPILE_DEADLINE: Duration = Duration::from_secs(3600);

/// Where everything of one measurement lies.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    directory: PathBuf,
}

impl Place {
    /// An empty directory below the target directory.
    ///
    /// # Errors
    ///
    /// It cannot be made empty.
    pub(crate) fn new(workspace: &Workspace, name: &str) -> Result<Self, WorkspaceError> {
        let directory = workspace.metadata()?.target_directory().join("load").join(name);
        if directory.exists() {
            fs::remove_dir_all(&directory).map_err(|error| unwritable(&directory, &error))?;
        }
        fs::create_dir_all(&directory).map_err(|error| unwritable(&directory, &error))?;
        Ok(Self { directory })
    }

    /// The directory.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// A file in it.
    #[must_use]
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// An empty directory in it.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub(crate) fn made(&self, name: &str) -> Result<PathBuf, WorkspaceError> {
        let path = self.directory.join(name);
        fs::create_dir_all(&path).map_err(|error| unwritable(&path, &error))?;
        Ok(path)
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> WorkspaceError {
    WorkspaceError(format!("cannot write {}: {error}", path.display()))
}

/// Programs and certificate of one measurement.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    directory: PathBuf,
    /// Certificate and key of servers with TLS.
    pub(crate) certificate: PathBuf,
    /// See there.
    pub(crate) key: PathBuf,
}

impl Programs {
    /// Builds what `kinds` need, or takes what was built before; none if something does not compile, which the compiler has said then.
    ///
    /// # Errors
    ///
    /// A compiler cannot be run.
    pub(crate) fn build(
        workspace: &Workspace,
        place: &Place,
        kinds: &[Kind],
        (tls, build): (bool, bool),
    ) -> Result<Option<Self>, WorkspaceError> {
        let directory = place.made("bin")?;
        let built = workspace.metadata()?.target_directory().join("release");
        let mut wanted = vec![("fleet-load", "fleet-load")];
        if kinds.contains(&Kind::Ours) {
            wanted.push(("reference-server", "reference-server"));
        }
        if kinds.contains(&Kind::Floor) {
            wanted.push(("fleet-load", "epoll-floor"));
        }
        for (package, program) in wanted {
            let compiling = workspace
                .cargo("build")
                .args(["--release", "--package", package, "--bin", program])
                .deadline(COMPILE_DEADLINE);
            if build && !compiling.show()?.succeeded() {
                return Ok(None);
            }
            copied(&built.join(program), &directory.join(program))?;
        }
        if kinds.contains(&Kind::OpampGo) {
            let compiled = Program::new("go")
                .args(["build", "-o"])
                .arg(directory.join("loadserver"))
                .arg("./loadserver")
                // The module's own directory decides; a workspace file or flags of the machine do not.
                .env("GOWORK", "off")
                .env("GOFLAGS", "")
                .directory(&workspace.path(MODULE))
                .deadline(COMPILE_DEADLINE)
                .show()?;
            if !compiled.succeeded() {
                return Ok(None);
            }
        }
        let programs = Self {
            certificate: directory.join("certificate.pem"),
            key: directory.join("certificate.key"),
            directory,
        };
        if tls {
            programs.make_certificate()?;
        }
        Ok(Some(programs))
    }

    /// One of them.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// A certificate for loopback that is its own authority.
    fn make_certificate(&self) -> Result<(), WorkspaceError> {
        const NEEDED: &str = "openssl is needed for the certificate of servers with TLS; install it, for example \
                              `apt-get install openssl`, or measure `--only ws`";
        if find("openssl").is_none() {
            return Err(WorkspaceError(NEEDED.to_owned()));
        }
        let made = Program::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "30", "-subj", "/CN=opamp load"])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-out")
            .arg(&self.certificate)
            .arg("-keyout")
            .arg(&self.key)
            .capture()?;
        match made.succeeded() {
            true => Ok(()),
            false => Err(WorkspaceError(format!("openssl req: {}\n{}", made.ending(), made.stderr))),
        }
    }
}

/// Those that can take part here, with one sentence for each that cannot.
#[must_use]
pub(crate) fn present(kinds: &[Kind]) -> (Vec<Kind>, Option<String>) {
    match Go::detect() {
        Go::Unusable(reason) if kinds.contains(&Kind::OpampGo) => {
            let others = kinds.iter().copied().filter(|kind| *kind != Kind::OpampGo).collect();
            (others, Some(format!("skipped: opamp-go, for {reason}; nothing is compared with it")))
        }
        _ => (kinds.to_vec(), None),
    }
}

fn copied(from: &Path, to: &Path) -> Result<(), WorkspaceError> {
    fs::copy(from, to)
        .map(|_| ())
        .map_err(|error| WorkspaceError(format!("cannot copy {}: {error}", from.display())))
}
