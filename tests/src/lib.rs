//! What the tests share: stores in processes of their own, and a watchdog.
//!
//! Everything here panics where something is amiss: that is how a test fails.

pub mod fuzzed;
pub mod raw;

use std::collections::HashSet;
use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plasma_core::PlasmaClient;
use tempfile::TempDir;

/// How many times as long everything may take where something watches the store.
const WATCHED_SLOWNESS: u32 = 10;

/// What a store's log is called in its folder.
const LOG_NAME: &str = "log";

/// Names a program to start as the store: one with a sanitizer in it, or one that runs the store
/// under a tool that watches it.
const WATCHED_SERVER_VARIABLE: &str = "PLASMA_TEST_WATCHED_SERVER";

/// The store's program, built when it is first asked for.
pub fn server_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| match std::env::var_os(WATCHED_SERVER_VARIABLE) {
        Some(program) => program.into(),
        None => build_program("plasma-store", "plasma-store-server"),
    })
}

/// Whether something watches the store, which takes time, and memory in the store's process, and has
/// to say what it found when the store ends.
fn is_watched() -> bool {
    std::env::var_os(WATCHED_SERVER_VARIABLE).is_some()
}

/// How long anything may take that should take no time.
pub fn patience() -> Duration {
    allowing_for_watchers(Duration::from_secs(20))
}

/// As much longer as something that watches takes.
fn allowing_for_watchers(limit: Duration) -> Duration {
    if is_watched() {
        limit * WATCHED_SLOWNESS
    } else {
        limit
    }
}

/// One of the example programs, built if it has to be.
pub fn example_program(name: &str) -> Command {
    Command::new(build_program("examples", name))
}

/// Builds a program of this workspace, in the profile that this test was built in.
fn build_program(package: &str, program: &str) -> PathBuf {
    // This test is target/PROFILE/deps/NAME; the program belongs two folders up.
    let test = std::env::current_exe().expect("this program has a path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("tests lie in a target folder");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    build.args(["build", "--quiet", "--package", package, "--bin", program]);
    build
        .arg("--target-dir")
        .arg(profile.parent().expect("a target folder"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let status = build.status().expect("cargo runs");
    assert!(status.success(), "{program} does not build");
    profile.join(program)
}

/// A store in a process of its own, this project's or another. Killed on drop, or where something
/// watches it, told to end.
#[derive(Debug)]
pub struct StoreProcess {
    child: Child,
    socket: PathBuf,
    /// Holds the socket, unless the caller named one.
    folder: Option<TempDir>,
}

impl StoreProcess {
    /// Starts this project's store with `capacity` bytes and further arguments.
    pub fn start(capacity: u64, args: &[&str]) -> Self {
        Self::start_program(server_program(), capacity, args)
    }

    /// Starts any store with Arrow's command line, and waits until it listens.
    pub fn start_program(program: &Path, capacity: u64, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the socket");
        let socket = folder.path().join("plasma.sock");
        let mut process = Self::start_at(program, &socket, capacity, args);
        process.folder = Some(folder);
        process
    }

    /// Starts this project's store as it is without anything in the environment, in a folder that
    /// every user can reach; what it logs is kept for [`log`](Self::log).
    pub fn start_logged(capacity: u64, args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the socket");
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))
            .expect("a folder takes permissions");
        let log = File::create(folder.path().join(LOG_NAME)).expect("a file for the log");
        let socket = folder.path().join("plasma.sock");
        let mut command = Command::new(server_program());
        command.env_remove("PLASMA_LOG").stderr(log);
        let mut process = Self::start_command(command, &socket, capacity, args);
        process.folder = Some(folder);
        process
    }

    /// What a store has logged so far that was started for that.
    pub fn log(&self) -> String {
        let folder = self.folder.as_ref().expect("its log is kept");
        std::fs::read_to_string(folder.path().join(LOG_NAME)).expect("a log is text")
    }

    /// The same as [`start_program`](Self::start_program) at a socket of the caller's choice.
    pub fn start_at(program: &Path, socket: &Path, capacity: u64, args: &[&str]) -> Self {
        // What hostile clients are told off for would drown everything else.
        let log = std::env::var_os("PLASMA_LOG").unwrap_or("error".into());
        let mut command = Command::new(program);
        command.env("PLASMA_LOG", log);
        Self::start_command(command, socket, capacity, args)
    }

    fn start_command(mut command: Command, socket: &Path, capacity: u64, args: &[&str]) -> Self {
        let child = command
            .args(["-m", &capacity.to_string(), "-s"])
            .arg(socket)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the store starts");
        let mut process = Self {
            child,
            socket: socket.to_owned(),
            folder: None,
        };
        process.wait_until_it_listens();
        process
    }

    fn wait_until_it_listens(&mut self) {
        let socket = self.socket.clone();
        eventually("the store listens", || {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("the store ended before it served: {status}");
            }
            let Ok(mut connection) = UnixStream::connect(&socket) else {
                return false;
            };
            // Whoever counts the store's descriptors must not count this. It may be closed already.
            let _ = connection.set_read_timeout(Some(patience()));
            let _ = connection.shutdown(Shutdown::Write);
            let _ = connection.read(&mut [0]);
            true
        });
    }

    /// The socket it listens at.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// A new connection to it.
    pub fn client(&self) -> PlasmaClient {
        let builder = PlasmaClient::builder().retries(0);
        builder
            .connect(&self.socket)
            .expect("the store accepts a client")
    }

    /// A client that asks for everything through the socket, as Arrow's do.
    pub fn socket_client(&self) -> PlasmaClient {
        let builder = PlasmaClient::builder().retries(0).shared_memory(false);
        builder
            .connect(&self.socket)
            .expect("the store accepts a client")
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the store is there to be signalled");
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the store ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// How many descriptors it has open. Where something watches the store, those are left out that
    /// this may have opened: pipes, and files with names.
    pub fn descriptors(&self) -> usize {
        let may_be_the_watchers = |target: &str| {
            target.starts_with("pipe:") || target.starts_with('/') && !target.starts_with("/memfd:")
        };
        let open = self.open_descriptors();
        open.filter(|target| !is_watched() || !may_be_the_watchers(target))
            .count()
    }

    /// How many sockets it has at its path: the listener, and one for each connection.
    pub fn sockets(&self) -> usize {
        let known = std::fs::read_to_string(format!("/proc/{}/net/unix", self.pid()));
        let known = known.expect("the kernel's list of sockets");
        let path = self.socket().to_string_lossy();
        let at_path: HashSet<_> = known
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields.get(7) == Some(&&*path))
            .filter_map(|fields| Some(format!("socket:[{}]", fields.get(6)?)))
            .collect();
        let open = self.open_descriptors();
        open.filter(|target| at_path.contains(target)).count()
    }

    /// What its descriptors are, as the kernel says.
    fn open_descriptors(&self) -> impl Iterator<Item = String> {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.pid()));
        let descriptors = descriptors.expect("the store's descriptors").flatten();
        // One that is closed meanwhile is not there any more.
        let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        targets.map(|target| target.to_string_lossy().into_owned())
    }

    /// How many mappings it has. 0 where something watches the store, which maps as it likes.
    pub fn mappings(&self) -> usize {
        if is_watched() {
            return 0;
        }
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid()));
        maps.expect("the store's mappings").lines().count()
    }

    /// Bytes of memory that are behind the arena, as the kernel counts them.
    pub fn arena_bytes(&self) -> u64 {
        let descriptors = format!("/proc/{}/fd", self.pid());
        let mut most = 0;
        for entry in std::fs::read_dir(descriptors)
            .expect("the store's descriptors")
            .flatten()
        {
            let Ok(target) = std::fs::read_link(entry.path()) else {
                continue;
            };
            if target.to_string_lossy().contains("plasma-arena")
                && let Ok(metadata) = std::fs::metadata(entry.path())
            {
                use std::os::unix::fs::MetadataExt;
                most = most.max(metadata.blocks() * 512);
            }
        }
        most
    }

    /// Bytes of its own that the process has in memory: not the arena. 0 where something watches the
    /// store, as what that takes says nothing of the store.
    pub fn private_bytes(&self) -> u64 {
        if is_watched() {
            return 0;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the store's status");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok())
            .expect("a size")
            * 1024
    }
}

/// The processor time that a process has used, in ticks of the kernel's clock (100 a second).
pub fn processor_ticks(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process is there");
    // The name, in parentheses, may hold anything; time used is the 12th and 13th field after it.
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let times = fields.split_ascii_whitespace().skip(11).take(2);
    times
        .map(|ticks| ticks.parse::<u64>().expect("a number"))
        .sum()
}

/// A number out of the store's debug string.
pub fn debug_number(client: &PlasmaClient, name: &str) -> u64 {
    let text = client.debug_string().expect("the store answers");
    let found = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let number = found.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no {name:?} in {text}"))
}

impl Drop for StoreProcess {
    fn drop(&mut self) {
        if is_watched() && matches!(self.child.try_wait(), Ok(None)) {
            let end = Instant::now() + patience();
            // It may be stopped.
            for signal in [Signal::SIGTERM, Signal::SIGCONT] {
                let _ = kill(self.pid(), signal);
            }
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
        }
        // It may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks again and again, for as long as patience lasts, until something outside this process has
/// happened that tells nobody.
pub fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + patience();
    while !happened() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a test that may hang on a thread of its own, and fails it after `limit`.
pub fn within<T: Send + 'static>(limit: Duration, test: impl FnOnce() -> T + Send + 'static) -> T {
    // The limit is the test's alone: where nothing is built yet the compiler may take longer.
    server_program();
    let limit = allowing_for_watchers(limit);
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        let result = test();
        // Nobody listens any more if the limit has passed.
        let _ = done.send(());
        result
    });
    if wait.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        panic!("it hangs: not done after {limit:?}");
    }
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Starts this test program again as another process, with `name` for its role; the test function
/// `test` runs there and finds the role with [`role`].
pub fn in_another_process(test: &str, name: &str, arg: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program has a path"))
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .env("PLASMA_TEST_ROLE", name)
        .env("PLASMA_TEST_ARG", arg)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test starts again")
}

/// The role that [`in_another_process`] gave this process, with its argument.
pub fn role() -> Option<(String, PathBuf)> {
    let name = std::env::var("PLASMA_TEST_ROLE").ok()?;
    Some((name, std::env::var_os("PLASMA_TEST_ARG")?.into()))
}

/// Reads a process's output until a line ends with this; what stands before it on that line.
pub fn wait_for_line(child: &mut Child, wanted: &str) -> String {
    let output = child.stdout.as_mut().expect("its output is piped");
    for line in BufReader::new(output).lines() {
        let line = line.expect("its output is text");
        if let Some(before) = line.trim_end().strip_suffix(wanted) {
            return before.to_owned();
        }
    }
    panic!("the process ended without saying {wanted:?}");
}

/// The programs in the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
