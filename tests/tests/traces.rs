//! What is left when a store, a client or a test of either ends, in whatever way: nothing. And how
//! the store's program starts and ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plasma_core::{ObjectId, PlasmaClient};
use plasma_store::{Store, StoreError};
use tempfile::TempDir;
use tests::{StoreProcess, eventually, role, server_program, wait_for_line, within};

const LIMIT: Duration = Duration::from_secs(60);

/// A private place: folders for sockets, for memory and for temporary files.
struct World(TempDir);

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["sockets", "memory", "tmp"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.path("sockets/plasma.sock")
    }

    /// A program whose temporary files go here.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("TMPDIR", self.path("tmp"))
            .env("PLASMA_LOG", "warn")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn server(&self, args: &[&str]) -> Child {
        let mut command = self.command(server_program());
        command.args(["-m", "10000000", "-s"]).arg(self.socket());
        command.args(args).spawn().expect("the store starts")
    }

    /// This test again, as another process.
    fn role(&self, test: &str, role: &str) -> Child {
        let this = std::env::current_exe().expect("this program has a path");
        let mut command = self.command(&this);
        command
            .args([test, "--exact", "--nocapture"])
            .env("PLASMA_TEST_ROLE", role)
            .env("PLASMA_TEST_ARG", self.socket());
        command.spawn().expect("this test starts again")
    }

    /// Everything that has a name here, apart from the three folders.
    fn left(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder").flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
                if folder != self.0.path() {
                    found.insert(entry.path());
                }
            }
        }
        found
    }
}

fn shared_memory() -> BTreeSet<PathBuf> {
    let entries = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn listens(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

fn wait_until_it_listens(socket: &Path) {
    eventually("a store listens", || listens(socket));
}

fn end(mut child: Child, signal: Signal) -> Output {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it is there");
    drop(child.stdin.take());
    child.wait_with_output().expect("it is our child")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn client(socket: &Path) -> PlasmaClient {
    let builder = PlasmaClient::builder().retries(0);
    builder.connect(socket).expect("the store is there")
}

#[test]
fn nothing_is_left_whoever_is_killed() {
    const THIS: &str = "nothing_is_left_whoever_is_killed";
    if let Some((_, socket)) = role() {
        let client = client(&socket);
        let (id, large) = (ObjectId::rand(), 3 << 20);
        let writing = client.create(ObjectId::rand(), large, b"").unwrap();
        client
            .create_and_seal(id, &vec![1; large], b"meta")
            .unwrap();
        let held = client.get(id, 0).unwrap();
        let notifications = client.subscribe().unwrap();
        println!("ready");
        let _ = std::io::stdin().read_line(&mut String::new());
        return drop((writing, held, notifications));
    }
    within(LIMIT, || {
        let world = World::new();
        let shared = shared_memory();
        let memory = world.path("memory").display().to_string();
        for args in [&[][..], &["-d", &memory], &["-e", "hashtable://"]] {
            for store_first in [true, false] {
                let store = world.server(args);
                wait_until_it_listens(&world.socket());
                let mut user = world.role(THIS, "user");
                wait_for_line(&mut user, "ready");
                if store_first {
                    end(store, Signal::SIGKILL);
                    end(user, Signal::SIGKILL);
                } else {
                    end(user, Signal::SIGKILL);
                    end(store, Signal::SIGKILL);
                }
                assert_eq!(world.left(), [world.socket()].into());
            }
        }
        // The next one starts where the last was killed, and takes everything with it.
        let store = world.server(&[]);
        wait_until_it_listens(&world.socket());
        client(&world.socket()).list().unwrap();
        assert!(end(store, Signal::SIGTERM).status.success());
        assert_eq!(world.left(), BTreeSet::new());
        eventually("nothing new is in /dev/shm", || {
            shared_memory().is_subset(&shared)
        });
    });
}

#[test]
fn a_signal_ends_a_store_cleanly() {
    within(LIMIT, || {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let world = World::new();
            let store = world.server(&[]);
            wait_until_it_listens(&world.socket());
            let client = client(&world.socket());
            client
                .create_and_seal(ObjectId::rand(), b"data", b"")
                .unwrap();
            let waiting = client.clone();
            let waiter = std::thread::spawn(move || waiting.get(ObjectId::rand(), -1).is_err());
            let output = end(store, signal);
            assert_eq!(output.status.code(), Some(0), "{signal}");
            assert_eq!(text(&output.stdout), "");
            assert_eq!(world.left(), BTreeSet::new());
            assert!(client.list().is_err());
            assert!(waiter.join().unwrap());
        }
    });
}

#[test]
fn of_two_stores_that_start_at_once_one_serves() {
    within(LIMIT, || {
        let world = World::new();
        // A socket that nobody listens at, as a killed store leaves it.
        drop(UnixListener::bind(world.socket()).unwrap());
        for round in 0..20 {
            let mut stores = [world.server(&[]), world.server(&[])];
            let mut ended = None;
            eventually("one of them gives way", || {
                ended = stores
                    .iter_mut()
                    .position(|s| s.try_wait().unwrap().is_some());
                ended.is_some()
            });
            let [first, second] = stores;
            let (loser, mut winner) = match ended {
                Some(0) => (first, second),
                _ => (second, first),
            };
            let loser = loser.wait_with_output().unwrap();
            assert_eq!(loser.status.code(), Some(1));
            let error = text(&loser.stderr);
            assert!(error.contains("a store listens at"), "{error}");
            wait_until_it_listens(&world.socket());
            client(&world.socket()).list().unwrap();
            assert!(
                winner.try_wait().unwrap().is_none(),
                "round {round}: both gave way"
            );
            end(winner, Signal::SIGKILL);
            assert!(world.socket().exists());
        }
    });
}

#[test]
fn a_store_that_serves_is_never_displaced() {
    within(LIMIT, || {
        let world = World::new();
        let store = world.server(&[]);
        wait_until_it_listens(&world.socket());
        let client = client(&world.socket());
        let inode = || fs::metadata(world.socket()).unwrap().ino();
        let before = inode();
        let second = world.server(&[]).wait_with_output().unwrap();
        assert_eq!(second.status.code(), Some(1));
        assert!(text(&second.stderr).contains("already"));
        let inside = Store::builder().capacity(1000).socket(world.socket());
        assert!(matches!(
            inside.spawn(),
            Err(StoreError::SocketInUse { .. })
        ));
        assert_eq!(inode(), before);
        client.list().unwrap();
        assert!(end(store, Signal::SIGTERM).status.success());
    });
}

/// A store removes the name it made and no other: not even one that took its place.
#[test]
fn a_store_removes_only_its_own_socket() {
    within(LIMIT, || {
        let world = World::new();
        let store = world.server(&[]);
        wait_until_it_listens(&world.socket());
        fs::remove_file(world.socket()).unwrap();
        let other = UnixListener::bind(world.socket()).unwrap();
        assert!(end(store, Signal::SIGTERM).status.success());
        assert!(listens(&world.socket()));
        drop(other);
    });
}

#[test]
fn what_is_no_socket_is_left_alone() {
    within(LIMIT, || {
        let world = World::new();
        let path = world.socket();
        let treasure = world.path("sockets/treasure");
        fs::write(&treasure, "precious").unwrap();
        type Make = fn(&Path, &Path);
        let kinds: [Make; 5] = [
            |path, _| fs::write(path, "precious").unwrap(),
            |path, _| fs::create_dir(path).unwrap(),
            |path, treasure| std::os::unix::fs::symlink(treasure, path).unwrap(),
            |path, _| std::os::unix::fs::symlink("/nowhere", path).unwrap(),
            |path, _| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        ];
        for make in kinds {
            make(&path, &treasure);
            let before = fs::symlink_metadata(&path).unwrap();
            let output = world.server(&[]).wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            let error = text(&output.stderr);
            assert!(error.contains("is not a socket"), "{error}");
            assert!(error.contains(&path.display().to_string()), "{error}");
            let after = fs::symlink_metadata(&path).unwrap();
            assert_eq!(after.ino(), before.ino());
            assert_eq!(fs::read_to_string(&treasure).unwrap(), "precious");
            if after.is_dir() {
                fs::remove_dir(&path).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
        }
    });
}

#[test]
fn the_private_folder_of_a_killed_process_is_removed_by_the_next() {
    const THIS: &str = "the_private_folder_of_a_killed_process_is_removed_by_the_next";
    if role().is_some() {
        let store = Store::builder().capacity(1_000_000).spawn().unwrap();
        println!("{} is my socket", store.socket().display());
        let _ = std::io::stdin().read_line(&mut String::new());
        return;
    }
    within(LIMIT, || {
        let world = World::new();
        let start = || {
            let mut child = world.role(THIS, "embedding");
            let socket = PathBuf::from(wait_for_line(&mut child, " is my socket"));
            assert!(socket.starts_with(world.path("tmp")), "{socket:?}");
            (child, socket)
        };
        let folder = |socket: &Path| socket.parent().unwrap().to_owned();
        let (alive, alive_socket) = start();
        let (killed, killed_socket) = start();
        end(killed, Signal::SIGKILL);
        let mode = fs::metadata(folder(&alive_socket)).unwrap().mode();
        assert_eq!(
            mode & 0o777,
            0o700,
            "a private folder is for its owner alone"
        );
        let (mut next, next_socket) = start();
        assert!(!folder(&killed_socket).exists());
        client(&alive_socket).list().unwrap();
        client(&next_socket).list().unwrap();
        writeln!(next.stdin.take().unwrap(), "the end").unwrap();
        assert!(next.wait().unwrap().success());
        assert!(!folder(&next_socket).exists());
        end(alive, Signal::SIGKILL);
        assert_eq!(world.left().len(), 2);
    });
}

#[test]
fn a_live_store_keeps_a_folder_that_looks_private() {
    const THIS: &str = "a_live_store_keeps_a_folder_that_looks_private";
    if role().is_some() {
        let store = Store::builder().capacity(1_000_000).spawn().unwrap();
        println!("{} is my socket", store.socket().display());
        return;
    }
    within(LIMIT, || {
        let world = World::new();
        let folder = world.path("tmp").join("plasma-store-mine");
        fs::create_dir(&folder).unwrap();
        let socket = folder.join("plasma.sock");
        let _store = StoreProcess::start_at(server_program(), &socket, 1_000_000, &[]);
        let mut embedding = world.role(THIS, "embedding");
        wait_for_line(&mut embedding, " is my socket");
        assert!(embedding.wait().unwrap().success());
        client(&socket).list().unwrap();
    });
}

#[test]
fn a_folder_that_somebody_keeps_locked_is_an_error() {
    within(LIMIT, || {
        let world = World::new();
        let folder = fs::File::open(world.socket().parent().unwrap()).unwrap();
        let _lock = Flock::lock(folder, FlockArg::LockExclusive).unwrap();
        let error = Store::builder()
            .capacity(1_000_000)
            .socket(world.socket())
            .spawn()
            .unwrap_err();
        assert!(error.to_string().contains("locked"), "{error}");
    });
}

// -------------------------------------------------------------------------------------------------
// The command line

#[test]
fn options_may_be_written_in_every_usual_way() {
    within(LIMIT, || {
        let world = World::new();
        let socket = world.socket().display().to_string();
        let joined = |option: &str, value: &str| format!("{option}={value}");
        let forms: Vec<Vec<String>> = vec![
            vec!["-m".into(), "5000".into(), "-s".into(), socket.clone()],
            vec!["--m".into(), "5000".into(), "--s".into(), socket.clone()],
            vec![joined("-m", "5000"), joined("-s", &socket)],
            vec![
                joined("--s", &socket),
                joined("--m", "5000"),
                "-h=false".into(),
            ],
            vec![
                joined("-s", &socket),
                "-m".into(),
                "5000".into(),
                "-prefault".into(),
                "full".into(),
                "-max-clients=5".into(),
                "--stall-timeout=7".into(),
                "--mode".into(),
                "660".into(),
            ],
        ];
        for form in forms {
            let mut command = world.command(server_program());
            let store = command.args(&form).spawn().unwrap();
            let mut store = Some(store);
            eventually("it listens", || {
                if let Some(status) = store.as_mut().and_then(|s| s.try_wait().unwrap()) {
                    let output = store.take().unwrap().wait_with_output().unwrap();
                    panic!("{form:?}: {status}: {}", text(&output.stderr));
                }
                listens(&world.socket())
            });
            assert_eq!(client(&world.socket()).store_capacity(), 5000, "{form:?}");
            let mode = fs::metadata(world.socket()).unwrap().mode() & 0o777;
            let asked = form.contains(&"660".to_owned());
            assert_eq!(mode, if asked { 0o660 } else { 0o600 }, "{form:?}");
            let output = end(store.take().unwrap(), Signal::SIGTERM);
            assert_eq!(
                (output.status.code(), text(&output.stdout)),
                (Some(0), String::new())
            );
        }
    });
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = World::new().command(server_program()).args(args).output();
    let output = output.expect("the program starts");
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn help_and_version_are_printed() {
    within(LIMIT, || {
        for help in ["--help", "-help"] {
            let (status, out, err) = run(&[help]);
            assert_eq!((status, err.as_str()), (Some(0), ""), "{help}");
            for word in ["-m BYTES", "-s SOCKET", "-d DIR", "-h ", "-e ENDPOINT"] {
                assert!(out.contains(word), "{word}: {out}");
            }
        }
        for version in ["--version", "-version"] {
            let (status, out, err) = run(&[version]);
            assert_eq!((status, err.as_str()), (Some(0), ""), "{version}");
            let expected = format!("plasma-store-server {}\n", env!("CARGO_PKG_VERSION"));
            assert_eq!(out, expected);
        }
    });
}

#[test]
fn a_command_line_that_makes_no_sense_is_explained() {
    within(LIMIT, || {
        let wrong: [(&[&str], &[&str]); 11] = [
            (&[], &["-m BYTES"]),
            (&["-s", "/tmp/x"], &["-m BYTES"]),
            (&["-m", "1000"], &["-s SOCKET"]),
            (&["-m", "1000", "-s"], &["-s"]),
            (&["--frobnicate"], &["--frobnicate"]),
            (&["-x"], &["-x"]),
            (&["surplus"], &["surplus"]),
            (&["-m", "much"], &["much"]),
            (&["-m", "-5"], &["-5"]),
            (&["-m", "1e9"], &["1e9"]),
            (&["--prefault", "sometimes"], &["sometimes", "background"]),
        ];
        for (args, words) in wrong {
            let (status, out, err) = run(args);
            assert_eq!((status, out.as_str()), (Some(2), ""), "{args:?}");
            for word in words.iter().chain(&["plasma-store-server: ", "--help"]) {
                assert!(err.contains(word), "{args:?} without {word:?}: {err}");
            }
            assert_eq!(err.lines().count(), 1, "{err}");
        }
    });
}

/// What the program says of itself goes to standard error, and starts with what it serves.
#[test]
fn logs_go_to_standard_error() {
    within(LIMIT, || {
        let world = World::new();
        let mut command = world.command(server_program());
        command.env("PLASMA_LOG", "info").args(["-m", "1000", "-s"]);
        let mut store = command.arg(world.socket()).spawn().unwrap();
        wait_until_it_listens(&world.socket());
        let mut log = store.stderr.take().unwrap();
        assert_eq!(text(&end(store, Signal::SIGTERM).stdout), "");
        let mut logged = String::new();
        log.read_to_string(&mut logged).unwrap();
        assert!(
            logged.contains("serving") && logged.contains("1000"),
            "{logged}"
        );
    });
}
