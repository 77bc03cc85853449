//! Digests as Arrow's client computes them.

use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::protocol::message::Digest;

/// Whether sealing computes a digest of the object's content.
///
/// Arrow's client always does, and nothing ever checks it; it costs more than writing the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DigestPolicy {
    /// Objects are sealed with eight zero bytes for a digest.
    #[default]
    Off,
    /// Objects are sealed with the digest that Arrow's client would give them.
    Xxh64,
}

const SEED: u64 = 0;
const PARALLEL_FROM: usize = 1 << 20;
const CHUNKS: usize = 8;
const BLOCK: usize = 64;

/// XXH64 of data and metadata; data of 1 MiB and more goes in by the hashes of eight chunks of
/// whole blocks and of what is left behind them.
pub(crate) fn digest(data: &[u8], metadata: &[u8]) -> Digest {
    let mut hash = Xxh64::new(SEED);
    if data.len() < PARALLEL_FROM {
        hash.update(data);
    } else {
        let chunk_len = data.len() / BLOCK / CHUNKS * BLOCK;
        let (chunks, rest) = data.split_at(chunk_len * CHUNKS);
        for part in chunks.chunks_exact(chunk_len).chain([rest]) {
            hash.update(&xxh64(part, SEED).to_le_bytes());
        }
    }
    hash.update(metadata);
    hash.digest().to_le_bytes()
}

impl DigestPolicy {
    pub(crate) fn apply(self, data: &[u8], metadata: &[u8]) -> Digest {
        match self {
            Self::Off => Digest::default(),
            Self::Xxh64 => digest(data, metadata),
        }
    }
}
