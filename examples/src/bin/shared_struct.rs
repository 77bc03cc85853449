//! One struct in two processes: with an enum, arrays and a nested struct, all plain Rust.
//!
//! ```text
//! shared_struct [--store SOCKET]
//! ```
//!
//! A drone reports where it is; the tower, this program started again, reads the report where it
//! lies and answers with an order. No field is encoded or decoded on the way.

use std::error::Error;
use std::mem::offset_of;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use examples::{StoreArgs, finish};
use plasma_typed::{GetError, Key, ObjectId, PlasmaObject, TypedClient};

/// Its fields lie as in C, without gaps: the compiler would say where a gap is, and how long.
#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Report {
    time_ns: u64,
    position: [f64; 3],
    rotors: [Rotor; 4],
    battery: f32,
    mode: Mode,
    airborne: bool,
    _pad: [u8; 2],
}

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Rotor {
    rpm: u32,
    celsius: f32,
}

/// Whoever gets it can match on it: a number that stands for no variant is an error of the get.
#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Mode {
    Parked,
    Climbing,
    Cruising,
    Landing,
}

#[derive(PlasmaObject, Clone, Copy, Debug, PartialEq)]
#[repr(C)]
struct Order {
    answers_ns: u64,
    target: [f64; 3],
    mode: Mode,
    _pad: [u8; 7],
}

/// Below this, a drone has to land.
const LOW_BATTERY: f32 = 0.2;

#[derive(Parser)]
#[command(about = "A struct with enums and arrays, shared by two processes")]
struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Be the tower for this report, as the process that another `shared_struct` started
    #[arg(long, hide = true, requires = "order")]
    report: Option<Key<Report>>,
    /// Where the tower's order is expected
    #[arg(long, hide = true)]
    order: Option<Key<Order>>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let store = args.store.open(1 << 20)?;
    let client = store.connect()?;
    if let (Some(report), Some(order)) = (args.report, args.order) {
        return tower(&client, report, order);
    }

    println!("{}\n", Report::SCHEMA);
    let report = fly(&client)?;
    let order = Key::<Order>::new(ObjectId::rand());
    let mut tower = store.second_process()?;
    tower.arg("--report").arg(report.to_string());
    tower.arg("--order").arg(order.to_string());
    examples::run(&mut tower)?;

    let order = client.get(order)?.ok_or("the tower gave no order")?;
    println!("drone: ordered to {:?} at {:?}", order.mode, order.target);
    if (order.answers_ns, order.mode) != (1_700_000_000, Mode::Landing) {
        return Err(format!("a drone with an empty battery was given {order:?}").into());
    }
    meet_a_stranger(&client, report)?;
    client.delete(report)?;
    client.delete(order.key())?;
    Ok(())
}

/// Gets a report as a program would write it that does not know what modes there are.
fn meet_a_stranger(client: &TypedClient, report: Key<Report>) -> Result<(), Box<dyn Error>> {
    let untyped = client.untyped();
    let original = untyped.get(report.into(), 0)?.ok_or("the report is gone")?;
    let mut bytes = original.data().to_vec();
    bytes[offset_of!(Report, mode)] = 9;
    let id = ObjectId::rand();
    untyped.create_and_seal(id, &bytes, original.meta())?;

    let outcome = client.get::<Report>(id);
    client.delete(id)?;
    match outcome {
        Err(error @ GetError::InvalidValue { .. }) => println!("drone: {error}"),
        other => return Err(format!("a mode that is none was taken for one: {other:?}").into()),
    }
    Ok(())
}

/// Writes a report in place.
fn fly(client: &TypedClient) -> Result<Key<Report>, Box<dyn Error>> {
    // All fields are 0, `Mode::Parked` and `false` to begin with.
    let mut report = client.create::<Report>(ObjectId::rand())?;
    report.time_ns = 1_700_000_000;
    report.position = [52.52, 13.405, 120.0];
    for (number, rotor) in (0..).zip(&mut report.rotors) {
        rotor.rpm = 5200 + 25 * number;
        rotor.celsius = 61.5;
    }
    report.battery = 0.17;
    report.mode = Mode::Cruising;
    report.airborne = true;

    let report = report.seal()?;
    println!("drone: sealed a report of {} bytes", report.size_bytes());
    Ok(report.key())
}

/// Reads the report where it lies, and answers.
fn tower(
    client: &TypedClient,
    report: Key<Report>,
    order: Key<Order>,
) -> Result<(), Box<dyn Error>> {
    let report = client.wait(report, Duration::from_secs(5))?;
    let fastest = report.rotors.iter().map(|rotor| rotor.rpm).max();
    println!(
        "tower: {:?} at {:?}, battery {:.0} %, rotors up to {} rpm",
        report.mode,
        report.position,
        report.battery * 100.0,
        fastest.unwrap_or(0),
    );

    let mode = match report.mode {
        Mode::Climbing | Mode::Cruising if report.battery < LOW_BATTERY => Mode::Landing,
        mode => mode,
    };
    let [north, east, _] = report.position;
    client.put_at(
        order,
        &Order {
            answers_ns: report.time_ns,
            target: [north, east, 0.0],
            mode,
            _pad: [0; 7],
        },
    )?;
    Ok(())
}
