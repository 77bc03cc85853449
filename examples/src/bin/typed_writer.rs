//! One object of each kind, for programs in other languages to read: what they need to know is
//! stored with the objects.
//!
//! ```text
//! typed_writer [--store SOCKET] [COMMAND…]
//! ```
//!
//! It writes the objects, shows their schemas, and runs the command with the socket's path as its
//! last argument. With Python, `pyarrow` 11 and numpy:
//!
//! ```text
//! typed_writer -- python3 examples/python/read_typed.py
//! ```

use std::error::Error;
use std::num::NonZero;
use std::process::{Command, ExitCode};

use clap::Parser;
use examples::{StoreArgs, finish};
use plasma_typed::{Key, PlasmaObject, TypedClient};

#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(name = "weather.Station", version = 2)]
#[repr(C)]
struct Station {
    serial: u128,
    place: Place,
    /// Three sensors, the last four values of each.
    history: [[f32; 4]; 3],
    offset: i16,
    state: State,
    battery_powered: bool,
    symbol: char,
    alarms: [State; 4],
    interval_s: NonZero<u16>,
    _pad: [u8; 2],
}

#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(name = "weather.Place")]
#[repr(C)]
struct Place {
    north: f64,
    east: f64,
}

#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(name = "weather.State")]
#[repr(u8)]
enum State {
    Off,
    Fine,
    Broken = 255,
}

#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(name = "weather.Reading")]
#[repr(C)]
struct Reading {
    ts_ns: u64,
    celsius: f64,
}

#[derive(PlasmaObject)]
#[plasma(name = "weather.Image")]
#[repr(C)]
struct Image {
    width: u32,
    height: u32,
    pixels: [u8],
}

#[derive(Parser)]
#[command(about = "Writes one typed object of each kind, for programs in other languages")]
struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// A program that reads the objects, and its arguments; the socket's path is added
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let store = args.store.open(1 << 20)?;
    let client = store.connect()?;

    put(
        &client,
        "station",
        &Station {
            serial: 1 << 100,
            place: Place {
                north: 52.52,
                east: 13.405,
            },
            history: [
                [0.0, 0.25, 0.5, 0.75],
                [1.0, 1.25, 1.5, 1.75],
                [2.0, 2.25, 2.5, 2.75],
            ],
            offset: -300,
            state: State::Fine,
            battery_powered: true,
            symbol: '☂',
            alarms: [State::Off, State::Fine, State::Off, State::Broken],
            interval_s: NonZero::<u16>::MIN,
            _pad: [0; 2],
        },
    )?;
    let readings: Vec<Reading> = (0..1000)
        .map(|index| Reading {
            ts_ns: index * 1_000_000_000,
            celsius: index as f64 / 8.0,
        })
        .collect();
    put(&client, "readings", &readings[..])?;
    let wind: &[[f32; 3]] = &[[0.5, 0.0, -0.5], [1.5, 0.25, -2.0]];
    put(&client, "wind", wind)?;
    put::<[[u16; 3]; 2]>(&client, "grid", &[[1, 2, 3], [4, 5, 6]])?;
    put::<[State]>(&client, "alarms", &[])?;
    put(&client, "greeting", "Grüße aus Rust")?;
    put_image(&client)?;

    match args.command.split_first() {
        Some((program, args)) => {
            let mut command = Command::new(program);
            examples::run(command.args(args).arg(store.socket()))
        }
        None => Ok(()),
    }
}

/// Stores a value under a name that programs in any language can compute.
fn put<T: ?Sized + PlasmaObject>(
    client: &TypedClient,
    name: &str,
    value: &T,
) -> Result<(), Box<dyn Error>> {
    let key = announce::<T>(client, name)?;
    // What the type is in numpy, for readers that would rather not make it out of the schema.
    let dtype = T::SCHEMA.numpy_dtype();
    let creator = client.creator().user_meta(dtype.as_bytes());
    creator.put_at(key, value)?;
    Ok(())
}

/// The same for an object that is written where it is to lie.
fn put_image(client: &TypedClient) -> Result<(), Box<dyn Error>> {
    let key = announce::<Image>(client, "image")?;
    let dtype = Image::SCHEMA.numpy_dtype();
    let creator = client.creator().user_meta(dtype.as_bytes());
    let mut image = creator.create_with_len(key, 15)?;
    image.width = 5;
    image.height = 3;
    for (pixel, shade) in image.pixels.iter_mut().zip((0..).step_by(10)) {
        *pixel = shade;
    }
    image.seal()?;
    Ok(())
}

/// The key of a name, under which there is no object any more.
fn announce<T: ?Sized + PlasmaObject>(
    client: &TypedClient,
    name: &str,
) -> Result<Key<T>, Box<dyn Error>> {
    let key = Key::from_name(&format!("typed_writer/{name}"));
    client.delete(key)?;
    println!("{name} is {}", T::SCHEMA);
    Ok(key)
}
