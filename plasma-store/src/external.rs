//! Where evicted objects go, if they are not to be lost.

use std::collections::HashMap;
use std::fmt;

use plasma_core::ObjectId;

use crate::StoreError;

/// A place for evicted objects: their data and metadata by id.
///
/// Its calls are made between requests, so they must not take long.
pub(crate) trait ExternalStore: fmt::Debug + Send {
    /// Keeps an object's data, with the metadata behind it; whether that worked.
    fn put(&mut self, id: ObjectId, content: Vec<u8>) -> bool;

    /// What was kept under this id.
    fn get(&self, id: &ObjectId) -> Option<&[u8]>;

    /// Keeps it no longer.
    fn remove(&mut self, id: &ObjectId);
}

/// Connects to the external store that an endpoint names.
pub(crate) fn connect(endpoint: &str) -> Result<Box<dyn ExternalStore>, StoreError> {
    match endpoint.split_once("://") {
        Some(("hashtable", _)) => Ok(Box::<HashTable>::default()),
        _ => Err(StoreError::UnknownExternalStore {
            endpoint: endpoint.to_owned(),
        }),
    }
}

/// `hashtable://`: a table in the store's own heap. It survives nothing and is bounded by nothing;
/// it is there to test with.
#[derive(Debug, Default)]
struct HashTable(HashMap<ObjectId, Vec<u8>>);

impl ExternalStore for HashTable {
    fn put(&mut self, id: ObjectId, content: Vec<u8>) -> bool {
        self.0.insert(id, content);
        true
    }

    fn get(&self, id: &ObjectId) -> Option<&[u8]> {
        self.0.get(id).map(Vec::as_slice)
    }

    fn remove(&mut self, id: &ObjectId) {
        self.0.remove(id);
    }
}
