//! Packages: whose signatures count, where they go, and which programs put them to use.
//!
//! Which programs are run is in the configuration file alone; nothing a server says can name another (R-SEC-04, R-SEC-06).

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use opamp_client::packages::{
    DownloadSettings, Installer, InstallerSettings, OpenError, PackageAt, PackageHook, PackageKey, PlainFile,
    SignaturePolicy,
};
use opamp_client::{Rejected, TlsSource};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::config::{Config, ConfigError};

/// How much of what a program says about its failure is told on.
const WORDS_BYTES_MAX: usize = 1 << 10;
/// How long the directory of an agent that is just ending is waited for.
const RELEASE_WITHIN: Duration = Duration::from_secs(10);
/// How often it is tried meanwhile.
const RELEASE_POLL: Duration = Duration::from_millis(50);

impl Config {
    /// Whose packages are installed. Reads the key files.
    pub(crate) fn package_policy(&self) -> Result<SignaturePolicy, ConfigError> {
        const FILES: &str = "packages.public_key_files";
        if self.packages.allow_unsigned {
            return Ok(SignaturePolicy::insecure_accept_unsigned());
        }
        let mut keys = Vec::new();
        for file in &self.packages.public_key_files {
            let wrong = |why: &dyn std::fmt::Display| self.error(FILES, format!("{}: {why}", file.display()));
            let pem = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
            keys.push(PackageKey::from_pem(&pem).map_err(|error| wrong(&error))?);
        }
        SignaturePolicy::require(&rustls::crypto::ring::default_provider(), keys)
            .map_err(|error| self.error(FILES, error))
    }
}

/// Opens the directory of packages. An agent that ended just now may still be letting go of it.
pub(crate) async fn open(config: &Config, tls: Option<&TlsSource>) -> Result<Installer, ConfigError> {
    let since = tokio::time::Instant::now();
    loop {
        let (wanted, tls) = (config.clone(), tls.cloned());
        let opened = tokio::task::spawn_blocking(move || try_open(&wanted, tls)).await;
        match opened {
            Ok(Ok(Err(OpenError::InUse(_)))) if since.elapsed() < RELEASE_WITHIN => {
                tokio::time::sleep(RELEASE_POLL).await;
            }
            Ok(Ok(opened)) => return opened.map_err(|error| config.error("packages.directory", error)),
            Ok(Err(error)) => return Err(error),
            Err(error) => return Err(config.error("packages.directory", error)),
        }
    }
}

fn try_open(config: &Config, tls: Option<TlsSource>) -> Result<Result<Installer, OpenError>, ConfigError> {
    let packages = &config.packages;
    let timeout = packages.command_timeout;
    let settings = InstallerSettings {
        download: DownloadSettings {
            allow_plain_http: packages.allow_plain_http,
            file_bytes_max: packages.file_bytes_max,
            total_timeout: packages.download_timeout,
            ..DownloadSettings::default()
        },
        activate_timeout: timeout,
        check_timeout: timeout,
        ..InstallerSettings::default()
    };
    let mut file = PlainFile::new(&packages.file_name);
    if packages.executable {
        file = file.executable();
    }
    let mut builder = Installer::builder(&packages.directory, config.package_policy()?)
        .install(file)
        .settings(settings)
        .proxy(config.proxy()?);
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    if let Some(program) = Program::of(&packages.activate_command) {
        builder = builder.on_activate(program);
    }
    if let Some(program) = Program::of(&packages.health_command) {
        builder = builder.health_check(program);
    }
    if let Some(program) = Program::of(&packages.deactivate_command) {
        builder = builder.on_deactivate(program);
    }
    Ok(builder.open())
}

/// A program with arguments, from the configuration file.
struct Program(Arc<[String]>);

impl Program {
    fn of(command: &[String]) -> Option<Self> {
        (!command.is_empty()).then(|| Self(command.into()))
    }
}

impl PackageHook for Program {
    fn run(&self, package: PackageAt) -> futures::future::BoxFuture<'_, Result<(), Rejected>> {
        let command = Arc::clone(&self.0);
        Box::pin(async move { run(&command, &package).await })
    }
}

/// Runs a program until it ends. It gets to know the package from its environment, and nothing else of this one: there may be
/// secrets in it. Dropped, it is killed.
async fn run(command: &[String], package: &PackageAt) -> Result<(), Rejected> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let named = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let failed = |error: std::io::Error| Rejected::new(format!("{named} cannot be run: {error}"));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("PACKAGE_NAME", &package.name)
        .env("PACKAGE_VERSION", package.version.version())
        .env("PACKAGE_DIRECTORY", &package.directory)
        .env("PACKAGE_CURRENT", &package.current)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let errors = child.stderr.take();
    // A daemon that it leaves behind may hold the pipe: its end is not waited for.
    let said = tokio::spawn(async move {
        match errors {
            Some(pipe) => start_of(pipe).await,
            None => Vec::new(),
        }
    });
    let status = child.wait().await.map_err(failed)?;
    if status.success() {
        // Reading goes on: a daemon that the program has started would die of its next line if nobody did.
        return Ok(());
    }
    let said = tokio::time::timeout(Duration::from_secs(1), said).await;
    let said = said.ok().and_then(Result::ok).unwrap_or_default();
    let words = String::from_utf8_lossy(&said);
    let words = words.trim();
    Err(Rejected::new(format!(
        "{named} ended with {status}{}{words}",
        if words.is_empty() { "" } else { ": " }
    )))
}

/// Reads to the end and keeps the start.
async fn start_of(mut pipe: impl AsyncRead + Unpin) -> Vec<u8> {
    let (mut start, mut buffer) = (Vec::new(), [0; 4_096]);
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        let room = WORDS_BYTES_MAX - start.len();
        start.extend_from_slice(&buffer[..count.min(room)]);
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use opamp_client::ConfigHash;
    use opamp_client::packages::{PackageKind, PackageVersion};

    #[tokio::test]
    async fn a_daemon_that_a_program_leaves_behind_may_go_on_writing_errors() {
        let directory = std::env::temp_dir().join(format!("self-agent-daemon-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let package = PackageAt {
            name: "tool".into(),
            version: PackageVersion::new("1", ConfigHash::new("1")),
            kind: PackageKind::TopLevel,
            directory: directory.clone(),
            current: directory.clone(),
        };
        // The daemon writes when the program has ended, and then says that it lives.
        let daemon = "while [ ! -e \"$PACKAGE_DIRECTORY/ended\" ]; do sleep 0.01; done
            echo late >&2; echo later >&2; : > \"$PACKAGE_DIRECTORY/lives\"";
        let command = ["sh", "-c", &format!("({daemon}) & exit 0")].map(str::to_owned);
        run(&command, &package).await.unwrap();
        // Whatever was to be let go of is gone by then.
        tokio::time::sleep(Duration::from_millis(50)).await;
        std::fs::write(directory.join("ended"), "").unwrap();
        let mut lives = false;
        for _ in 0..500 {
            lives = lives || directory.join("lives").exists();
            if lives {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let _ = std::fs::remove_dir_all(&directory);
        assert!(lives, "it died of its first line");
    }
}
