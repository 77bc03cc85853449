//! Histories out of bytes.

use arbitrary::{Result, Unstructured};

use super::*;

/// The most that happens in one history.
const MAX_OPS: usize = 400;

/// Lives through the history that bytes stand for.
pub fn history(data: &[u8]) {
    // Where bytes run out, so does the history.
    let _ = live(&mut Unstructured::new(data));
}

fn live(bytes: &mut Unstructured<'_>) -> Result<()> {
    let flags: u8 = bytes.arbitrary()?;
    let max_objects = if flags & 1 == 0 { 100 } else { 5 };
    let mut world = World::new(flags & 2 != 0, max_objects);
    for _ in 0..MAX_OPS {
        if bytes.is_empty() {
            break;
        }
        world.apply(&op(bytes)?);
        world.check();
    }
    world.end(flags & 4 != 0);
    Ok(())
}

fn op(bytes: &mut Unstructured<'_>) -> Result<Op> {
    Ok(match bytes.int_in_range(0..=14_u8)? {
        0 => {
            let (seat, id) = (seat(bytes)?, object(bytes)?);
            let data_size = size(bytes)?;
            Op::Create(
                seat,
                id,
                data_size,
                *bytes.choose(&[0, 1, 5, 6, 30])?,
                bytes.arbitrary()?,
            )
        }
        1 => Op::Put(seat(bytes)?, object(bytes)?, size(bytes)?.min(CAPACITY + 1)),
        2 => Op::Seal(seat(bytes)?, object(bytes)?),
        3 => Op::SealBatch(seat(bytes)?, objects(bytes)?),
        4 => Op::Abort(seat(bytes)?, object(bytes)?),
        5 => Op::Get(seat(bytes)?, objects(bytes)?, timeout(bytes)?),
        6 => Op::Release(seat(bytes)?, object(bytes)?),
        7 => Op::Delete(object(bytes)?),
        8 => Op::Evict(*bytes.choose(&[0, 1, 100, 400, u64::MAX])?),
        9 => Op::Refresh(objects(bytes)?),
        10 => Op::SetOptions(
            seat(bytes)?,
            bytes.choose(&["", "ann", "ben"])?,
            *bytes.choose(&[0, -1, i64::MIN, 1, 100, 300, 500, 700, 701, i64::MAX])?,
        ),
        11 => Op::Disconnect(seat(bytes)?),
        12 => Op::Pass(bytes.int_in_range(0..=5)?),
        13 => {
            let how = [Outside::Works, Outside::Fails, Outside::Loses];
            Op::Return(bytes.arbitrary::<u8>()?.into(), *bytes.choose(&how)?)
        }
        _ => Op::Break(bytes.arbitrary()?),
    })
}

fn seat(bytes: &mut Unstructured<'_>) -> Result<usize> {
    bytes.int_in_range(0..=SEATS - 1)
}

fn object(bytes: &mut Unstructured<'_>) -> Result<u8> {
    bytes.int_in_range(0..=IDS - 1)
}

fn objects(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let count = bytes.int_in_range(0..=4_u8)?;
    (0..count).map(|_| object(bytes)).collect()
}

fn size(bytes: &mut Unstructured<'_>) -> Result<u64> {
    Ok(match bytes.arbitrary()? {
        255_u8 => u64::MAX,
        254 => u64::MAX - 5,
        // Up to a little more than the capacity.
        byte => u64::from(byte) * 4,
    })
}

fn timeout(bytes: &mut Unstructured<'_>) -> Result<Option<Duration>> {
    Ok(match bytes.int_in_range(0..=7_u32)? {
        0 => None,
        1 => Some(Duration::ZERO),
        2 => Some(Duration::MAX),
        // In steps, so that what is to end at the same time does so.
        steps => Some(STEP * (steps - 2)),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    #[test]
    fn what_fuzzing_found_stays_mended() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/history");
        let mut histories = 0;
        for file in fs::read_dir(corpus).expect("the corpus is in the repository") {
            let path = file.expect("a file").path();
            println!("{}", path.display());
            super::history(&fs::read(path).expect("a file"));
            histories += 1;
        }
        assert!(histories > 0);
    }
}
