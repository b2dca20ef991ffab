//! Child processes: signals, directories that go away, programs that are built once.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::failure::{Failure, Outcome};

/// The module of the Go programs. Its `go.mod` says against which release of opamp-go the tests run.
const GO_MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/opamp-go");

/// The variable that says another release, such as `v0.22.0`.
const OTHER_RELEASE: &str = "OPAMP_GO_RELEASE";

/// The module of the collector, and that of its supervisor.
const COLLECTOR_MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/collector");
const SUPERVISOR_MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/collector/supervisor");

/// The supervisor's program, which is built as it is published.
const SUPERVISOR: &str = "github.com/open-telemetry/opentelemetry-collector-contrib/cmd/opampsupervisor";

/// A signal that tests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Go on after `Stop`.
    Continue,
    /// End in order, as from a terminal.
    Interrupt,
    /// End at once.
    Kill,
    /// Freeze.
    Stop,
    /// End in order.
    Terminate,
}

/// Sends a signal to a child.
///
/// # Errors
///
/// The process is gone.
pub fn send(signal: Signal, child: &Child) -> Outcome {
    send_to(signal, child.id())
}

/// Sends a signal to the child of a child, whose id that told.
///
/// # Errors
///
/// The process is gone.
pub fn send_to(signal: Signal, pid: u32) -> Outcome {
    let name = match signal {
        Signal::Continue => "-CONT",
        Signal::Interrupt => "-INT",
        Signal::Kill => "-KILL",
        Signal::Stop => "-STOP",
        Signal::Terminate => "-TERM",
    };
    let pid = pid.to_string();
    let status = Command::new("kill").args([name, &pid]).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("kill {name} {pid}: no such process"))) }
}

/// A directory of one test, removed at its end.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// A new one.
    ///
    /// # Errors
    ///
    /// It cannot be created.
    pub fn new(name: &str) -> Outcome<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = env::temp_dir().join(format!("opamp-interop-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left behind in the temporary directory harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The reference server's program: the one in `REFERENCE_SERVER`, or built now.
///
/// # Errors
///
/// It does not build.
pub fn reference_server() -> Outcome<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&PROGRAM, || cargo_program("REFERENCE_SERVER", "reference-server"))
}

/// The self-agent's program: the one in `SELF_AGENT`, or built now.
///
/// # Errors
///
/// It does not build.
pub fn self_agent() -> Outcome<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&PROGRAM, || cargo_program("SELF_AGENT", "self-agent"))
}

/// The agent on the opamp-go client, built now; Go keeps what has not changed.
///
/// # Errors
///
/// It does not build.
pub fn go_agent() -> Outcome<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&PROGRAM, || go_program("agent"))
}

/// The server on the opamp-go server, built now; Go keeps what has not changed.
///
/// # Errors
///
/// It does not build.
pub fn go_server() -> Outcome<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&PROGRAM, || go_program("server"))
}

/// The OpenTelemetry Collector: the program in `OTEL_COLLECTOR`, or built now, which takes minutes the first time.
///
/// # Errors
///
/// It does not build.
pub fn collector() -> Outcome<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&PROGRAM, || foreign_program("OTEL_COLLECTOR", COLLECTOR_MODULE, "./otelcol", "otelcol-opamp"))
}

/// The collector's OpAMP supervisor: the program in `OPAMP_SUPERVISOR`, or built now.
///
/// # Errors
///
/// It does not build.
pub fn supervisor() -> Outcome<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    once(&PROGRAM, || foreign_program("OPAMP_SUPERVISOR", SUPERVISOR_MODULE, SUPERVISOR, "opampsupervisor"))
}

/// The program of a package that has the same name, unless a variable says where it is.
fn cargo_program(variable: &str, name: &str) -> Outcome<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Ok(path.into());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--package", name, "--bin", name, "--message-format", "json"]);
    let messages = output_of(build.current_dir(env!("CARGO_MANIFEST_DIR")).stderr(Stdio::inherit()))?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .ok_or_else(|| Failure::new(format!("cargo build made no {name}")))
}

/// A package of a Go module, unless a variable says where its program is.
fn foreign_program(variable: &str, module: &str, package: &str, name: &str) -> Outcome<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Ok(path.into());
    }
    let (path, new) = beside_this_program(name)?;
    output_of(go(module, &["build", "-trimpath", "-o"]).arg(&new).arg(package))?;
    fs::rename(&new, &path)?;
    Ok(path)
}

/// Where a program goes, and where it is built: one that runs cannot be written, and that of another test binary may
/// run. It is replaced as a whole.
fn beside_this_program(name: &str) -> Outcome<(PathBuf, PathBuf)> {
    let own = env::current_exe()?;
    let directory = own.parent().ok_or_else(|| Failure::new("this program is nowhere"))?;
    Ok((directory.join(name), directory.join(format!("{name}.{}", std::process::id()))))
}

fn go_program(name: &str) -> Outcome<PathBuf> {
    let (path, new) = beside_this_program(&format!("opamp-go-{name}"))?;
    let mut build = go(GO_MODULE, &["build", "-o"]);
    build.arg(&new);
    let other = env::var(OTHER_RELEASE).ok().map(|release| module_with(&release, &new)).transpose()?;
    if let Some(module) = &other {
        build.arg("-mod=mod").arg("-modfile").arg(module);
    }
    output_of(build.arg(format!("./{name}")))?;
    fs::rename(&new, &path)?;
    if let Some(module) = other {
        fs::remove_file(module.with_extension("sum"))?;
        fs::remove_file(module)?;
    }
    Ok(path)
}

/// The description of the Go module, but with another release of opamp-go.
fn module_with(release: &str, program: &Path) -> Outcome<PathBuf> {
    let module = program.with_extension(format!("{}.mod", std::process::id()));
    let source = Path::new(GO_MODULE);
    fs::copy(source.join("go.mod"), &module)?;
    fs::copy(source.join("go.sum"), module.with_extension("sum"))?;
    let wanted = format!("-require=github.com/open-telemetry/opamp-go@{release}");
    output_of(go(GO_MODULE, &["mod", "edit", &wanted]).arg(&module))?;
    Ok(module)
}

fn go(module: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("go");
    command.args(arguments).env("GOWORK", "off").current_dir(module).stderr(Stdio::inherit());
    command
}

fn once(
    cell: &'static OnceLock<Result<PathBuf, String>>,
    build: impl FnOnce() -> Outcome<PathBuf>,
) -> Outcome<&'static Path> {
    match cell.get_or_init(|| build().map_err(|failure| format!("{failure:?}"))) {
        Ok(path) => Ok(path),
        Err(text) => Err(Failure::new(text)),
    }
}

fn output_of(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(Failure::new(format!("{command:?}: {}", output.status)))
    }
}
