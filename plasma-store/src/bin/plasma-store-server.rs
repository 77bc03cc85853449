//! `plasma-store-server`: a Plasma store with the command line of Arrow's.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};
use plasma_store::{Prefault, Store, StoreBuilder};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

const HELP: &str = "\
A Plasma store: objects in shared memory that every process on this machine reads without a copy.

Usage: plasma-store-server -m BYTES -s SOCKET [options]

Required, as for Arrow's server:
  -m BYTES       data and metadata that the store holds at most, as a plain number
  -s SOCKET      the Unix socket to listen at

Options, as for Arrow's server:
  -d DIR         take the memory from DIR's file system instead of anonymous memory
  -h             use huge pages (this is not help); DIR is a hugetlbfs mount then
  -e ENDPOINT    where evicted objects go instead of being dropped; there is hashtable://NAME

Further options:
  --prefault WHEN        put memory behind the whole capacity: off (as objects need it; the
                         default), background (while serving), full (before serving)
  --mode OCTAL           the socket's permissions, 600 unless told: who may connect
  --group NAME           the socket's group; give it permission with --mode 660
  --max-clients N        connections at a time, 4096 unless told
  --max-objects N        objects at a time, whatever their size
  --stall-timeout SECS   cut off clients that do not read for this long, 30 unless told
  --help                 print this
  --version              print the version

Options take one dash or two, and their value behind a space or an equals sign.
SIGTERM and SIGINT end the store and remove its socket. Logs go to standard error; the environment
variable PLASMA_LOG sets how much (error, warn, info, debug; info unless told).
";

enum Command {
    Serve(StoreBuilder),
    Print(String),
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Command::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Command::Serve(store)) => serve(store),
        Err(error) => {
            eprintln!("plasma-store-server: {error} (see --help)");
            ExitCode::from(2)
        }
    }
}

fn serve(store: StoreBuilder) -> ExitCode {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("PLASMA_LOG")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match store.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plasma-store-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut parser = Parser::from_args(args);
    let mut store = Store::builder();
    let (mut capacity, mut socket) = (false, false);
    while let Some(arg) = parser.next()? {
        store = match arg {
            Arg::Short('m') | Arg::Long("m") => {
                capacity = true;
                store.capacity(parser.value()?.parse_with(bytes)?)
            }
            Arg::Short('s') | Arg::Long("s") => {
                socket = true;
                store.socket(parser.value()?)
            }
            Arg::Short('d') | Arg::Long("d") => store.directory(parser.value()?),
            Arg::Short('h') | Arg::Long("h") => {
                // Without a value it is on; Arrow's takes one behind an equals sign.
                let value = parser.optional_value();
                store.huge_pages(value.map_or(Ok(true), |value| value.parse())?)
            }
            Arg::Short('e') | Arg::Long("e") => store.external_store(parser.value()?.string()?),
            Arg::Long("prefault") => store.prefault(parser.value()?.parse_with(prefault)?),
            Arg::Long("mode") => store.mode(parser.value()?.parse_with(mode)?),
            Arg::Long("group") => store.group(parser.value()?.string()?),
            Arg::Long("max-clients") => store.max_clients(parser.value()?.parse()?),
            Arg::Long("max-objects") => store.max_objects(parser.value()?.parse()?),
            Arg::Long("stall-timeout") => {
                store.stall_timeout(Duration::from_secs(parser.value()?.parse()?))
            }
            Arg::Long("help") => return Ok(Command::Print(HELP.into())),
            Arg::Long("version") => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Command::Print(format!("plasma-store-server {version}\n")));
            }
            other => return Err(other.unexpected()),
        };
    }
    match (capacity, socket) {
        (true, true) => Ok(Command::Serve(store)),
        (false, _) => Err("how large is the store to be? give -m BYTES".into()),
        (_, false) => Err("where is the store to listen? give -s SOCKET".into()),
    }
}

fn bytes(text: &str) -> Result<u64, &'static str> {
    text.parse()
        .map_err(|_| "-m takes a number of bytes, such as 2000000000")
}

fn mode(text: &str) -> Result<u32, &'static str> {
    u32::from_str_radix(text, 8)
        .map_err(|_| "--mode takes permissions in octal digits, such as 660")
}

fn prefault(text: &str) -> Result<Prefault, &'static str> {
    match text {
        "off" => Ok(Prefault::Off),
        "background" => Ok(Prefault::Background),
        "full" => Ok(Prefault::Full),
        _ => Err("--prefault takes one of off, background, full"),
    }
}
