//! For the project's own fuzz targets, and no part of what this crate promises.

use std::fmt::Debug;

use plasma_core::ObjectId;

use crate::{GetError, Key, PlasmaObject, header, memory, sealed};

#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "crate")]
#[repr(C)]
struct Tick {
    ts_ns: u64,
    price: f64,
    symbol: char,
    side: Side,
    last: bool,
    levels: [Level; 2],
    _pad: [u8; 2],
}

#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "crate")]
#[repr(i8)]
enum Side {
    Buy = -1,
    Sell = 1,
}

#[derive(PlasmaObject, Clone, Copy, Debug)]
#[plasma(crate = "crate", name = "Level", version = 3)]
#[repr(C)]
struct Level(std::num::NonZeroU16, bool, u8);

#[derive(PlasmaObject, Debug)]
#[plasma(crate = "crate")]
#[repr(C)]
struct Series {
    origin: Key<Tick>,
    step: u32,
    ticks: [Tick],
}

#[derive(PlasmaObject, Debug)]
#[plasma(crate = "crate")]
#[repr(C)]
struct Text {
    language: [char; 2],
    aligned: u64,
    text: str,
}

/// Opens bytes as an object of one of a few types. What they are:
///
/// - the type; how far from an aligned address the data is to lie
/// - whether the header is as it is in front of a right object (1), or among the other bytes
/// - length of the tail, 2 bytes, and length of the metadata, 2 bytes
/// - metadata (or user metadata), and data
pub fn object(bytes: &[u8]) {
    let Some((&[kind, offset, right, t0, t1, m0, m1], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let tail_len = u16::from_le_bytes([t0, t1]).into();
    let meta_len = usize::from(u16::from_le_bytes([m0, m1])).min(rest.len());
    let Some((meta, data)) = rest.split_at_checked(meta_len) else {
        return;
    };
    let open = match kind % 8 {
        0 => open::<Tick>,
        1 => open::<Series>,
        2 => open::<Text>,
        3 => open::<str>,
        4 => open::<[Side]>,
        5 => open::<[bool]>,
        6 => open::<u128>,
        _ => open::<[[Tick; 2]]>,
    };
    open(data, offset, (right == 1).then_some(tail_len), meta);
}

fn open<T: ?Sized + PlasmaObject + Debug>(
    data: &[u8],
    offset: u8,
    tail_len: Option<u64>,
    meta: &[u8],
) {
    let meta = match tail_len {
        Some(tail_len) => header::encode::<T>(tail_len, meta).expect("it is short"),
        None => meta.into(),
    };
    let mut room = vec![0; data.len() + 2 * usize::from(u8::MAX)];
    let start = room.as_ptr().align_offset(64) + usize::from(offset);
    let place = room
        .get_mut(start..)
        .and_then(|room| room.get_mut(..data.len()));
    let place = place.expect("there is room");
    place.copy_from_slice(data);

    match sealed::read::<T>(ObjectId::new([7; 20]), place, &meta) {
        Ok((value, user_meta)) => {
            assert_eq!(
                Some(memory::bytes_of(value)),
                place.get(..size_of_tailed(value))
            );
            assert!(meta.ends_with(user_meta));
            // Every byte of it is looked at.
            assert!(!format!("{value:?}").is_empty());
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            if let GetError::SchemaMismatch { mismatch, .. } = error {
                assert_eq!(tail_len, None);
                let _ = (mismatch.found(), mismatch.differences());
            }
        }
    }
}

/// Bytes of a value without what rounds its size up behind a tail.
fn size_of_tailed<T: ?Sized + PlasmaObject>(value: &T) -> usize {
    let element = T::SCHEMA.element_size();
    element.map_or(size_of_val(value), |size| {
        T::SCHEMA.size() + size * T::tail_len(value)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn what_fuzzing_found_stays_mended() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/typed");
        let mut objects = 0;
        for file in fs::read_dir(corpus).expect("the corpus is in the repository") {
            let path = file.expect("a file").path();
            println!("{}", path.display());
            super::object(&fs::read(path).expect("a file"));
            objects += 1;
        }
        assert!(objects > 0);
    }
}
