//! What clients may have and ask for, at most.
//!
//! Without these, one client could make the store keep more than there is memory for, or take time
//! that the others need. None is met by a client that behaves; who meets one finds its name in the
//! store's log, with the option that moves it. Each has a setter on
//! [`StoreBuilder`](crate::StoreBuilder) and an option of `plasma-store-server` of the same name.
//!
//! | limit | unless told | why | who goes beyond it |
//! |---|---|---|---|
//! | `max-clients` | 4096 | each connection takes descriptors and buffers | is refused: its connection is closed |
//! | `max-subscriptions` | 1024 | each hears of all objects, and may be slow | has its stream closed |
//! | `max-objects` | 4 million, and one for 64 bytes of capacity | objects of no bytes take memory too | evicts, or is told `OutOfMemory` |
//! | `max-ids` | 1,048,576 | one request is handled without a pause | is cut off |
//! | `max-request-bytes` | capacity (up to 2 GiB) and 128 MiB | it is kept until all of it has come | is cut off |
//! | `max-unfinished-bytes` | two of the longest requests | many could send half a request each | is cut off, if it has sent more than 1 MiB |
//! | `max-unread-bytes` | 256 MiB | what a client does not read is kept for it | is cut off; or, of notifications, has its stream closed |
//! | `max-waiting-ids` | 4,194,304 | gets that wait are kept, and their answers come at once | is cut off |
//! | `stall-timeout` | 30 s | nothing is kept for ever for one who does not read | is cut off |
//!
//! Other bounds are fixed. A client is not listened to while 256 KiB wait for it to be read; of its
//! name 256 characters are kept; its turn is 32 requests, or 256 of those that come through shared
//! memory, and ends after 100 µs where they take long.

use std::time::Duration;

use plasma_core::protocol::message::MAX_IDS;

/// Objects there may be beyond those that the capacity makes likely, and how many bytes of
/// capacity make one likely.
const LEAST_OBJECTS: u64 = 4 << 20;
const BYTES_AN_OBJECT: u64 = 64;

/// The most objects there can be: more would not fit into one answer to a list.
const MOST_OBJECTS: usize = 16 << 20;

/// What requests may have beside an object's content, in bytes: ids, names, offsets.
const REQUEST_OVERHEAD: u64 = 128 << 20;

/// Inline content cannot be longer than a flatbuffer, in bytes.
const MAX_INLINE: u64 = i32::MAX as u64;

/// The limits, as they were set. `None` is for what depends on the capacity unless told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLimits {
    /// Connections at a time; those that are cut off and still open are among them.
    pub(crate) max_clients: usize,
    /// Subscriptions at a time, of all clients.
    pub(crate) max_subscriptions: usize,
    pub(crate) max_objects: Option<usize>,
    /// Ids that one request may name.
    pub(crate) max_ids: usize,
    /// Longest body of a request.
    pub(crate) max_request_bytes: Option<u64>,
    /// Bytes of requests that have not come whole, of all clients together.
    pub(crate) max_unfinished_bytes: Option<u64>,
    /// Bytes that one client may leave unread before more is to be sent to it: replies, and apart
    /// from them notifications.
    pub(crate) max_unread_bytes: usize,
    /// Ids that the gets of one client that wait may name together.
    pub(crate) max_waiting_ids: usize,
    /// How long a client may read nothing while something waits for it.
    pub(crate) stall_timeout: Duration,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            max_clients: 4096,
            max_subscriptions: 1024,
            max_objects: None,
            max_ids: MAX_IDS,
            max_request_bytes: None,
            max_unfinished_bytes: None,
            max_unread_bytes: 256 << 20,
            max_waiting_ids: 4 << 20,
            stall_timeout: Duration::from_secs(30),
        }
    }
}

impl ClientLimits {
    /// Objects that a store of `capacity` bytes may have.
    pub(crate) fn objects(&self, capacity: u64) -> usize {
        let likely = LEAST_OBJECTS.saturating_add(capacity / BYTES_AN_OBJECT);
        let likely = usize::try_from(likely).unwrap_or(usize::MAX);
        self.max_objects.unwrap_or(likely).min(MOST_OBJECTS)
    }

    /// Longest request body that a store of `capacity` bytes reads, in bytes.
    pub(crate) fn request_bytes(&self, capacity: u64) -> usize {
        let longest = MAX_INLINE + REQUEST_OVERHEAD;
        let usual = capacity.min(MAX_INLINE) + REQUEST_OVERHEAD;
        let bytes = self.max_request_bytes.unwrap_or(usual).min(longest);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }

    /// Most that all clients together may have sent of requests that have not come whole, in bytes.
    pub(crate) fn unfinished_bytes(&self, capacity: u64) -> usize {
        let usual = self.request_bytes(capacity).saturating_mul(2);
        self.max_unfinished_bytes
            .map_or(usual, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_the_capacity_is_bounded_whatever_that_is() {
        let limits = ClientLimits::default();
        let mib = 1 << 20;
        assert_eq!(limits.request_bytes(16 << 20), 144 * mib);
        assert_eq!(limits.unfinished_bytes(16 << 20), 288 * mib);
        assert_eq!(limits.objects(6400), (4 << 20) + 100);
        for capacity in [1 << 40, u64::MAX] {
            assert_eq!(limits.request_bytes(capacity), 2176 * mib - 1);
            assert_eq!(limits.objects(capacity), 16 << 20);
        }
    }

    #[test]
    fn what_was_told_counts() {
        let limits = ClientLimits {
            max_objects: Some(usize::MAX),
            max_request_bytes: Some(1000),
            ..ClientLimits::default()
        };
        assert_eq!(limits.objects(6400), 16 << 20);
        assert_eq!(limits.request_bytes(6400), 1000);
        assert_eq!(limits.unfinished_bytes(6400), 2000);
        let limits = ClientLimits {
            max_request_bytes: Some(u64::MAX),
            max_unfinished_bytes: Some(7),
            ..limits
        };
        assert_eq!(limits.request_bytes(6400), (2176 << 20) - 1);
        assert_eq!(limits.unfinished_bytes(6400), 7);
    }
}
