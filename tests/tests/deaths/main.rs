//! What is left when somebody dies: clients and stores that are killed or stopped, at each step.

mod actor;
mod clients;
mod reconnecting;
mod stores;
mod stories;

use std::path::PathBuf;
use std::time::Duration;

use plasma_core::{ObjectId, PlasmaClient, PlasmaError};
use tempfile::TempDir;
use tests::{StoreProcess, server_program};

const LIMIT: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
const CAPACITY: u64 = 16 * MIB;

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
