//! What whoever runs a store relies on: who may connect, what clients may ask for, what the log and
//! the metrics say.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};
use plasma_core::protocol::message::{NewObject, Reply, Request};
use plasma_core::shm::{self, Offer};
use plasma_core::transport::wait_ready;
use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use plasma_store::{Store, StoreError};
use tempfile::TempDir;
use tests::raw::{RawClient, message};
use tests::{
    StoreProcess, eventually, in_another_process, patience, processor_ticks, role, server_program,
    wait_for_line, within,
};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 16 * MIB;

fn id(n: u32) -> ObjectId {
    ObjectId::from_name(&n.to_string())
}

fn ids(count: u32) -> Vec<ObjectId> {
    (0..count).map(id).collect()
}

fn connect(socket: &Path) -> Result<PlasmaClient, PlasmaError> {
    PlasmaClient::builder().retries(0).connect(socket)
}

/// The one line that a store has logged, with all these words in it.
fn the_one_line(store: &StoreProcess, words: &[&str]) {
    eventually("the store logs what it did", || {
        let log = store.log();
        words.iter().all(|word| log.contains(word))
    });
    let log = store.log();
    assert_eq!(log.lines().count(), 1, "{log}");
}

/// What a line about a client of this very process says of it.
fn who() -> [String; 2] {
    [
        format!("pid={}", std::process::id()),
        format!("uid={}", geteuid()),
    ]
}

/// The same of one that went beyond the limit that `option` sets.
fn the_one_line_about(store: &StoreProcess, event: &str, option: &str) {
    let [pid, uid] = who();
    the_one_line(store, &["WARN", event, option, &pid, &uid]);
}

// -------------------------------------------------------------------------------------------------
// Who may connect

/// Whether this test can be another user for a while; where not, it says that it is left out.
fn can_be_others(test: &str) -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it takes root to be another user");
    }
    root
}

/// Becomes another user for good, in no group but this.
fn become_user(uid: u32, gid: u32) {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).expect("root may leave its groups");
    setresgid(gid, gid, gid).expect("root may change its group");
    setresuid(uid, uid, uid).expect("root may become anybody");
}

/// Connects as another user, from a process of its own: whether it was served, or what became of
/// it.
fn knock(test: &str, socket: &Path, uid: u32, gid: u32) -> String {
    let mut child = in_another_process(test, &format!("{uid} {gid}"), socket);
    let answer = wait_for_line(&mut child, " it is");
    assert!(child.wait().expect("it is our child").success());
    answer
}

/// What the process does that [`knock`] starts. A test that knocks calls this first.
fn knocking() -> bool {
    let Some((role, socket)) = role() else {
        return false;
    };
    let (uid, gid) = role.split_once(' ').expect("a user and a group");
    become_user(
        uid.parse().expect("a number"),
        gid.parse().expect("a number"),
    );
    let answer = match connect(&socket) {
        Ok(client) if client.list().is_ok() => "served".to_owned(),
        Err(PlasmaError::Disconnected) => "closed".to_owned(),
        Err(error) => error.to_string().replace('\n', " "),
        Ok(_) => "cut off".to_owned(),
    };
    println!("\n{answer} it is");
    true
}

const ANNE: u32 = 54_321;
const BERT: u32 = 54_322;

fn mode_of(socket: &Path) -> u32 {
    let metadata = fs::symlink_metadata(socket).expect("the socket is there");
    metadata.permissions().mode() & 0o777
}

#[test]
fn a_socket_is_its_owners_alone_unless_told() {
    within(LIMIT, || {
        let group = getegid().to_string();
        let expected: [(&[&str], u32); 6] = [
            (&[], 0o600),
            (&["--group", &group], 0o660),
            (&["--group", &group, "--mode", "600"], 0o600),
            (&["--mode", "660"], 0o660),
            (&["--allow-uid", "54321"], 0o666),
            (&["--mode", "620", "--allow-uid", "54321"], 0o620),
        ];
        for (args, mode) in expected {
            let store = StoreProcess::start_logged(1000, args);
            assert_eq!(mode_of(store.socket()), mode, "{args:?}");
            // Whatever is listed, whoever started it is let in.
            store.client().list().expect("the owner is served");
        }
    });
}

#[test]
fn nobody_but_the_owner_may_connect_unless_told() {
    let test = "nobody_but_the_owner_may_connect_unless_told";
    if knocking() || !can_be_others(test) {
        return;
    }
    within(LIMIT, move || {
        let store = StoreProcess::start_logged(1000, &[]);
        let answer = knock(test, store.socket(), ANNE, ANNE);
        assert!(answer.contains("ermission denied"), "{answer}");
        assert!(answer.contains("--allow-uid"), "{answer}");
        assert_eq!(store.log(), "", "that was the kernel's doing");
        // Where somebody has opened the socket since, the store looks who it is.
        fs::set_permissions(store.socket(), Permissions::from_mode(0o666)).expect("it is ours");
        assert_eq!(knock(test, store.socket(), ANNE, ANNE), "closed");
        the_one_line(
            &store,
            &[
                "WARN",
                "refused a client",
                "uid=54321",
                "pid=",
                "--allow-uid",
            ],
        );
        store.client().list().expect("the owner is served");
    });
}

#[test]
fn those_who_are_listed_may_connect_and_nobody_else() {
    let test = "those_who_are_listed_may_connect_and_nobody_else";
    if knocking() || !can_be_others(test) {
        return;
    }
    within(LIMIT, move || {
        let args = ["--allow-uid", "54321", "--allow-uid=54323"];
        let store = StoreProcess::start_logged(1000, &args);
        assert_eq!(knock(test, store.socket(), ANNE, ANNE), "served");
        assert_eq!(knock(test, store.socket(), 54_323, 1), "served");
        assert_eq!(store.log(), "");
        let before = store.descriptors();
        assert_eq!(knock(test, store.socket(), BERT, ANNE), "closed");
        let words = [
            "WARN",
            "refused a client",
            "uid=54322",
            "pid=",
            "--allow-uid",
        ];
        the_one_line(&store, &words);
        // A connection of those before may have been open still, so one would not be noticed.
        for _ in 0..5 {
            assert_eq!(knock(test, store.socket(), BERT, ANNE), "closed");
        }
        eventually("refused connections are closed", || {
            store.descriptors() <= before
        });
        eventually("each is in the log", || store.log().lines().count() == 6);
    });
}

#[test]
fn permissions_and_a_group_say_who_may_connect() {
    let test = "permissions_and_a_group_say_who_may_connect";
    if knocking() || !can_be_others(test) {
        return;
    }
    within(LIMIT, move || {
        let group = ["--mode", "660", "--group", "54400"];
        for args in [&group[..], &group[2..]] {
            let store = StoreProcess::start_logged(1000, args);
            assert_eq!(knock(test, store.socket(), ANNE, 54_400), "served");
            let answer = knock(test, store.socket(), BERT, BERT);
            assert!(answer.contains("ermission denied"), "{answer}");
        }
        // Both have to let a client pass.
        let both = [&group[..], &["--allow-uid", "54321"]].concat();
        let store = StoreProcess::start_logged(1000, &both);
        assert_eq!(knock(test, store.socket(), ANNE, 54_400), "served");
        assert_eq!(knock(test, store.socket(), BERT, 54_400), "closed");
        let answer = knock(test, store.socket(), ANNE, ANNE);
        assert!(answer.contains("ermission denied"), "{answer}");
        let everyone = StoreProcess::start_logged(1000, &["--mode", "666"]);
        assert_eq!(knock(test, everyone.socket(), BERT, BERT), "served");
    });
}

/// A store of an ordinary user, in a program of that user.
#[test]
fn a_list_keeps_out_even_root() {
    let test = "a_list_keeps_out_even_root";
    if let Some((_, folder)) = role().filter(|(role, _)| role == "serve") {
        become_user(ANNE, ANNE);
        let socket = folder.join("plasma.sock");
        let builder = Store::builder().capacity(1000).socket(socket);
        let _store = builder.allow_uid(BERT).spawn().expect("the store starts");
        println!("\nserving it is");
        // Until whoever started this has seen enough.
        let _ = io::stdin().read(&mut [0]);
        return;
    }
    if knocking() || !can_be_others(test) {
        return;
    }
    within(LIMIT, move || {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
        chown(folder.path(), Some(ANNE), Some(ANNE)).expect("root may give it away");
        let mut store = in_another_process(test, "serve", folder.path());
        assert_eq!(wait_for_line(&mut store, " it is"), "serving");
        let socket = folder.path().join("plasma.sock");
        let metadata = fs::symlink_metadata(&socket).expect("the socket is there");
        assert_eq!(metadata.uid(), ANNE);
        assert_eq!(knock(test, &socket, ANNE, ANNE), "served");
        assert_eq!(knock(test, &socket, BERT, BERT), "served");
        assert_eq!(knock(test, &socket, 0, 0), "closed");
        drop(store.stdin.take());
        assert!(store.wait().expect("it is our child").success());
    });
}

/// Descriptors that a client is sent when it connects: the arena's, and what is shared beside it.
const SENT_TO_EACH: u64 = 1 + Offer::DESCRIPTORS as u64;

/// Clients that read nothing.
const SILENT: u64 = 43;

/// Descriptors that the store may have open, and its user on their way. The kernel takes one more, so
/// those are just what the silent clients are sent.
const MOST_DESCRIPTORS: u64 = SILENT * SENT_TO_EACH - 1;

/// A store of a user of whom the kernel asks what it does not ask of root; each test has its own.
struct UsersStore {
    process: Child,
    socket: PathBuf,
    _folder: TempDir,
}

impl UsersStore {
    /// Whether this process is the one that the store is to run in; then it has run.
    fn has_served() -> bool {
        let Some((user, folder)) = role() else {
            return false;
        };
        let user = user.parse().expect("a number");
        become_user(user, user);
        setrlimit(Resource::RLIMIT_NOFILE, MOST_DESCRIPTORS, MOST_DESCRIPTORS)
            .expect("it may be lowered");
        let builder = Store::builder().capacity(CAPACITY).allow_uid(0);
        let builder = builder.socket(folder.join("plasma.sock"));
        let _store = builder.spawn().expect("the store starts");
        println!("\nserving it is");
        // Until whoever started this has seen enough.
        let _ = io::stdin().read(&mut [0]);
        true
    }

    fn start(test: &str, user: u32) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
        chown(folder.path(), Some(user), Some(user)).expect("root may give it away");
        let mut process = in_another_process(test, &user.to_string(), folder.path());
        assert_eq!(wait_for_line(&mut process, " it is"), "serving");
        Self {
            process,
            socket: folder.path().join("plasma.sock"),
            _folder: folder,
        }
    }

    /// Clients that connect and read nothing of what they have been sent.
    fn silent_clients(&self) -> Vec<RawClient> {
        let silent = (0..SILENT).map(|_| {
            let client = RawClient::connect(&self.socket);
            client.send(&CONNECT);
            assert!(something_comes(&client, patience()));
            client
        });
        silent.collect()
    }

    fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().expect("it is our child").success());
    }
}

/// Whether a client can read something within a time.
fn something_comes(client: &RawClient, time: Duration) -> bool {
    let ready = wait_ready(client.socket().as_fd(), PollFlags::POLLIN, Some(time));
    ready.expect("a socket can be waited for")
}

const CONNECT: Request<'_> = Request::Connect {
    capabilities: shm::CAPABILITY,
};

/// What a client has been sent and does not read counts for the user whose store it is.
#[test]
fn clients_that_take_no_descriptors_keep_nobody_out_for_good() {
    let test = "clients_that_take_no_descriptors_keep_nobody_out_for_good";
    if UsersStore::has_served() || !can_be_others(test) {
        return;
    }
    within(LIMIT, move || {
        let store = UsersStore::start(test, 54_331);
        let silent = store.silent_clients();
        let mut late = RawClient::connect(&store.socket);
        let reply = late.call(&CONNECT);
        assert!(matches!(reply, Reply::Connect { offer: Some(_), .. }));
        assert!(!something_comes(&late, Duration::from_millis(50)));
        drop(silent);
        for _ in 0..SENT_TO_EACH {
            late.descriptor();
        }
        let client = connect(&store.socket).expect("there is room");
        assert!(client.list().is_ok());
        store.end();
    });
}

/// A client reads what was in the way of its descriptors, and now these are.
#[test]
fn who_waits_for_descriptors_of_others_takes_no_time() {
    let test = "who_waits_for_descriptors_of_others_takes_no_time";
    if UsersStore::has_served() || !can_be_others(test) {
        return;
    }
    within(LIMIT, move || {
        let store = UsersStore::start(test, 54_332);
        let client = connect(&store.socket).expect("it is the first");
        // So many that four lists of them are more than a socket takes, and the store serves on.
        for id in ids(800) {
            client.create_and_seal(id, b"", b"").expect("there is room");
        }
        let mut late = RawClient::connect(&store.socket);
        let lists = 4;
        for _ in 0..lists {
            late.send(&Request::List);
        }
        late.send(&CONNECT);
        assert_eq!(client.list().expect("the store answers").len(), 800);
        let silent = store.silent_clients();
        assert_eq!(client.list().expect("the store answers").len(), 800);
        for _ in 0..lists {
            late.reply();
        }
        let reply = late.reply();
        assert!(matches!(reply, Reply::Connect { offer: Some(_), .. }));
        let pid = Pid::from_raw(store.process.id().cast_signed());
        let before = processor_ticks(pid);
        assert!(!something_comes(&late, Duration::from_secs(1)));
        let taken = processor_ticks(pid) - before;
        assert!(taken < 10, "{taken} of 100 ticks");
        drop(silent);
        for _ in 0..SENT_TO_EACH {
            late.descriptor();
        }
        store.end();
    });
}

#[test]
fn a_get_that_may_not_wait_says_so() {
    within(LIMIT, || {
        let store = StoreProcess::start_logged(CAPACITY, &["--max-clients", "1"]);
        let builder = PlasmaClient::builder().retries(0);
        for reconnect in [false, true] {
            let builder = builder.clone().reconnect(reconnect);
            let client = builder.connect(store.socket()).expect("it is the first");
            let put = client.create_and_seal(id(1), b"there", b"");
            put.expect("there is room");
            let refused = client.get(id(2), 100).map(|_| ());
            let refused = refused.expect_err("it cannot wait");
            assert!(!refused.should_reconnect(), "{refused}");
            assert!(refused.to_string().contains("--max-clients"), "{refused}");
            // The client goes on.
            let found = client.get(id(1), 100).expect("the store answers");
            assert_eq!(found.expect("it is there").data(), b"there");
            client.delete(&id(1)).expect("the store answers");
            drop(client);
            eventually("it has gone", || store.sockets() == 1);
        }
    });
}

// -------------------------------------------------------------------------------------------------
// The log

#[test]
fn a_store_that_has_nothing_to_complain_of_logs_nothing() {
    within(LIMIT, || {
        let mut store = StoreProcess::start_logged(CAPACITY, &[]);
        let client = store.client();
        client
            .create_and_seal(id(1), b"data", b"")
            .expect("there is room");
        drop(client);
        store.signal(Signal::SIGTERM);
        assert!(store.wait().success());
        assert_eq!(store.log(), "");
    });
}

#[test]
fn a_log_tells_who_comes_and_goes_if_asked() {
    within(LIMIT, || {
        let store = StoreProcess::start_logged(CAPACITY, &["--log", "info"]);
        drop(store.client());
        eventually("the log tells of a client", || {
            let log = store.log();
            let [pid, uid] = who();
            let connected = |line: &str| {
                let words = ["INFO", " connected", &pid, &uid, "gid="];
                words.iter().all(|word| line.contains(word))
            };
            log.lines().any(connected) && log.contains("disconnected")
        });
        assert!(store.log().contains("serving"));
        // What is asked for on the command line counts, whatever the environment says.
        let quiet = [("off", "debug"), ("error", "trace"), ("warn", "info")];
        for (level, environment) in quiet {
            let folder = tempfile::tempdir().expect("a folder");
            let log = fs::File::create(folder.path().join("log")).expect("a file");
            let mut child = Command::new(server_program())
                .env("PLASMA_LOG", environment)
                .args(["-m", "1000", "--log", level, "-s"])
                .arg(folder.path().join("socket"))
                .stderr(log)
                .spawn()
                .expect("the store starts");
            eventually("it serves", || {
                connect(&folder.path().join("socket")).is_ok()
            });
            let pid = Pid::from_raw(child.id().cast_signed());
            nix::sys::signal::kill(pid, Signal::SIGTERM).expect("it is there");
            assert!(child.wait().expect("it is our child").success());
            let logged = fs::read_to_string(folder.path().join("log")).expect("a log is text");
            assert_eq!(logged, "", "--log {level}");
        }
    });
}

/// Whoever is cut off is told of in one line: who it was, and why.
#[test]
fn who_sends_nonsense_is_logged_once() {
    within(LIMIT, || {
        let store = StoreProcess::start_logged(CAPACITY, &[]);
        let client = RawClient::connect(store.socket());
        client.send(&Request::SetOptions {
            client_name: "mallory".into(),
            quota_bytes: 0,
        });
        client.send_bytes(&[0xff; 24]).expect("it is listened to");
        client.wait_until_cut_off();
        let [pid, uid] = who();
        let words = ["WARN", "cut off a client", "mallory", "version", &pid, &uid];
        the_one_line(&store, &words);
    });
}

/// A log that nobody takes away, while clients give cause for many lines, keeps nobody waiting.
#[test]
fn a_log_that_nobody_reads_holds_up_nobody() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let mut child = Command::new(server_program())
            .args(["-m", "1000", "--log", "warn", "-s"])
            .arg(&socket)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the store starts");
        eventually("it serves", || connect(&socket).is_ok());
        let make_it_log = |times: usize| {
            for _ in 0..times {
                let client = RawClient::connect(&socket);
                client.send_bytes(&[7; 24]).expect("it is listened to");
                client.wait_until_cut_off();
            }
            let client = connect(&socket).expect("it serves");
            client.list().expect("it answers");
        };
        // A pipe holds 64 KiB.
        make_it_log(2000);
        let mut unread = child.stderr.take().expect("it is piped");
        let mut start = [0; 4000];
        unread.read_exact(&mut start).expect("there are lines");
        assert!(String::from_utf8_lossy(&start).contains("cut off a client"));
        drop(unread);
        make_it_log(200);
        let pid = Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, Signal::SIGTERM).expect("it is there");
        assert!(child.wait().expect("it is our child").success());
    });
}

// -------------------------------------------------------------------------------------------------
// Limits

const LIMITS: [&str; 9] = [
    "--max-clients",
    "--max-subscriptions",
    "--max-objects",
    "--max-ids",
    "--max-request-bytes",
    "--max-unfinished-bytes",
    "--max-unread-bytes",
    "--max-waiting-ids",
    "--stall-timeout",
];

/// A store with a limit, which a client then goes beyond; beside it, a client is served throughout.
fn beyond_a_limit(
    option: &'static str,
    value: &'static str,
    deed: impl FnOnce(&StoreProcess, &PlasmaClient) + Send + 'static,
) {
    assert!(LIMITS.contains(&option));
    within(LIMIT, move || {
        let store = StoreProcess::start_logged(CAPACITY, &[option, value]);
        let other = store.client();
        other
            .create_and_seal(ObjectId::from_name("other"), b"mine", b"")
            .expect("there is room");
        deed(&store, &other);
        let found = other.get(ObjectId::from_name("other"), 0);
        let found = found.expect("others are served").expect("it is sealed");
        assert_eq!(found.data(), b"mine");
    });
}

#[test]
fn every_limit_is_explained_by_help() {
    let output = Command::new(server_program()).arg("--help").output();
    let help = String::from_utf8(output.expect("the program starts").stdout).expect("text");
    let readme = include_str!("../../README.md");
    let others = [
        "--allow-uid",
        "--metrics",
        "--log",
        "--mode",
        "--group",
        "--max-pins",
        "--ring-requests",
        "--ring-bytes",
        "--poll-time",
    ];
    for option in LIMITS.iter().chain(&others) {
        assert!(help.contains(&format!("\n  {option} ")), "{option}");
        assert!(readme.contains(&format!("`{option} ")), "{option}");
    }
    assert!(help.lines().all(|line| line.len() <= 100), "{help}");
}

#[test]
fn options_that_make_no_sense_are_explained() {
    let wrong: [(&str, &[u8], &str); 24] = [
        ("-m", b"2GB", "bytes"),
        ("-e", b"\xff", "hashtable://"),
        ("--prefault", b"yes", "off, background, full"),
        ("--poll-time", b"-1", "microseconds"),
        ("--mode", b"u+rw", "octal"),
        ("--group", b"\xff", "name or number"),
        ("--allow-uid", b"anne", "number"),
        ("--allow-uid", b"-1", "number"),
        ("--log", b"loud", "warn"),
        ("--metrics", b"9187", "address"),
        ("--metrics", b"127.0.0.1", "port"),
        ("--max-clients", b"x", "number of connections"),
        ("--max-clients", b"\xff", "number of connections"),
        ("--max-subscriptions", b"x", "number of subscriptions"),
        ("--max-objects", b"1e6", "number of objects"),
        ("--max-ids", b"many", "number of objects"),
        ("--max-request-bytes", b"-1", "number of bytes"),
        ("--max-unfinished-bytes", b"1k", "number of bytes"),
        ("--max-unread-bytes", b"1.5", "number of bytes"),
        ("--max-waiting-ids", b"x", "number of objects"),
        ("--stall-timeout", b"1.5", "seconds"),
        ("--max-pins", b"5000000000", "number of objects"),
        ("--ring-requests", b"x", "number of requests"),
        ("--ring-bytes", b"256k", "number of bytes"),
    ];
    for (option, value, expected) in wrong {
        let value = OsStr::from_bytes(value);
        let mut command = Command::new(server_program());
        let output = command.args(["-m", "1000", "-s", "/tmp/x"]);
        let output = output.arg(option).arg(value).output();
        let output = output.expect("the program starts");
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{option}: {text}");
        for word in [option, expected, &format!("not {value:?}")] {
            assert!(text.contains(word), "{word:?} is missing: {text}");
        }
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn one_client_too_many_is_refused() {
    beyond_a_limit("--max-clients", "2", |store, _| {
        let second = store.client();
        let third = connect(store.socket());
        assert!(matches!(third, Err(PlasmaError::Disconnected)), "{third:?}");
        let told = third.expect_err("it is refused").to_string();
        assert!(told.contains("refused") && told.contains("log"), "{told}");
        second.list().expect("those who are there are served");
        the_one_line_about(store, "refused a client", "--max-clients");
        drop(second);
        eventually("there is a place again", || connect(store.socket()).is_ok());
    });
}

#[test]
fn one_subscription_too_many_ends_at_once() {
    beyond_a_limit("--max-subscriptions", "1", |store, other| {
        let mut first = store.client().subscribe().expect("it is asked for");
        first.recv().expect("it hears of what is there");
        let mut second = store.client().subscribe().expect("it is asked for");
        let heard = second.recv();
        assert!(matches!(heard, Err(PlasmaError::Disconnected)), "{heard:?}");
        the_one_line_about(store, "refused a subscription", "--max-subscriptions");
        other
            .create_and_seal(id(1), b"news", b"")
            .expect("there is room");
        first.recv().expect("it still hears of everything");
        // A place that is free again is given again.
        drop(first);
        eventually("there is a place again", || {
            let mut third = store.client().subscribe().expect("it is asked for");
            third.recv().is_ok()
        });
    });
}

#[test]
fn one_object_too_many_is_out_of_memory() {
    beyond_a_limit("--max-objects", "3", |store, other| {
        let client = store.client();
        // Objects that are held cannot be evicted.
        let _other = other.get(ObjectId::from_name("other"), 0);
        let held: Vec<_> = ids(2)
            .into_iter()
            .map(|id| client.create(id, 1, b"").expect("there is room"))
            .collect();
        for n in 10..20 {
            let refused = client.create(id(n), 1, b"");
            let out_of_memory = matches!(refused, Err(PlasmaError::OutOfMemory { .. }));
            assert!(out_of_memory, "{refused:?}");
            let told = refused.expect_err("it is refused").to_string();
            assert!(told.contains("--max-objects"), "{told}");
        }
        the_one_line(
            store,
            &["WARN", "creates fail", "3 objects", "--max-objects"],
        );
        drop(held);
        let again = client.create(id(1), 1, b"");
        again
            .expect("there is room again")
            .abort()
            .expect("it is not sealed");
    });
}

#[test]
fn who_names_too_many_objects_is_cut_off() {
    beyond_a_limit("--max-ids", "10", |store, _| {
        let client = store.socket_client();
        let found = client.get_many(&ids(10), 0).expect("ten are allowed");
        assert_eq!(found.len(), 10);
        let refused = client.get_many(&ids(11), 0);
        assert!(
            matches!(refused, Err(PlasmaError::Disconnected)),
            "{refused:?}"
        );
        the_one_line_about(store, "cut off a client", "--max-ids");
        let object_ids = ids(11);
        let objects: Vec<_> = object_ids
            .iter()
            .map(|id| (*id, &b""[..], &b""[..]))
            .collect();
        let batch = store.client().create_and_seal_batch(&objects);
        assert!(matches!(batch, Err(PlasmaError::Disconnected)), "{batch:?}");
        for request in [
            Request::Delete(object_ids.clone().into()),
            Request::RefreshLru(object_ids.clone().into()),
        ] {
            let client = RawClient::connect(store.socket());
            client.send(&request);
            client.wait_until_cut_off();
        }
    });
}

fn inline(data: &[u8]) -> Request<'_> {
    Request::CreateAndSeal {
        object: NewObject {
            id: id(1),
            data,
            metadata: b"",
            digest: [0; 8],
        },
        evict_if_full: true,
    }
}

#[test]
fn who_sends_too_long_a_request_is_cut_off() {
    beyond_a_limit("--max-request-bytes", "10000", |store, _| {
        let mut client = RawClient::connect(store.socket());
        let reply = client.call(&inline(&[1; 9000]));
        assert_eq!(reply, Reply::CreateAndSeal(Ok(())));
        client.send(&inline(&[1; 10_000]));
        client.wait_until_cut_off();
        the_one_line_about(store, "cut off a client", "--max-request-bytes");
    });
}

#[test]
fn who_leaves_too_much_unfinished_is_cut_off() {
    beyond_a_limit("--max-unfinished-bytes", "4000000", |store, _| {
        let request = message(&inline(&vec![1; 2_500_000]));
        let (part, rest) = request.split_at(2_000_000);
        let mut first = RawClient::connect(store.socket());
        first.send_bytes(part).expect("it is listened to");
        // A small part is always allowed.
        let small = RawClient::connect(store.socket());
        small
            .send_bytes(&part[..900_000])
            .expect("it is listened to");
        let second = RawClient::connect(store.socket());
        let _ = second.send_bytes(part);
        second.wait_until_cut_off();
        the_one_line_about(store, "cut off a client", "--max-unfinished-bytes");
        drop(small);
        first.send_bytes(rest).expect("it is listened to");
        assert_eq!(first.reply(), Reply::CreateAndSeal(Ok(())));
    });
}

#[test]
fn who_leaves_too_many_replies_unread_is_cut_off() {
    beyond_a_limit("--max-unread-bytes", "1000000", |store, other| {
        let client = RawClient::connect(store.socket());
        let get = message(&Request::Get {
            ids: vec![id(1); 100].into(),
            timeout_ms: -1,
        });
        // Its answers come all at once: some 10 MB.
        client
            .send_bytes(&get.repeat(1000))
            .expect("it is listened to");
        other.list().expect("the store answers");
        other
            .create_and_seal(id(1), b"here", b"")
            .expect("there is room");
        the_one_line_about(store, "cut off a client", "--max-unread-bytes");
        client.wait_until_cut_off();
    });
}

/// A client that asks for more than it reads waits, whatever the limit, and is not cut off.
#[test]
fn who_reads_late_is_not_cut_off() {
    beyond_a_limit("--max-unread-bytes", "1000", |store, other| {
        let object_ids = ids(100);
        let objects: Vec<_> = object_ids
            .iter()
            .map(|id| (*id, &b""[..], &b""[..]))
            .collect();
        other
            .create_and_seal_batch(&objects)
            .expect("there is room");
        let mut client = RawClient::connect(store.socket());
        client
            .send_bytes(&message(&Request::List).repeat(1000))
            .expect("it is listened to");
        other.list().expect("the store answers");
        for _ in 0..1000 {
            let Reply::List(objects) = client.reply() else {
                panic!("not what was asked for");
            };
            assert_eq!(objects.len(), 101);
        }
        assert_eq!(store.log(), "");
    });
}

#[test]
fn who_leaves_too_many_notifications_unread_hears_no_more() {
    beyond_a_limit("--max-unread-bytes", "10000", |store, other| {
        let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let mut client = RawClient::connect(store.socket());
        client.subscribe(theirs.as_fd());
        drop(theirs);
        let object_ids = ids(10_000);
        for id in &object_ids {
            other.create_and_seal(*id, b"", b"").expect("there is room");
        }
        the_one_line_about(store, "ended a subscription", "--max-unread-bytes");
        ours.set_read_timeout(Some(patience()))
            .expect("a socket takes timeouts");
        let mut heard = Vec::new();
        ours.read_to_end(&mut heard).expect("the stream ends");
        assert!(heard.len() > 10_000);
        // It is served otherwise.
        let reply = client.call(&Request::Contains(object_ids[0]));
        assert!(matches!(
            reply,
            Reply::Contains {
                has_object: true,
                ..
            }
        ));
    });
}

#[test]
fn who_waits_for_too_much_is_cut_off() {
    beyond_a_limit("--max-waiting-ids", "1000", |store, _| {
        let mut client = RawClient::connect(store.socket());
        let wait_for = |ids: Vec<ObjectId>| Request::Get {
            ids: ids.into(),
            timeout_ms: -1,
        };
        client.send(&wait_for(ids(500)));
        client.call(&Request::Contains(id(1)));
        client.send(&wait_for(ids(500)));
        client.wait_until_cut_off();
        the_one_line_about(store, "cut off a client", "--max-waiting-ids");
    });
}

#[test]
fn who_does_not_read_is_cut_off_in_the_end() {
    beyond_a_limit("--stall-timeout", "1", |store, other| {
        let object_ids = ids(1000);
        let objects: Vec<_> = object_ids
            .iter()
            .map(|id| (*id, &b""[..], &b""[..]))
            .collect();
        other
            .create_and_seal_batch(&objects)
            .expect("there is room");
        let client = RawClient::connect(store.socket());
        client
            .send_bytes(&message(&Request::List).repeat(100))
            .expect("it is listened to");
        the_one_line_about(store, "cut off a client", "--stall-timeout");
        client.wait_until_cut_off();
    });
}

// -------------------------------------------------------------------------------------------------
// Metrics

/// Sends a request over HTTP and reads all that comes: the head of the answer, and its body.
fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).expect("the exporter listens");
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(patience())).expect("a socket takes timeouts");
    }
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    (head.to_owned(), body.to_owned())
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: store\r\n\r\n";

/// The text of all metrics.
fn scrape(address: SocketAddr) -> String {
    let (head, body) = ask(address, GET);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/openmetrics-text"),
        "{head}"
    );
    body
}

/// All samples, by name with labels.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let split = |line| -> Option<(&str, f64)> {
        let (name, value) = str::rsplit_once(line, ' ')?;
        Some((name, value.parse().ok()?))
    };
    samples
        .map(|line| split(line).unwrap_or_else(|| panic!("no sample: {line:?}")))
        .collect()
}

/// Waits until the metrics say all this.
fn eventually_says(address: SocketAddr, expected: &[(&str, f64)]) {
    let start = Instant::now();
    loop {
        let text = scrape(address);
        let samples = samples(&text);
        let wrong: Vec<_> = expected
            .iter()
            .filter(|(name, value)| samples.get(name) != Some(value))
            .map(|(name, value)| (name, value, samples.get(name)))
            .collect();
        if wrong.is_empty() {
            return;
        }
        assert!(start.elapsed() < patience(), "expected, found: {wrong:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The address that a store tells in its log, which another thread writes than the one that listens.
fn metrics_address(store: &StoreProcess) -> SocketAddr {
    let mut log = String::new();
    eventually("the log tells the address", || {
        log = store.log();
        log.contains("serving metrics")
    });
    let line = log.lines().find(|line| line.contains("serving metrics"));
    let (_, address) = line
        .and_then(|line| line.split_once("address="))
        .expect("an address");
    address.trim().parse().expect("an address")
}

fn store_with_metrics(args: &[&str]) -> (StoreProcess, SocketAddr) {
    let args = [&["--log", "info", "--metrics", "127.0.0.1:0"], args].concat();
    let store = StoreProcess::start_logged(CAPACITY, &args);
    let address = metrics_address(&store);
    (store, address)
}

#[test]
fn metrics_tell_how_the_store_does() {
    within(LIMIT, || {
        let store = Store::builder()
            .capacity(10_000)
            .metrics((Ipv4Addr::LOCALHOST, 0))
            .spawn()
            .expect("the store starts");
        let address = store.metrics_address().expect("metrics are served");
        eventually_says(
            address,
            &[
                ("plasma_capacity_bytes", 10_000.),
                ("plasma_used_bytes", 0.),
                ("plasma_free_bytes", 10_000.),
                ("plasma_largest_free_block_bytes", 10_000.),
                ("plasma_objects", 0.),
                ("plasma_clients", 0.),
                ("plasma_hits_total", 0.),
                ("plasma_evictions_total", 0.),
                ("plasma_request_seconds_count{type=\"get\"}", 0.),
            ],
        );
        let by_socket = PlasmaClient::builder().shared_memory(false);
        let client = by_socket.connect(store.socket()).expect("it serves");
        for n in 0..4 {
            client
                .create_and_seal(id(n), &[1; 1900], &[2; 100])
                .expect("there is room");
        }
        let mut unsealed = client.create(id(10), 500, b"").expect("there is room");
        let held = client
            .get(id(3), 0)
            .expect("the store answers")
            .expect("it is sealed");
        let found = client
            .get_many(&[id(0), id(1), id(77), id(10)], 0)
            .expect("it answers");
        assert_eq!(found.iter().flatten().count(), 2);
        drop(found);
        let mut notifications = client.subscribe().expect("it is asked for");
        notifications.recv().expect("it hears of what is there");
        eventually_says(
            address,
            &[
                ("plasma_used_bytes", 8500.),
                ("plasma_free_bytes", 1500.),
                ("plasma_largest_free_block_bytes", 1500.),
                ("plasma_pinned_bytes", 2500.),
                ("plasma_objects", 5.),
                ("plasma_unsealed_objects", 1.),
                ("plasma_hits_total", 3.),
                ("plasma_misses_total", 2.),
                // A subscription is a connection of its own.
                ("plasma_clients", 2.),
                ("plasma_accepted_clients_total", 2.),
                ("plasma_subscriptions", 1.),
                ("plasma_request_seconds_count{type=\"get\"}", 2.),
                ("plasma_request_seconds_count{type=\"create\"}", 1.),
                (
                    "plasma_request_seconds_bucket{le=\"+Inf\",type=\"get\"}",
                    2.,
                ),
                ("plasma_request_seconds_count{type=\"create_and_seal\"}", 4.),
                ("plasma_request_seconds_count{type=\"delete\"}", 0.),
            ],
        );
        unsealed.seal().expect("it can be sealed");
        // The least recently used go: ten thousand bytes in five, one held, one of 500.
        client
            .create_and_seal(id(20), &[1; 2000], b"")
            .expect("there is room");
        drop((unsealed, held, notifications));
        eventually_says(
            address,
            &[
                ("plasma_evictions_total", 1.),
                ("plasma_evicted_bytes_total", 2000.),
                ("plasma_unsealed_objects", 0.),
                ("plasma_pinned_bytes", 0.),
                ("plasma_subscriptions", 0.),
                ("plasma_clients", 1.),
            ],
        );
        let text = scrape(address);
        let times = samples(&text);
        let sum = times["plasma_request_seconds_sum{type=\"create_and_seal\"}"];
        assert!(sum > 0. && sum < 20., "{sum}");
        drop(client);
        store.shutdown().expect("it served until now");
        assert!(TcpStream::connect(address).is_err());
    });
}

/// Names and descriptions are as Prometheus wants them, and classes of times add up.
#[test]
fn metrics_are_well_formed() {
    within(LIMIT, || {
        let (store, address) = store_with_metrics(&[]);
        let client = store.client();
        for n in 0..100 {
            client
                .create_and_seal(id(n), b"x", b"")
                .expect("there is room");
        }
        let text = scrape(address);
        assert!(text.ends_with("# EOF\n"), "{text}");
        let described = |keyword: &str| -> BTreeMap<&str, &str> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(keyword));
            lines.filter_map(|line| line.split_once(' ')).collect()
        };
        let (help, kinds) = (described("# HELP "), described("# TYPE "));
        assert!(help.len() >= 20 && help.keys().eq(kinds.keys()), "{text}");
        for (name, text) in &help {
            assert!(text.len() > 10 && text.ends_with('.'), "{name}: {text}");
        }
        let mut families = BTreeMap::new();
        for name in samples(&text).keys() {
            let name = name.split('{').next().unwrap_or(name);
            let family = ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name);
            *families.entry(family).or_insert(0) += 1;
            let ending = name.strip_prefix(family).expect("it begins so");
            let fits = match kinds[family] {
                "gauge" => ending.is_empty(),
                "counter" => ending == "_total",
                "histogram" => ["_bucket", "_sum", "_count"].contains(&ending),
                other => panic!("{name} is a {other}"),
            };
            assert!(fits && family.starts_with("plasma_"), "{name}");
        }
        assert!(families.keys().eq(kinds.keys()), "{families:?}");
        // In the order in which they stand there, from the shortest times to all.
        let bucket = "plasma_request_seconds_bucket{";
        let of_creates = text
            .lines()
            .filter(|line| line.starts_with(bucket) && line.contains("type=\"create_and_seal\""));
        let counts: Vec<f64> = of_creates
            .map(|line| {
                line.rsplit_once(' ')
                    .expect("a value")
                    .1
                    .parse()
                    .expect("a number")
            })
            .collect();
        assert!(counts.len() > 10 && counts.is_sorted(), "{counts:?}");
        assert!(
            counts.last().is_some_and(|count| *count >= 99.),
            "{counts:?}"
        );
    });
}

/// What clients read in shared memory the store does not see, until somebody asks.
#[test]
fn metrics_tell_of_what_is_read_without_asking() {
    within(LIMIT, || {
        let store = Store::builder()
            .capacity(10_000)
            .metrics((Ipv4Addr::LOCALHOST, 0))
            .spawn()
            .expect("the store starts");
        let address = store.metrics_address().expect("metrics are served");
        let client = connect(store.socket()).expect("it serves");
        for n in 0..3 {
            client
                .create_and_seal(id(n), &[1; 1000], b"")
                .expect("there is room");
        }
        let held: Vec<_> = [0, 0, 1].map(|n| client.get(id(n), 0)).into();
        assert!(held.iter().all(|got| matches!(got, Ok(Some(_)))));
        assert!(matches!(client.get(id(77), 0), Ok(None)));
        let says = |pinned| {
            let text = scrape(address);
            let samples = samples(&text);
            // At once: it is of the moment at which it is asked.
            assert_eq!(samples.get("plasma_pinned_bytes"), Some(&pinned));
            assert_eq!(samples.get("plasma_hits_total"), Some(&3.));
            assert_eq!(samples.get("plasma_misses_total"), Some(&1.));
            let gets = samples.get("plasma_request_seconds_count{type=\"get\"}");
            assert_eq!(gets, Some(&0.));
        };
        says(2000.);
        drop(held);
        says(0.);
        drop(client);
        eventually_says(
            address,
            &[("plasma_clients", 0.), ("plasma_hits_total", 3.)],
        );
    });
}

#[test]
fn metrics_tell_who_was_refused_and_cut_off() {
    within(LIMIT, || {
        let args = [
            "--max-clients",
            "3",
            "--max-ids",
            "10",
            "--max-subscriptions",
            "0",
        ];
        let (store, address) = store_with_metrics(&args);
        let clients = [store.socket_client(), store.client(), store.client()];
        for _ in 0..5 {
            assert!(connect(store.socket()).is_err());
        }
        assert!(clients[0].get_many(&ids(11), 0).is_err());
        // That has made a place.
        let nonsense = RawClient::connect(store.socket());
        nonsense.send_bytes(&[7; 24]).expect("it is listened to");
        nonsense.wait_until_cut_off();
        eventually_says(
            address,
            &[
                ("plasma_closed_clients_total{reason=\"max_ids\"}", 1.),
                ("plasma_closed_clients_total{reason=\"malformed\"}", 1.),
                ("plasma_closed_clients_total{reason=\"stall_timeout\"}", 0.),
                ("plasma_refused_clients_total{reason=\"not_allowed\"}", 0.),
                ("plasma_clients", 2.),
            ],
        );
        let text = scrape(address);
        let refused = samples(&text)["plasma_refused_clients_total{reason=\"max_clients\"}"];
        assert!(refused >= 5., "{refused}");
        let mut subscription = clients[1].subscribe().expect("it is asked for");
        assert!(subscription.recv().is_err());
        eventually_says(address, &[("plasma_refused_subscriptions_total", 1.)]);
    });
}

#[test]
fn only_reading_metrics_is_possible() {
    within(LIMIT, || {
        let (_store, address) = store_with_metrics(&[]);
        for (request, status) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
            ("GET /metrics/../x HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
            ("DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
            (
                "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
                "405",
            ),
            ("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200"),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200"),
            ("nonsense\r\n\r\n", "400"),
        ] {
            let (head, body) = ask(address, request);
            let found = head.split(' ').nth(1);
            assert_eq!(found, Some(status), "{request:?}: {head}");
            assert_eq!(
                body.contains("plasma_objects"),
                request.starts_with("GET /metrics") && status == "200"
            );
        }
        let long = format!(
            "GET /metrics HTTP/1.1\r\nX: {}\r\n\r\n",
            "x".repeat(100_000)
        );
        let mut stream = TcpStream::connect(address).expect("the exporter listens");
        // It may have hung up before all was said.
        let _ = stream.write_all(long.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        scrape(address);
    });
}

/// Clients that connect and say nothing, or half of something, or read nothing.
#[test]
fn slow_readers_of_metrics_hold_up_nobody() {
    within(LIMIT, || {
        let (mut store, address) = store_with_metrics(&[]);
        let before = store.descriptors();
        let private = store.private_bytes();
        let idle: Vec<_> = (0..600)
            .map(|n| {
                let mut stream = TcpStream::connect(address).expect("the exporter listens");
                // It may have hung up already: it has no use for so many.
                let _ = match n % 3 {
                    0 => Ok(()),
                    1 => stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: "),
                    _ => stream.write_all(GET.repeat(20).as_bytes()),
                };
                stream
            })
            .collect();
        let start = Instant::now();
        for _ in 0..20 {
            scrape(address);
        }
        println!(
            "20 scrapes beside 600 idle connections: {:?}",
            start.elapsed()
        );
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        let open = store.descriptors();
        assert!(open <= before + 40, "{open} descriptors, {before} before");
        let grown = store.private_bytes().saturating_sub(private);
        assert!(grown < 16 * MIB, "{grown} bytes");
        store.client().list().expect("clients are served");
        // Those that are left are not kept for ever.
        eventually("the exporter gives up those that say nothing", || {
            store.descriptors() <= before
        });
        drop(idle);
        let last = TcpStream::connect(address).expect("the exporter listens");
        // What says nothing does not keep the store from stopping.
        let start = Instant::now();
        store.signal(Signal::SIGTERM);
        assert!(store.wait().success());
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        drop(last);
    });
}

#[test]
fn metrics_that_cannot_be_served_are_an_error_at_once() {
    within(LIMIT, || {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = taken.local_addr().expect("it has an address");
        let folder = tempfile::tempdir().expect("a folder");
        let socket: PathBuf = folder.path().join("socket");
        let builder = Store::builder().capacity(1000).socket(&socket);
        let refused = builder.metrics(address).spawn();
        assert!(
            matches!(refused, Err(StoreError::Metrics { address: found, .. }) if found == address),
            "{refused:?}"
        );
        assert!(!socket.exists());
        let output = Command::new(server_program())
            .args(["-m", "1000", "--metrics", &address.to_string(), "-s"])
            .arg(&socket)
            .output()
            .expect("the program starts");
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{text}");
        for word in ["metrics", &address.to_string(), "another address"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(!socket.exists());
        // Unless told, there are none.
        let store = Store::builder().capacity(1000).spawn().expect("it starts");
        assert_eq!(store.metrics_address(), None);
    });
}
