//! A picture from a camera to a viewer: a header of fixed size, pixels of any number, and metadata
//! of one's own.
//!
//! ```text
//! image [--store SOCKET] [--pgm FILE]
//! ```
//!
//! The camera is a process of its own, this program started again. The viewer waits for its
//! picture, checks it, and shows it in the terminal.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str;
use std::time::Duration;

use clap::Parser;
use examples::{StoreArgs, finish};
use plasma_typed::{Key, ObjectId, PlasmaObject, TypedClient};

/// One shade of grey a pixel, row after row. The tail's length is stored with the object.
#[derive(PlasmaObject)]
#[repr(C)]
struct Image {
    width: u32,
    height: u32,
    pixels: [u8],
}

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const CAMERA: &str = "camera 3, north gate";

#[derive(Parser)]
#[command(about = "A picture with a header and user metadata, from one process to another")]
struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// Write the picture to this file as well, as a portable graymap
    #[arg(long, value_name = "FILE")]
    pgm: Option<PathBuf>,
    /// Take this picture, as the process that another `image` started
    #[arg(long, hide = true)]
    take: Option<Key<Image>>,
}

fn main() -> ExitCode {
    finish(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let store = args.store.open(1 << 20)?;
    let client = store.connect()?;
    if let Some(key) = args.take {
        return take(&client, key);
    }

    let key = Key::<Image>::new(ObjectId::rand());
    let mut camera = store.second_process()?;
    examples::run(camera.arg("--take").arg(key.to_string()))?;
    view(&client, key, args.pgm.as_deref())?;
    client.delete(key)?;
    Ok(())
}

/// Draws a picture where it is to lie in shared memory.
fn take(client: &TypedClient, key: Key<Image>) -> Result<(), Box<dyn Error>> {
    let creator = client.creator().user_meta(CAMERA.as_bytes());
    let mut image = creator.create_with_len(key, (WIDTH * HEIGHT) as usize)?;
    image.width = WIDTH;
    image.height = HEIGHT;
    let rows = image.pixels.chunks_exact_mut(WIDTH as usize);
    for (y, row) in (0..).zip(rows) {
        for (x, pixel) in (0..).zip(row) {
            *pixel = shade(x, y);
        }
    }
    image.seal()?;
    Ok(())
}

/// Looks at a picture where it lies.
fn view(client: &TypedClient, key: Key<Image>, pgm: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let image = client.wait(key, Duration::from_secs(5))?;
    println!(
        "{} x {} pixels from {}",
        image.width,
        image.height,
        str::from_utf8(image.user_meta())?
    );

    // That there are as many pixels as the object says is checked; what the fields mean is not.
    if image.pixels.len() as u64 != u64::from(image.width) * u64::from(image.height) {
        return Err(format!("{} pixels are not that many", image.pixels.len()).into());
    }
    let rows: Vec<&[u8]> = image.pixels.chunks_exact(image.width as usize).collect();
    for (y, row) in (0..).zip(&rows) {
        for (x, pixel) in (0..).zip(*row) {
            if *pixel != shade(x, y) {
                return Err(format!("the pixel at {x}, {y} is {pixel}").into());
            }
        }
    }

    for row in rows.iter().step_by(24) {
        let row = row.iter().step_by(12).map(|pixel| ink(*pixel));
        println!("{}", row.collect::<String>());
    }
    if let Some(path) = pgm {
        let mut file = BufWriter::new(File::create(path)?);
        writeln!(file, "P5 {} {} 255", image.width, image.height)?;
        file.write_all(&image.pixels)?;
        file.flush()?;
        println!("written to {}", path.display());
    }
    Ok(())
}

/// What the camera sees: a ball in front of a wall that gets darker downwards.
fn shade(x: u32, y: u32) -> u8 {
    const RADIUS: f32 = 190.0;
    let across = x as f32 - 320.0;
    let down = y as f32 - 240.0;
    let towards = RADIUS * RADIUS - across * across - down * down;
    let light = match towards > 0.0 {
        // The lamp is above, to the left and in front.
        true => (0.6 * towards.sqrt() - 0.55 * across - 0.58 * down) / RADIUS,
        false => 0.3 - 0.2 * y as f32 / HEIGHT as f32,
    };
    (light * 255.0) as u8
}

/// A character that is as dark as a pixel is bright, as terminals are dark.
fn ink(pixel: u8) -> char {
    const INKS: &[u8; 10] = b" .:-=+*#%@";
    char::from(INKS[usize::from(pixel) * INKS.len() / 256])
}
