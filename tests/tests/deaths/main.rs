//! What is left when somebody dies: clients and stores that are killed or stopped, at each step.

mod actor;
mod clients;
mod reconnecting;
mod stores;
mod stories;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::unistd::gettid;
use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use tempfile::TempDir;
use tests::{StoreProcess, eventually, server_program};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 16 * MIB;

/// How a client talks to its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Through the socket alone, as Arrow's do.
    Socket,
    /// Through the memory they share as far as that goes.
    Shared,
}

impl Way {
    fn client(self, socket: &Path, reconnect: bool) -> PlasmaClient {
        let builder = PlasmaClient::builder()
            .reconnect(reconnect)
            .shared_memory(self == Self::Shared);
        builder.connect(socket).expect("the store is there")
    }
}

/// A place where one store follows another.
struct Place {
    socket: PathBuf,
    _folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            socket: folder.path().join("plasma.sock"),
            _folder: folder,
        }
    }

    fn start_store(&self) -> StoreProcess {
        StoreProcess::start_at(server_program(), &self.socket, CAPACITY, &[])
    }

    /// A client that goes on with the next store.
    fn client(&self) -> PlasmaClient {
        let builder = PlasmaClient::builder().retries(0).reconnect(true);
        builder.connect(&self.socket).expect("the store is there")
    }
}

/// An object that holds these bytes and nobody holds.
fn new_object(client: &PlasmaClient, data: &[u8]) -> ObjectId {
    let id = ObjectId::rand();
    client
        .create_and_seal(id, data, b"")
        .expect("there is room");
    id
}

fn is_disconnected<T: std::fmt::Debug>(result: Result<T, PlasmaError>) -> bool {
    matches!(result, Err(PlasmaError::Disconnected))
}

/// Runs a call on a thread, and waits until it sleeps there for want of an answer, or has done
/// without.
fn under_way<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    static THREAD: AtomicI32 = AtomicI32::new(0);
    THREAD.store(0, Ordering::SeqCst);
    let thread = thread::spawn(move || {
        THREAD.store(gettid().as_raw(), Ordering::SeqCst);
        call()
    });
    eventually("the call waits for its answer", || {
        if thread.is_finished() {
            return true;
        }
        let id = THREAD.load(Ordering::SeqCst);
        let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat"));
        let stat = stat.unwrap_or_default();
        // The name, in parentheses, may hold anything; the state is what follows it.
        stat.rsplit_once(')')
            .is_some_and(|(_, fields)| fields.trim_start().starts_with('S'))
    });
    thread
}
