//! A client in a process of its own, which does one thing after the other, each when it is told to,
//! and can be killed or stopped in between.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStdout};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plasma_core::protocol::frame::HEADER_LEN;
use plasma_core::protocol::message::{Reply, Request};
use plasma_core::shm::crash;
use plasma_core::{ObjectBuffer, ObjectId, PlasmaClient, PlasmaError};
use tests::raw::{RawClient, message};
use tests::{in_another_process, patience};

use super::Way;

/// Stands in front of what an actor says, as the test harness says things too.
const MARK: &str = "@ ";

/// How an actor says that its story is over.
const END: &str = "the end";

/// What the actor's own process knows of the one that directs it.
#[derive(Clone, Copy)]
pub struct Stage;

impl Stage {
    /// Says what has been done, and waits to be told to go on.
    pub fn reach(self, step: &str) {
        println!("\n{MARK}{step}");
        let mut told = String::new();
        let count = std::io::stdin().read_line(&mut told).expect("a line");
        assert!(count > 0, "nobody directs any more");
    }

    pub fn end(self) {
        println!("\n{MARK}{END}");
    }
}

/// An actor, as the process sees it that directs it. Killed on drop.
pub struct Actor {
    child: Child,
    says: BufReader<ChildStdout>,
    reached: Vec<String>,
}

impl Actor {
    /// Starts this test program once more, to play `role` in the test `test`.
    pub fn start(test: &str, role: &str, socket: &Path) -> Self {
        let mut child = in_another_process(test, role, socket);
        let says = child.stdout.take().expect("its output is piped");
        Self {
            child,
            says: BufReader::new(says),
            reached: Vec::new(),
        }
    }

    /// Waits for the next step; `None` at the end of the story.
    pub fn next_step(&mut self) -> Option<&str> {
        let mut line = String::new();
        loop {
            line.clear();
            let count = self.says.read_line(&mut line).expect("it says text");
            let so_far = &self.reached;
            assert!(count > 0, "the actor has failed; so far: {so_far:?}");
            match line.trim_end().strip_prefix(MARK) {
                None => {}
                Some(END) => return None,
                Some(step) => {
                    self.reached.push(step.to_owned());
                    return self.reached.last().map(String::as_str);
                }
            }
        }
    }

    /// Tells it to go on.
    pub fn go_on(&mut self) {
        let told = self.child.stdin.as_mut().expect("its input is piped");
        told.write_all(b"\n").expect("it listens");
    }

    /// What it has done so far.
    pub fn reached(&self) -> &[String] {
        &self.reached
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).expect("it is our child");
    }

    /// Whether it has been stopped by a signal.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it is our child");
        // The name, in parentheses, may hold anything; the state is what follows it.
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        fields.trim_start().starts_with('T')
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    /// Waits until it has ended of its own accord, and well.
    pub fn wait(&mut self) {
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that speaks and listens half a message at a time.
pub struct Halting {
    stage: Stage,
    client: RawClient,
}

impl Halting {
    pub fn connect(stage: Stage, socket: &Path) -> Self {
        Self {
            stage,
            client: RawClient::connect(socket),
        }
    }

    /// Sends a request in two halves.
    pub fn say(&self, what: &str, request: &Request<'_>) {
        let bytes = message(request);
        let (half, rest) = bytes.split_at(bytes.len() / 2);
        self.client.send_bytes(half).expect("the store reads");
        self.stage.reach(&format!("half of {what}"));
        self.client.send_bytes(rest).expect("the store reads");
        self.stage.reach(what);
    }

    /// Reads so many bytes, and not one more: a descriptor may hang on that.
    fn read(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut socket = self.client.socket();
        socket.read_exact(&mut bytes).expect("the store answers");
        bytes
    }

    /// Reads a reply in two halves.
    pub fn hear_bytes(&self, what: &str) -> Vec<u8> {
        let mut bytes = self.read(HEADER_LEN / 2);
        bytes.extend(self.read(HEADER_LEN - HEADER_LEN / 2));
        let len = bytes.last_chunk().expect("a header ends with a length");
        let len = usize::try_from(i64::from_le_bytes(*len)).expect("a length");
        bytes.extend(self.read(len / 2));
        self.stage.reach(&format!("half of {what}"));
        bytes.extend(self.read(len - len / 2));
        self.stage.reach(what);
        bytes
    }

    /// The same, and what it says, if it is short.
    pub fn hear(&self, what: &str) -> Reply<'static> {
        let bytes = self.hear_bytes(what);
        let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        ours.write_all(&bytes).expect("it is short");
        RawClient::over(theirs).reply()
    }

    /// A request and its reply, each in two halves.
    pub fn ask(&self, what: &str, request: &Request<'_>) -> Reply<'static> {
        self.say(&format!("the {what} request"), request);
        self.hear(&format!("the {what} reply"))
    }

    /// A descriptor, which follows a reply.
    pub fn take(&mut self, what: &str) -> File {
        let descriptor = File::from(self.client.descriptor());
        self.stage.reach(what);
        descriptor
    }

    /// The segment's.
    pub fn take_segment(&mut self) -> File {
        self.take("the segment")
    }

    pub fn client(&self) -> &RawClient {
        &self.client
    }
}

/// This project's client, which halts behind each store to shared memory.
pub struct Library {
    pub stage: Stage,
    pub client: PlasmaClient,
}

impl Library {
    pub fn connect(stage: Stage, socket: &Path, way: Way) -> Self {
        let client = way.client(socket, false);
        stage.reach("the connection");
        Self { stage, client }
    }

    /// Makes a call, which succeeds, and halts within it and behind it.
    pub fn ask<T>(
        &self,
        what: &'static str,
        call: impl FnOnce(&PlasmaClient) -> Result<T, PlasmaError>,
    ) -> T {
        let stage = self.stage;
        let mut stores = 0;
        let visitor = move || {
            stores += 1;
            stage.reach(&format!("store {stores} of the {what}"));
        };
        let result = crash::visited(visitor, || call(&self.client));
        let result = result.expect("the store answers");
        stage.reach(&format!("the {what} reply"));
        result
    }

    /// Gets an object that is there.
    pub fn get(&self, id: ObjectId) -> ObjectBuffer {
        let object = self.ask("get", |client| client.get(id, 0));
        object.expect("it is there")
    }

    /// Drops a buffer.
    pub fn let_go(&self, object: ObjectBuffer) {
        self.ask("release", |_| {
            drop(object);
            Ok(())
        });
    }
}

/// Reads one notification in two halves.
pub fn hear_notification(stage: Stage, stream: &mut UnixStream) {
    stream.set_read_timeout(Some(patience())).expect("a socket");
    let mut len = [0; 8];
    stream.read_exact(&mut len).expect("a notification comes");
    stage.reach("a notification's length");
    let len = usize::try_from(i64::from_le_bytes(len)).expect("a length");
    let mut body = vec![0; len];
    let (half, rest) = body.split_at_mut(len / 2);
    stream.read_exact(half).expect("a notification comes");
    stage.reach("half of a notification");
    stream.read_exact(rest).expect("a notification comes");
    stage.reach("a notification");
}
