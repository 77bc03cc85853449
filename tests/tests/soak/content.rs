//! Objects whose content follows from their ids, so that whoever reads one knows what it has to be.
//! `tests/interop/soak_client.py` has the same rules.

use plasma_core::{ObjectBuffer, ObjectId};

/// The object of this number.
pub fn id(number: u32) -> ObjectId {
    ObjectId::from_name(&format!("soak {number}"))
}

/// Most are small, some are not.
fn size(id: &ObjectId) -> usize {
    let [class, a, b, c, d, ..] = *id.as_bytes();
    let limit = match class % 16 {
        0 => 1 << 20,
        1..=3 => 1 << 16,
        _ => 1 << 12,
    };
    u32::from_le_bytes([a, b, c, d]) as usize % (limit + 1)
}

fn meta_len(id: &ObjectId) -> usize {
    usize::from(id.as_bytes()[5]) % (ObjectId::LEN + 1)
}

/// Data and metadata: the id, again and again.
pub fn content(id: &ObjectId) -> (Vec<u8>, &[u8]) {
    let data = id.as_bytes().iter().copied().cycle().take(size(id));
    (data.collect(), &id.as_bytes()[..meta_len(id)])
}

/// Whether an object is what it has to be.
pub fn is_right(object: &ObjectBuffer) -> bool {
    let id = object.id();
    let bytes = id.as_bytes();
    let (data, meta) = (object.data(), object.meta());
    data.len() == size(id)
        && data
            .chunks(bytes.len())
            .all(|chunk| chunk == &bytes[..chunk.len()])
        && meta == &bytes[..meta_len(id)]
}
