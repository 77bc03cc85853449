//! Object ids in words, as the index and the rings hold them.

use crate::ObjectId;

/// An id's 20 bytes in order, the last four of them in the lower half of the third word; the upper
/// half is free.
pub(super) fn id_to_words(id: &ObjectId) -> [u64; 3] {
    let bytes = id.as_bytes();
    let word = |at: usize| {
        let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        word.map_or(0, |word| u64::from_le_bytes(*word))
    };
    let last = bytes.last_chunk::<4>();
    let last = last.map_or(0, |last| u32::from_le_bytes(*last));
    [word(0), word(8), u64::from(last)]
}

/// The id in such words, whatever is in the free half.
pub(super) fn id_from_words(words: [u64; 3]) -> ObjectId {
    let mut bytes = [0; ObjectId::LEN];
    let words = words.map(u64::to_le_bytes);
    for (place, byte) in bytes.iter_mut().zip(words.iter().flatten()) {
        *place = *byte;
    }
    ObjectId::new(bytes)
}
