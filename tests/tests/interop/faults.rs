//! What clients do wrong, to Arrow's store and to this project's: the table in `docs/faults.md`.
//!
//! Each fault meets a fresh store, and then somebody else asks that store for an object that was
//! there before. What comes of it has to be what the table says.

mod table;

use std::any::Any;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plasma_core::ObjectId;
use plasma_core::protocol::frame::HEADER_LEN;
use plasma_core::protocol::message::{NewObject, Reply, Request};
use tests::raw::{RawClient, message};
use tests::{StoreProcess, eventually, within};

use crate::arrow::write_script;
use crate::{CAPACITY, LIMIT, StoreKind};
use table::{CLOSES, FAULTS, REFUSES};

/// How long a store may take to answer somebody who has done nothing wrong. A store that waits for
/// the one who has would take for ever.
const IN_TIME: Duration = Duration::from_secs(3);

/// The object that is there before, and is asked for afterwards.
const KEPT: ObjectId = ObjectId::new([0xab; 20]);
const OTHER: ObjectId = ObjectId::new([0xcd; 20]);

/// What a store does after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    GoesOn,
    /// It does what it should have refused.
    Obeys,
    /// It answers nobody as long as the client is there.
    Hangs,
    Aborts,
    Crashes,
    /// It has more descriptors open than before, though the client has gone.
    Leaks,
    /// It has ended in another way.
    Ends(ExitStatus),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GoesOn => "goes on",
            Self::Obeys => "**obeys**",
            Self::Hangs => "**answers nobody**",
            Self::Aborts => "**aborts**",
            Self::Crashes => "**crashes**",
            Self::Leaks => "goes on, with one descriptor less",
            Self::Ends(status) => return write!(f, "**ends** ({status})"),
        })
    }
}

/// What a client has done.
struct Thrown {
    /// Who did it, still there.
    client: Option<RawClient>,
    /// What else stays as it is while somebody else asks.
    _stays: Box<dyn Any>,
    /// Whether the store said that it has done as it was told, or that it has not.
    obeyed: Option<bool>,
}

type Throw = fn(&StoreProcess) -> Thrown;

/// A row of the table.
struct Fault {
    name: &'static str,
    arrows: Outcome,
    /// What this project's store does. Where it "closes", the client has to notice.
    ours: &'static str,
    /// The tests that look into it.
    tests: &'static [&'static str],
    throw: Throw,
}

/// The limit that the stores of this test have on descriptors.
const DESCRIPTORS: usize = 200;

const LIST: i64 = 17;

impl Thrown {
    fn by(client: RawClient) -> Self {
        Self {
            client: Some(client),
            _stays: Box::new(()),
            obeyed: None,
        }
    }

    fn beside(self, stays: impl Any) -> Self {
        Self {
            _stays: Box::new(stays),
            ..self
        }
    }
}

/// Whoever did it is not there any more.
fn gone() -> Thrown {
    Thrown {
        client: None,
        _stays: Box::new(()),
        obeyed: None,
    }
}

fn header(version: i64, kind: i64, len: i64) -> Vec<u8> {
    [version, kind, len].map(i64::to_le_bytes).concat()
}

fn position(bytes: &[u8], part: &[u8]) -> usize {
    let mut parts = bytes.windows(part.len());
    parts.position(|bytes| bytes == part).expect("it is there")
}

fn connect(store: &StoreProcess) -> RawClient {
    RawClient::connect(store.socket())
}

/// The store may have hung up, or not read.
fn send(client: &RawClient, bytes: &[u8]) {
    let _ = client.send_bytes(bytes);
}

/// Says something, and stays.
fn say(store: &StoreProcess, bytes: Vec<u8>) -> Thrown {
    let client = connect(store);
    send(&client, &bytes);
    Thrown::by(client)
}

/// Asks for something that is to be refused.
fn ask(store: &StoreProcess, request: &Request<'_>) -> Thrown {
    let asked = Bystander::connect(store).expect("it listens");
    let obeyed = asked.ask(request).ok().map(|reply| match reply {
        Reply::Seal { result, .. } => result.is_ok(),
        Reply::Create { result, .. } => result.is_ok(),
        Reply::SetOptions(result) => result.is_ok(),
        reply => panic!("a reply to another request: {reply:?}"),
    });
    Thrown {
        obeyed,
        ..gone().beside(asked)
    }
}

fn empty(id: ObjectId) -> NewObject<'static> {
    NewObject {
        id,
        data: b"",
        metadata: b"",
        digest: [7; 8],
    }
}

fn create(id: ObjectId, data_size: u64, metadata_size: u64, device_num: i32) -> Request<'static> {
    Request::Create {
        id,
        evict_if_full: true,
        data_size,
        metadata_size,
        device_num,
    }
}

fn seal(id: ObjectId) -> Request<'static> {
    Request::Seal { id, digest: [7; 8] }
}

fn quota(quota_bytes: i64) -> Request<'static> {
    Request::SetOptions {
        client_name: "faulty".into(),
        quota_bytes,
    }
}

/// A client that creates an object, and has not sealed it.
fn creating(store: &StoreProcess) -> RawClient {
    let mut client = connect(store);
    client.call(&create(OTHER, 1000, 0, 0));
    client
}

fn subscribe(store: &StoreProcess, stream: OwnedFd) -> Thrown {
    let client = connect(store);
    client.subscribe(stream.as_fd());
    Thrown::by(client)
}

/// Many objects that come and go.
fn make_news(store: &StoreProcess) {
    let mut client = connect(store);
    for n in 0..200_u8 {
        let id = ObjectId::new([n; 20]);
        if id == KEPT || id == OTHER {
            continue;
        }
        client.call(&Request::CreateAndSeal {
            object: empty(id),
            evict_if_full: true,
        });
        client.call(&Request::Delete(vec![id].into()));
    }
}

/// Many objects, so that a list of them is long.
fn make_much(store: &StoreProcess) {
    let objects: Vec<_> = (0..2000_u32)
        .map(|n| empty(ObjectId::from_name(&n.to_string())))
        .collect();
    let mut client = connect(store);
    for objects in objects.chunks(100) {
        client.call(&Request::CreateAndSealBatch {
            objects: objects.into(),
            evict_if_full: true,
        });
    }
}

/// Somebody who has done nothing wrong, and does not wait for long.
struct Bystander(UnixStream);

impl Bystander {
    fn connect(store: &StoreProcess) -> io::Result<Self> {
        let socket = UnixStream::connect(store.socket())?;
        socket.set_read_timeout(Some(IN_TIME))?;
        socket.set_write_timeout(Some(IN_TIME))?;
        Ok(Self(socket))
    }

    fn ask(&self, request: &Request<'_>) -> io::Result<Reply<'static>> {
        (&self.0).write_all(&message(request))?;
        let mut reply = vec![0; HEADER_LEN];
        (&self.0).read_exact(&mut reply)?;
        let len = reply.last_chunk().map_or(0, |len| i64::from_le_bytes(*len));
        let body_at = reply.len();
        reply.resize(body_at + usize::try_from(len).expect("a length"), 0);
        (&self.0).read_exact(&mut reply[body_at..])?;
        // Decoded by who can.
        let (mut ours, theirs) = UnixStream::pair()?;
        ours.write_all(&reply)?;
        Ok(RawClient::over(theirs).reply())
    }

    /// Whether the object is there that was there before.
    fn is_served(&self) -> bool {
        let reply = self.ask(&Request::Contains(KEPT));
        let expected = Reply::Contains {
            id: KEPT,
            has_object: true,
        };
        reply.is_ok_and(|reply| reply == expected)
    }
}

/// Waits for a while for something that may never happen; whether it did.
fn soon(mut happened: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !happened() {
        if start.elapsed() > IN_TIME / 3 {
            return false;
        }
        thread::sleep(Duration::from_millis(5));
    }
    true
}

/// A store's program that may open few descriptors.
fn limited(folder: &Path, program: &Path) -> PathBuf {
    let script = folder.join("limited-store");
    let program = program.display();
    let text = format!("#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec '{program}' \"$@\"\n");
    write_script(&script, &text);
    script
}

/// What ails a store that did not serve somebody, now that whoever was at fault is gone: one that
/// hung goes on, and one that dies may take its time over it.
fn ill(store: &mut StoreProcess, bystander: &Bystander) -> Outcome {
    let mut goes_on = false;
    eventually("it dies, or serves others again", || {
        goes_on = store.is_alive() && bystander.is_served();
        goes_on || !store.is_alive()
    });
    if goes_on {
        return Outcome::Hangs;
    }
    let status = store.wait();
    match status.signal().map(Signal::try_from) {
        Some(Ok(Signal::SIGABRT)) => Outcome::Aborts,
        Some(Ok(Signal::SIGSEGV | Signal::SIGBUS)) => Outcome::Crashes,
        _ => Outcome::Ends(status),
    }
}

/// What a store does after a fault. What was done is looked at if it could be, before whoever did it
/// goes.
fn outcome(program: &Path, throw: Throw, look: impl FnOnce(Option<Thrown>)) -> Outcome {
    let mut store = StoreProcess::start_program(program, CAPACITY, &[]);
    let bystander = Bystander::connect(&store).expect("it listens");
    let kept = bystander.ask(&Request::CreateAndSeal {
        object: empty(KEPT),
        evict_if_full: true,
    });
    assert_eq!(kept.expect("it answers"), Reply::CreateAndSeal(Ok(())));
    let before = store.descriptors();

    // It fails where the store dies meanwhile, or answers nobody.
    let thrown = panic::catch_unwind(AssertUnwindSafe(|| throw(&store))).ok();
    let obeyed = thrown.as_ref().and_then(|thrown| thrown.obeyed);
    // Again and again: the store may not have come to what the other sent when it is first asked.
    let served = thrown.is_some() && (0..50).all(|_| bystander.is_served());
    if !served {
        drop(thrown);
        return ill(&mut store, &bystander);
    }
    look(thrown);
    let newcomer = Bystander::connect(&store);
    if !newcomer.is_ok_and(|newcomer| newcomer.is_served()) {
        ill(&mut store, &bystander)
    } else if !soon(|| store.descriptors() <= before) {
        Outcome::Leaks
    } else if obeyed == Some(true) {
        Outcome::Obeys
    } else {
        Outcome::GoesOn
    }
}

#[test]
fn our_store_goes_on_after_each() {
    within(2 * LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let program = limited(folder.path(), &StoreKind::Ours.program());
        for fault in FAULTS {
            let Fault { name, ours, .. } = fault;
            let outcome = outcome(&program, fault.throw, |thrown| {
                let thrown = thrown.unwrap_or_else(|| panic!("{name}: it cannot be done"));
                if *ours == CLOSES {
                    let client = thrown.client.expect("a client is there to be told");
                    client.wait_until_cut_off();
                } else {
                    assert_eq!(thrown.obeyed == Some(false), *ours == REFUSES, "{name}");
                }
            });
            assert_eq!(outcome, Outcome::GoesOn, "{name}");
        }
    });
}

#[test]
#[ignore = "needs Arrow's programs: see tests/README.md"]
fn arrows_store_does_what_the_table_says() {
    within(3 * LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let program = limited(folder.path(), &StoreKind::Arrows.program());
        let mut wrong = Vec::new();
        for fault in FAULTS {
            let outcome = outcome(&program, fault.throw, drop);
            println!("{}: it {outcome}", fault.name);
            if outcome != fault.arrows {
                wrong.push(format!("{}: it {outcome}", fault.name));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

/// The table in the documentation is this one; with `PLASMA_BLESS` set it is made so.
#[test]
fn the_table_is_the_one_in_the_documentation() {
    const BEGIN: &str = "<!-- faults:begin -->\n";
    const END: &str = "<!-- faults:end -->";
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let path = tests.join("../../docs/faults.md");
    let text = std::fs::read_to_string(&path).expect("the documentation is there");
    let (before, rest) = text.split_once(BEGIN).expect("the table's begin");
    let (_, after) = rest.split_once(END).expect("the table's end");
    let mut table =
        String::from("| fault | Arrow's store | this store | tests |\n|---|---|---|---|\n");
    for fault in FAULTS {
        let names: Vec<_> = fault.tests.iter().map(|name| format!("`{name}`")).collect();
        let names = names.join(", ");
        let Fault {
            name, arrows, ours, ..
        } = fault;
        table += &format!("| {name} | {arrows} | {ours} | {names} |\n");
        for name in fault.tests {
            assert!(exists(&tests, name), "there is no test {name}");
        }
    }
    let expected = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("PLASMA_BLESS").is_some() {
        std::fs::write(&path, expected).expect("it can be written");
    } else {
        assert!(
            text == expected,
            "the table has changed: set PLASMA_BLESS=1 to write it"
        );
    }
}

/// Whether there is a test of this name: a file, modules, and a function, which in `deaths` is made
/// by a macro for each kind of client.
fn exists(tests: &Path, name: &str) -> bool {
    let parts: Vec<_> = name.split("::").collect();
    let [file, modules @ .., function] = &parts[..] else {
        return false;
    };
    let source = match modules {
        [] => tests.join(format!("{file}.rs")),
        [module, ..] => tests.join(file).join(format!("{module}.rs")),
    };
    let Ok(source) = std::fs::read_to_string(source) else {
        return false;
    };
    let inner = modules
        .get(1)
        .is_none_or(|module| source.contains(&format!("    {module}: ")));
    inner && source.contains(&format!("fn {function}()"))
}
