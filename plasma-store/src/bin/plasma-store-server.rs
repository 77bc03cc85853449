//! `plasma-store-server`: a Plasma store with the command line of Arrow's.

// What a peer sends must never end this process: nothing here panics on what it has not made.
#![deny(
    clippy::expect_used,
    clippy::get_unwrap,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser};
use nix::sys::signal::{SigSet, Signal};
use plasma_store::{Prefault, Store, StoreBuilder};
use tracing_appender::non_blocking::NonBlockingBuilder;
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
  --prefault WHEN           put memory behind the whole capacity: off (as objects need it; the
                            default), background (while serving), full (before serving)
  --poll-time MICROS        how long to look for the next request before the store sleeps, at most;
                            50 unless told, and 0 where there is one processor
  --metrics IP:PORT         tell Prometheus how the store does, at http://IP:PORT/metrics
  --log LEVEL               what to log: off, error, warn (the default), info, debug, trace
  --help                    print this
  --version                 print the version

Who may connect: the user who starts the store, unless told otherwise:
  --mode OCTAL              the socket's permissions: 600, or with --group 660, with --allow-uid 666
  --group NAME              the socket's group, which may connect
  --allow-uid UID           let this user connect, and apart from the store's own only those who are
                            listed so; may be given again

Limits, and what comes of those who go beyond them (the log says who did, and which it was):
  --max-clients N           connections at a time, 4096 unless told; one more is closed. A client is
                            one, and one more for each subscription and for each thread whose get
                            waits through the socket
  --max-subscriptions N     subscriptions at a time, 1024 unless told; the stream of one more is
                            closed
  --max-objects N           objects at a time, whatever their size, up to 16 million; 4 million and
                            one for every 64 bytes of capacity unless told; then others are evicted
  --max-ids N               objects that a request may name; 1048576 unless told, and no more
                            [cut off]
  --max-request-bytes N     length of a request; capacity (of which 2 GiB count) and 128 MiB unless
                            told; at most 2 GiB and 128 MiB [cut off]
  --max-unfinished-bytes N  parts of requests whose rest has not come, of all clients together; two
                            of the longest requests unless told [cut off, if it sent over 1 MiB]
  --max-unread-bytes N      replies that a client has not read, and apart from them notifications;
                            256 MiB unless told [cut off; its notifications end]
  --max-waiting-ids N       objects that a client's waiting gets may name together, each get
                            counting for 64 more; 4194304 unless told [cut off]
  --stall-timeout SECS      how long a client may read nothing of what it is sent; 30 unless told
                            [cut off]

What clients of this project share with the store beside the socket; Arrow's never do:
  --no-shared-memory        nothing: everything goes through the socket
  --max-pins N              objects that a client can hold without asking, 8192 unless told, 1048576
                            at most; what it holds beyond that goes through the socket; 0 is
                            --no-shared-memory
  --ring-requests N         small requests a client can have under way in memory, 256 unless told,
                            65536 at most, rounded up to a power of two; 0 has them go through the
                            socket
  --ring-bytes N            bytes of content it can have under way there, 262144 unless told, 1 GiB
                            at most, rounded up to a multiple of 64; 0 has content go through the
                            socket

Options take one dash or two, and their value behind a space or an equals sign.
SIGTERM and SIGINT end the store and remove its socket. Logs go to standard error; without --log the
environment variable PLASMA_LOG says what to log.
";

/// Lines of the log that are kept until somebody takes them.
const MAX_LOG_LINES: usize = 10_000;

enum Command {
    Serve(Box<StoreBuilder>, Option<LevelFilter>),
    Print(String),
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Command::Print(text)) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Ok(Command::Serve(store, level)) => serve(*store, level),
        Err(error) => {
            eprintln!("plasma-store-server: {error} (see --help)");
            ExitCode::from(2)
        }
    }
}

fn serve(store: StoreBuilder, level: Option<LevelFilter>) -> ExitCode {
    let quiet = EnvFilter::builder().with_default_directive(LevelFilter::WARN.into());
    let filter = match level {
        Some(level) => EnvFilter::default().add_directive(level.into()),
        None => quiet.with_env_var("PLASMA_LOG").from_env_lossy(),
    };
    // Whoever is to read the log may not, or be gone: that is never waited for, and lines are dropped
    // in the end. The thread that writes them must leave signals to the store.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    if let Err(error) = signals.thread_block() {
        eprintln!("plasma-store-server: cannot wait for signals: {error}");
        return ExitCode::FAILURE;
    }
    let (log, _written_at_the_end) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_LOG_LINES)
        .finish(std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(log)
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

/// The options whose names have more than one letter.
const LONG_OPTIONS: [&str; 22] = [
    "prefault",
    "metrics",
    "log",
    "mode",
    "group",
    "allow-uid",
    "max-clients",
    "max-subscriptions",
    "max-objects",
    "max-ids",
    "max-request-bytes",
    "max-unfinished-bytes",
    "max-unread-bytes",
    "max-waiting-ids",
    "stall-timeout",
    "no-shared-memory",
    "max-pins",
    "ring-requests",
    "ring-bytes",
    "poll-time",
    "help",
    "version",
];

/// One dash does for a long option, as with Arrow's server.
fn with_two_dashes(arg: OsString) -> OsString {
    let name = arg.to_str().and_then(|arg| arg.strip_prefix('-'));
    let name = name.map(|name| name.split_once('=').map_or(name, |(name, _)| name));
    if name.is_some_and(|name| LONG_OPTIONS.contains(&name)) {
        let mut two = OsString::from("-");
        two.push(arg);
        return two;
    }
    arg
}

fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let parser = &mut Parser::from_args(args.map(with_two_dashes));
    let mut store = Store::builder();
    let (mut capacity, mut socket, mut level) = (false, false, None);
    while let Some(arg) = parser.next()? {
        store = match arg {
            Arg::Short('m') | Arg::Long("m") => {
                capacity = true;
                let takes = "-m takes a number of bytes, such as 2000000000";
                store.capacity(parsed(parser, takes)?)
            }
            Arg::Short('s') | Arg::Long("s") => {
                socket = true;
                store.socket(parser.value()?)
            }
            Arg::Short('d') | Arg::Long("d") => store.directory(parser.value()?),
            Arg::Short('h') | Arg::Long("h") => {
                // Without a value it is on; Arrow's takes one behind an equals sign.
                let told = parser.optional_value();
                let takes = "-h takes true or false behind an equals sign, or nothing";
                store.huge_pages(told.map_or(Ok(true), |told| {
                    read(&told, takes, |text| text.parse().ok())
                })?)
            }
            Arg::Short('e') | Arg::Long("e") => {
                let takes = "-e takes the endpoint of an external store, such as hashtable://NAME";
                store.external_store(value(parser, takes, |text| Some(text.to_owned()))?)
            }
            Arg::Long("prefault") => {
                let takes = "--prefault takes one of off, background, full";
                store.prefault(value(parser, takes, prefault)?)
            }
            Arg::Long("poll-time") => store.poll_time(Duration::from_micros(number(
                parser,
                "poll-time",
                "microseconds",
            )?)),
            Arg::Long("mode") => {
                let takes = "--mode takes permissions in octal digits, such as 660";
                store.mode(value(parser, takes, |text| {
                    u32::from_str_radix(text, 8).ok()
                })?)
            }
            Arg::Long("group") => {
                let takes = "--group takes a group's name or number, such as users";
                store.group(value(parser, takes, |text| Some(text.to_owned()))?)
            }
            Arg::Long("allow-uid") => {
                let takes = "--allow-uid takes the number of a user, such as 1000";
                store.allow_uid(parsed(parser, takes)?)
            }
            Arg::Long("metrics") => {
                let takes = "--metrics takes an IP address and a port, such as 127.0.0.1:9187";
                store.metrics(parsed::<SocketAddr>(parser, takes)?)
            }
            Arg::Long("log") => {
                let takes = "--log takes one of off, error, warn, info, debug, trace";
                level = Some(parsed(parser, takes)?);
                store
            }
            Arg::Long("max-clients") => {
                store.max_clients(number(parser, "max-clients", "connections")?)
            }
            Arg::Long("max-subscriptions") => {
                store.max_subscriptions(number(parser, "max-subscriptions", "subscriptions")?)
            }
            Arg::Long("max-objects") => {
                store.max_objects(number(parser, "max-objects", "objects")?)
            }
            Arg::Long("max-ids") => store.max_ids(number(parser, "max-ids", "objects")?),
            Arg::Long("max-request-bytes") => {
                store.max_request_bytes(number(parser, "max-request-bytes", "bytes")?)
            }
            Arg::Long("max-unfinished-bytes") => {
                store.max_unfinished_bytes(number(parser, "max-unfinished-bytes", "bytes")?)
            }
            Arg::Long("max-unread-bytes") => {
                store.max_unread_bytes(number(parser, "max-unread-bytes", "bytes")?)
            }
            Arg::Long("max-waiting-ids") => {
                store.max_waiting_ids(number(parser, "max-waiting-ids", "objects")?)
            }
            Arg::Long("stall-timeout") => store.stall_timeout(Duration::from_secs(number(
                parser,
                "stall-timeout",
                "seconds",
            )?)),
            Arg::Long("no-shared-memory") => store.shared_memory(false),
            Arg::Long("max-pins") => store.max_pins(number(parser, "max-pins", "objects")?),
            Arg::Long("ring-requests") => {
                store.ring_requests(number(parser, "ring-requests", "requests")?)
            }
            Arg::Long("ring-bytes") => store.ring_bytes(number(parser, "ring-bytes", "bytes")?),
            Arg::Long("help") => return Ok(Command::Print(HELP.into())),
            Arg::Long("version") => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Command::Print(format!("plasma-store-server {version}\n")));
            }
            other => return Err(other.unexpected()),
        };
    }
    match (capacity, socket) {
        (true, true) => Ok(Command::Serve(Box::new(store), level)),
        (false, _) => Err("how large is the store to be? give -m BYTES".into()),
        (_, false) => Err("where is the store to listen? give -s SOCKET".into()),
    }
}

/// An option's value, which is text of one kind; `takes` says of which option, and of what kind.
fn value<T>(
    parser: &mut Parser,
    takes: &str,
    kind: impl FnOnce(&str) -> Option<T>,
) -> Result<T, lexopt::Error> {
    read(&parser.value()?, takes, kind)
}

fn read<T>(
    value: &OsStr,
    takes: &str,
    kind: impl FnOnce(&str) -> Option<T>,
) -> Result<T, lexopt::Error> {
    let read = value.to_str().and_then(kind);
    read.ok_or_else(|| format!("{takes}, not {value:?}").into())
}

/// The same where the kind is written as Rust writes it.
fn parsed<T: FromStr>(parser: &mut Parser, takes: &str) -> Result<T, lexopt::Error> {
    value(parser, takes, |text| text.parse().ok())
}

fn number<T: FromStr>(parser: &mut Parser, option: &str, of: &str) -> Result<T, lexopt::Error> {
    parsed(parser, &format!("--{option} takes a whole number of {of}"))
}

fn prefault(text: &str) -> Option<Prefault> {
    match text {
        "off" => Some(Prefault::Off),
        "background" => Some(Prefault::Background),
        "full" => Some(Prefault::Full),
        _ => None,
    }
}
