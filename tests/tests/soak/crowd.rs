//! Clients that come and go.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::RngExt;
use tests::{StoreProcess, in_another_process, patience};

use super::arrow;

/// How often those are looked for whose time has come.
const TICK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// This project's client.
    Shared,
    /// The same, that asks for everything through the socket.
    Socket,
    /// Arrow's Python client.
    Python,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub created: u64,
    pub read: u64,
    pub deleted: u64,
    pub killed: u64,
    pub stopped: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.created += other.created;
        self.read += other.read;
        self.deleted += other.deleted;
        self.killed += other.killed;
        self.stopped += other.stopped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            created,
            read,
            deleted,
            killed,
            stopped,
        } = self;
        write!(
            f,
            "{created} created, {read} read, {deleted} deleted, {killed} killed, {stopped} stopped"
        )
    }
}

pub struct Crowd<'a> {
    store: &'a StoreProcess,
    names: u32,
    members: Vec<Member>,
    tally: Tally,
}

struct Member {
    kind: Kind,
    child: Child,
    /// What it says it has done: created, read, deleted.
    reports: Receiver<[u64; 3]>,
    dies: Instant,
    /// When it is stopped next, or goes on.
    turns: Instant,
    is_stopped: bool,
}

fn soon(range_ms: std::ops::Range<u64>) -> Instant {
    Instant::now() + Duration::from_millis(rand::rng().random_range(range_ms))
}

impl Member {
    fn start(kind: Kind, store: &StoreProcess, names: u32) -> Self {
        let test = "clients_live_and_die_and_the_store_counts_right";
        let mut child = match kind {
            Kind::Shared => in_another_process(test, "shared", store.socket()),
            Kind::Socket => in_another_process(test, "socket", store.socket()),
            Kind::Python => arrow::python()
                .arg(arrow::beside("soak_client.py"))
                .arg(store.socket())
                .arg(names.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("Python starts"),
        };
        let output = child.stdout.take().expect("its output is piped");
        let (report, reports) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let numbers: Vec<u64> = line.split(' ').map_while(|n| n.parse().ok()).collect();
                // Other lines are the test harness's.
                if let Ok(numbers) = <[u64; 3]>::try_from(numbers) {
                    let _ = report.send(numbers);
                }
            }
        });
        // Python takes a second to start.
        let (life, turn) = match kind {
            Kind::Python => (2000..8000, 1000..4000),
            _ => (50..3000, 20..2000),
        };
        Self {
            kind,
            child,
            reports,
            dies: soon(life),
            turns: soon(turn),
            is_stopped: false,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).expect("it is our child");
    }

    fn kill(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }

    fn add_reports(&self, tally: &mut Tally) {
        for [created, read, deleted] in self.reports.try_iter() {
            tally.created += created;
            tally.read += read;
            tally.deleted += deleted;
        }
    }

    /// It ends when it is told to, or is killed.
    fn is_alive(&mut self) {
        let ended = self.child.try_wait().expect("it is our child");
        assert_eq!(ended, None, "a {:?} client ended by itself", self.kind);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Where a test fails. A stopped process can be killed, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Crowd<'a> {
    pub fn gather(store: &'a StoreProcess, kinds: &[Kind], names: u32) -> Self {
        let members = kinds.iter().map(|kind| Member::start(*kind, store, names));
        Self {
            store,
            names,
            members: members.collect(),
            tally: Tally::default(),
        }
    }

    /// Lets them live, stops some for a while, and kills some and has others take their places.
    pub fn live(&mut self, duration: Duration) {
        let end = Instant::now() + duration;
        while Instant::now() < end {
            for member in &mut self.members {
                member.is_alive();
                member.add_reports(&mut self.tally);
                let now = Instant::now();
                if member.dies <= now {
                    member.kill();
                    self.tally.killed += 1;
                    *member = Member::start(member.kind, self.store, self.names);
                } else if member.turns <= now {
                    member.is_stopped = !member.is_stopped;
                    if member.is_stopped {
                        member.signal(Signal::SIGSTOP);
                        member.turns = soon(5..300);
                        self.tally.stopped += 1;
                    } else {
                        member.signal(Signal::SIGCONT);
                        member.turns = soon(20..2000);
                    }
                }
            }
            thread::sleep(TICK);
        }
    }

    /// Has all of them go: some are told to, others are killed.
    pub fn leave(mut self) -> Tally {
        for (number, member) in self.members.iter_mut().enumerate() {
            if number % 2 == 0 {
                member.kill();
                self.tally.killed += 1;
            } else {
                member.signal(Signal::SIGCONT);
                member.child.stdin = None;
            }
        }
        let end = Instant::now() + patience();
        for member in self.members.iter_mut().skip(1).step_by(2) {
            let status = loop {
                if let Some(status) = member.child.try_wait().expect("it is our child") {
                    break status;
                }
                assert!(
                    Instant::now() < end,
                    "a {:?} client does not leave",
                    member.kind
                );
                thread::sleep(TICK);
            };
            assert!(status.success(), "a {:?} client: {status}", member.kind);
        }
        for member in &self.members {
            member.add_reports(&mut self.tally);
        }
        self.tally
    }
}
