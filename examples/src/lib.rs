//! What the example programs share.
//!
//! Documentation tests run for libraries only, so what `quickstart` says of the compiler is tested
//! here: see [`WRITE_AFTER_SEAL`].

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Args;
use plasma_core::PlasmaError;
use plasma_store::{Store, StoreHandle};
use plasma_typed::TypedClient;

/// Ends a program as its user expects: with status 0, or with the error in words.
pub fn finish(outcome: Result<(), Box<dyn Error>>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The option that says which store a program works with.
#[derive(Args, Debug)]
pub struct StoreArgs {
    /// The socket of a running store (without it, this program starts one)
    #[arg(long, value_name = "SOCKET")]
    store: Option<PathBuf>,
}

/// The store that a program works with; one that it started ends with this.
#[derive(Debug)]
pub struct OpenStore {
    socket: PathBuf,
    _own: Option<StoreHandle>,
}

impl StoreArgs {
    /// The store that was named or else a new one, on a thread of this process, which holds so
    /// many bytes.
    ///
    /// # Errors
    /// No store can be started.
    pub fn open(self, capacity_bytes: u64) -> Result<OpenStore, Box<dyn Error>> {
        if let Some(socket) = self.store {
            return Ok(OpenStore { socket, _own: None });
        }
        let store = Store::builder().capacity(capacity_bytes).spawn()?;
        Ok(OpenStore {
            socket: store.socket().to_owned(),
            _own: Some(store),
        })
    }
}

impl OpenStore {
    /// A new connection to it.
    ///
    /// # Errors
    /// It is not there.
    pub fn connect(&self) -> Result<TypedClient, PlasmaError> {
        TypedClient::connect(&self.socket)
    }

    /// The path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// This program as a process of its own, told of this store, to be given more arguments.
    ///
    /// # Errors
    /// The system does not know where this program lies.
    pub fn second_process(&self) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--store").arg(&self.socket);
        Ok(command)
    }
}

/// Runs a command to its end.
///
/// # Errors
/// It does not start, or does not end with status 0.
pub fn run(command: &mut Command) -> Result<(), Box<dyn Error>> {
    let status = command.status().map_err(|error| {
        format!(
            "{} does not start: {error}",
            command.get_program().display()
        )
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("{} failed: {status}", command.get_program().display()).into()),
    }
}

/// Two lines that do not compile one after the other, as `quickstart` shows them, and what rustc
/// says of the second.
///
/// ```compile_fail,E0382
/// # use plasma_typed::{Create, PlasmaObject};
/// # #[derive(PlasmaObject)]
/// # #[repr(C)]
/// # struct Recording { rate_hz: u64, samples: [u64] }
/// # fn write(mut recording: Create<Recording>) -> Result<(), Box<dyn std::error::Error>> {
/// let sealed = recording.seal()?;
/// recording.samples[0] = 1;
/// # Ok(())
/// # }
/// ```
///
/// The other way round they do:
///
/// ```
/// # use plasma_typed::{Create, PlasmaObject};
/// # #[derive(PlasmaObject)]
/// # #[repr(C)]
/// # struct Recording { rate_hz: u64, samples: [u64] }
/// # fn write(mut recording: Create<Recording>) -> Result<(), Box<dyn std::error::Error>> {
/// recording.samples[0] = 1;
/// let sealed = recording.seal()?;
/// # Ok(())
/// # }
/// ```
pub const WRITE_AFTER_SEAL: [&str; 3] = [
    "let sealed = recording.seal()?;",
    "recording.samples[0] = 1;",
    "^^^^^^^^^ error[E0382]: borrow of moved value: `recording`",
];
