//! What every client of Plasma can do, by which the same scenario runs with each.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use plasma_core::{
    Digest, DigestPolicy, Notification, Notifications, ObjectBuffer, ObjectId, PlasmaClient,
    PlasmaError,
};

use crate::arrow;

/// Why a client's call failed, in words that all clients have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The id is taken.
    Exists,
    /// No room, or no such quota.
    Full,
    /// No such object.
    NotFound,
    /// The object is sealed.
    Sealed,
    /// What this client alone says.
    Other(String),
}

pub type Answer<T> = Result<T, Refusal>;

/// An object's data and metadata.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    pub data: Vec<u8>,
    pub meta: Vec<u8>,
}

impl Content {
    pub fn new(data: impl Into<Vec<u8>>, meta: impl Into<Vec<u8>>) -> Self {
        Self {
            data: data.into(),
            meta: meta.into(),
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", encoded(&self.data), encoded(&self.meta))
    }
}

/// One object as `list` tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub id: ObjectId,
    pub data_size: u64,
    pub meta_size: u64,
    pub ref_count: u32,
    pub sealed: bool,
}

/// One thing a subscriber hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Sealed(ObjectId, u64, u64),
    Deleted(ObjectId),
}

/// A client of Plasma: this project's, or one of Arrow's in another process.
///
/// - What an operation does has been done in the store when it returns; a release too.
/// - A client holds what it creates and gets until it releases it.
pub trait Peer: Send {
    fn create(&mut self, id: ObjectId, size: usize, meta: &[u8]) -> Answer<()>;
    /// Fills an object that this client creates.
    fn write(&mut self, id: ObjectId, data: &[u8]);
    fn seal(&mut self, id: ObjectId) -> Answer<()>;
    fn abort(&mut self, id: ObjectId) -> Answer<()>;
    fn create_and_seal(&mut self, id: ObjectId, data: &[u8], meta: &[u8]) -> Answer<()>;
    fn batch(&mut self, objects: &[(ObjectId, Vec<u8>, Vec<u8>)]) -> Answer<()>;
    fn get(&mut self, ids: &[ObjectId], timeout_ms: i64) -> Answer<Vec<Option<Content>>>;
    /// Lets go of one of the buffers this client has of an object.
    fn release(&mut self, id: ObjectId);
    fn contains(&mut self, id: ObjectId) -> bool;
    fn delete(&mut self, ids: &[ObjectId]) -> Answer<()>;
    /// Sorted by id.
    fn list(&mut self) -> Vec<Listed>;
    fn evict(&mut self, num_bytes: u64) -> u64;
    fn refresh(&mut self, ids: &[ObjectId]) -> Answer<()>;
    fn set_options(&mut self, name: &str, quota_bytes: u64) -> Answer<()>;
    fn debug_string(&mut self) -> String;
    fn subscribe(&mut self);
    /// What the next message tells, where this client sees messages; else one event. Nothing if
    /// none comes in time.
    fn notification(&mut self, timeout: Duration) -> Vec<Event>;
    fn capacity(&mut self) -> u64;
    /// The digest of a sealed object's content, computed by this client.
    fn digest(&mut self, id: ObjectId) -> Digest;

    /// Creates, writes and seals an object, and keeps it.
    fn put(&mut self, id: ObjectId, content: &Content) -> Answer<()> {
        self.create(id, content.data.len(), &content.meta)?;
        self.write(id, &content.data);
        self.seal(id)
    }
}

/// This project's client.
pub struct Ours {
    client: PlasmaClient,
    held: HashMap<ObjectId, Vec<ObjectBuffer>>,
    notifications: Option<Notifications>,
}

impl Ours {
    pub fn connect(socket: &Path) -> Self {
        Self::connect_with(socket, true)
    }

    /// One that asks for everything through the socket.
    pub fn connect_by_socket(socket: &Path) -> Self {
        Self::connect_with(socket, false)
    }

    fn connect_with(socket: &Path, shared_memory: bool) -> Self {
        let builder = PlasmaClient::builder();
        let client = builder
            .retries(0)
            .digest(DigestPolicy::Xxh64)
            .shared_memory(shared_memory)
            .connect(socket);
        Self {
            client: client.expect("the store accepts a client"),
            held: HashMap::new(),
            notifications: None,
        }
    }

    /// The digests that the store keeps, by id.
    pub fn kept_digests(&self) -> HashMap<ObjectId, Option<Digest>> {
        let infos = self.client.list().expect("a list");
        infos
            .into_iter()
            .map(|info| (info.id, info.digest))
            .collect()
    }
}

fn refusal(error: PlasmaError) -> Refusal {
    match error {
        PlasmaError::AlreadyExists => Refusal::Exists,
        PlasmaError::OutOfMemory { .. } | PlasmaError::QuotaRefused { .. } => Refusal::Full,
        PlasmaError::NotFound => Refusal::NotFound,
        PlasmaError::AlreadySealed => Refusal::Sealed,
        error => Refusal::Other(error.to_string()),
    }
}

impl Peer for Ours {
    fn create(&mut self, id: ObjectId, size: usize, meta: &[u8]) -> Answer<()> {
        let buffer = self.client.create(id, size, meta).map_err(refusal)?;
        self.held.entry(id).or_default().push(buffer);
        Ok(())
    }

    fn write(&mut self, id: ObjectId, data: &[u8]) {
        let buffer = self
            .held
            .get_mut(&id)
            .and_then(|buffers| buffers.last_mut());
        buffer.unwrap().data_mut().copy_from_slice(data);
    }

    fn seal(&mut self, id: ObjectId) -> Answer<()> {
        match self
            .held
            .get_mut(&id)
            .and_then(|buffers| buffers.last_mut())
        {
            Some(buffer) => buffer.seal().map_err(refusal),
            // Without a buffer there is nothing to call it on.
            None => Err(Refusal::NotFound),
        }
    }

    fn abort(&mut self, id: ObjectId) -> Answer<()> {
        match self.held.get_mut(&id).and_then(Vec::pop) {
            Some(buffer) => buffer.abort().map_err(refusal),
            None => Err(Refusal::NotFound),
        }
    }

    fn create_and_seal(&mut self, id: ObjectId, data: &[u8], meta: &[u8]) -> Answer<()> {
        self.client
            .create_and_seal(id, data, meta)
            .map_err(refusal)?;
        self.contains(id);
        Ok(())
    }

    fn batch(&mut self, objects: &[(ObjectId, Vec<u8>, Vec<u8>)]) -> Answer<()> {
        let objects: Vec<_> = objects
            .iter()
            .map(|(id, data, meta)| (*id, data.as_slice(), meta.as_slice()))
            .collect();
        self.client.create_and_seal_batch(&objects).map_err(refusal)
    }

    fn get(&mut self, ids: &[ObjectId], timeout_ms: i64) -> Answer<Vec<Option<Content>>> {
        let found = self.client.get_many(ids, timeout_ms).map_err(refusal)?;
        let mut contents = Vec::new();
        for buffer in found {
            contents.push(
                buffer
                    .as_ref()
                    .map(|buffer| Content::new(buffer.data(), buffer.meta())),
            );
            if let Some(buffer) = buffer {
                self.held.entry(*buffer.id()).or_default().push(buffer);
            }
        }
        Ok(contents)
    }

    fn release(&mut self, id: ObjectId) {
        let buffer = self.held.get_mut(&id).and_then(Vec::pop);
        drop(buffer.expect("it is held"));
        // Once this is answered the store has done what came before.
        self.contains(id);
    }

    fn contains(&mut self, id: ObjectId) -> bool {
        self.client.contains(&id).unwrap()
    }

    fn delete(&mut self, ids: &[ObjectId]) -> Answer<()> {
        self.client.delete_many(ids).map_err(refusal)
    }

    fn list(&mut self) -> Vec<Listed> {
        let listed = self.client.list().unwrap().into_iter();
        let mut listed: Vec<_> = listed
            .map(|info| Listed {
                id: info.id,
                data_size: info.data_size,
                meta_size: info.metadata_size,
                ref_count: info.ref_count,
                sealed: info.construct_duration_s.is_some(),
            })
            .collect();
        listed.sort_unstable();
        listed
    }

    fn evict(&mut self, num_bytes: u64) -> u64 {
        self.client.evict(num_bytes).unwrap()
    }

    fn refresh(&mut self, ids: &[ObjectId]) -> Answer<()> {
        self.client.refresh(ids).map_err(refusal)
    }

    fn set_options(&mut self, name: &str, quota_bytes: u64) -> Answer<()> {
        self.client.set_options(name, quota_bytes).map_err(refusal)
    }

    fn debug_string(&mut self) -> String {
        self.client.debug_string().unwrap()
    }

    fn subscribe(&mut self) {
        self.notifications = Some(self.client.subscribe().unwrap());
    }

    fn notification(&mut self, timeout: Duration) -> Vec<Event> {
        let notifications = self.notifications.as_mut().expect("it has subscribed");
        let event = match notifications.recv_timeout(timeout).unwrap() {
            Some(Notification::Sealed(info)) => {
                Event::Sealed(info.id, info.data_size, info.metadata_size)
            }
            Some(Notification::Deleted(id)) => Event::Deleted(id),
            None => return Vec::new(),
        };
        vec![event]
    }

    fn capacity(&mut self) -> u64 {
        self.client.store_capacity() as u64
    }

    fn digest(&mut self, id: ObjectId) -> Digest {
        self.client.get(id, 0).unwrap().unwrap().digest()
    }
}

/// One of Arrow's clients, in a process that is told in lines what to do: see
/// `python_client.py` and `cpp_client.cc`.
pub struct Foreign {
    process: Child,
    /// `None` once it is told to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Foreign {
    pub fn python(socket: &Path) -> Self {
        let mut python = arrow::python();
        python.arg(arrow::beside("python_client.py"));
        Self::start(python, socket)
    }

    pub fn cpp(socket: &Path) -> Self {
        Self::start(arrow::cpp_client(), socket)
    }

    fn start(mut program: Command, socket: &Path) -> Self {
        program.arg(socket);
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = program.spawn().expect("Arrow's client starts");
        Self {
            orders: process.stdin.take(),
            answers: BufReader::new(process.stdout.take().expect("its output is piped")),
            process,
        }
    }

    fn ask(&mut self, operation: &str, words: &[String]) -> Answer<Vec<String>> {
        let mut line = [&[operation.to_owned()], words].concat().join(" ");
        line.push('\n');
        let orders = self.orders.as_mut().expect("it has not been told to end");
        orders
            .write_all(line.as_bytes())
            .expect("Arrow's client reads");
        let mut answer = String::new();
        self.answers
            .read_line(&mut answer)
            .expect("Arrow's client answers");
        let mut words = answer.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("ok") => Ok(words.collect()),
            Some("error") => Err(match words.next().as_deref() {
                Some("exists") => Refusal::Exists,
                Some("full") => Refusal::Full,
                Some("notfound") => Refusal::NotFound,
                Some("sealed") => Refusal::Sealed,
                _ => Refusal::Other(words.collect::<Vec<_>>().join(" ")),
            }),
            _ => panic!("Arrow's client ended during {operation}"),
        }
    }

    fn number<T: std::str::FromStr<Err: fmt::Debug>>(&mut self, operation: &str) -> T {
        self.ask(operation, &[]).unwrap()[0].parse().unwrap()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // It ends when nobody can tell it anything any more.
        self.orders = None;
        let status = self.process.wait();
        let fine = status.as_ref().is_ok_and(|status| status.success());
        if !fine && !std::thread::panicking() {
            panic!("Arrow's client ended badly: {status:?}");
        }
    }
}

impl Peer for Foreign {
    fn create(&mut self, id: ObjectId, size: usize, meta: &[u8]) -> Answer<()> {
        self.ask("create", &[id.to_hex(), size.to_string(), encoded(meta)])?;
        Ok(())
    }

    fn write(&mut self, id: ObjectId, data: &[u8]) {
        self.ask("write", &[id.to_hex(), encoded(data)]).unwrap();
    }

    fn seal(&mut self, id: ObjectId) -> Answer<()> {
        self.ask("seal", &[id.to_hex()])?;
        Ok(())
    }

    fn abort(&mut self, id: ObjectId) -> Answer<()> {
        self.ask("abort", &[id.to_hex()])?;
        Ok(())
    }

    fn create_and_seal(&mut self, id: ObjectId, data: &[u8], meta: &[u8]) -> Answer<()> {
        self.ask("put", &[id.to_hex(), encoded(data), encoded(meta)])?;
        Ok(())
    }

    fn batch(&mut self, objects: &[(ObjectId, Vec<u8>, Vec<u8>)]) -> Answer<()> {
        let words: Vec<_> = objects
            .iter()
            .flat_map(|(id, data, meta)| [id.to_hex(), encoded(data), encoded(meta)])
            .collect();
        self.ask("batch", &words)?;
        Ok(())
    }

    fn get(&mut self, ids: &[ObjectId], timeout_ms: i64) -> Answer<Vec<Option<Content>>> {
        let mut words = vec![timeout_ms.to_string()];
        words.extend(ids.iter().map(ObjectId::to_hex));
        let found = self.ask("get", &words)?.into_iter();
        let found = found.map(|word| {
            let (data, meta) = word.split_once('/')?;
            Some(Content::new(decoded(data), decoded(meta)))
        });
        Ok(found.collect())
    }

    fn release(&mut self, id: ObjectId) {
        self.ask("release", &[id.to_hex()]).unwrap();
    }

    fn contains(&mut self, id: ObjectId) -> bool {
        self.ask("contains", &[id.to_hex()]).unwrap() == ["1"]
    }

    fn delete(&mut self, ids: &[ObjectId]) -> Answer<()> {
        let ids: Vec<_> = ids.iter().map(ObjectId::to_hex).collect();
        self.ask("delete", &ids)?;
        Ok(())
    }

    fn list(&mut self) -> Vec<Listed> {
        let lines = self.ask("list", &[]).unwrap().into_iter();
        let mut listed: Vec<_> = lines
            .map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                Listed {
                    id: fields[0].parse().unwrap(),
                    data_size: fields[1].parse().unwrap(),
                    meta_size: fields[2].parse().unwrap(),
                    ref_count: fields[3].parse().unwrap(),
                    sealed: fields[4] == "1",
                }
            })
            .collect();
        listed.sort_unstable();
        listed
    }

    fn evict(&mut self, num_bytes: u64) -> u64 {
        self.ask("evict", &[num_bytes.to_string()]).unwrap()[0]
            .parse()
            .unwrap()
    }

    fn refresh(&mut self, ids: &[ObjectId]) -> Answer<()> {
        let ids: Vec<_> = ids.iter().map(ObjectId::to_hex).collect();
        self.ask("refresh", &ids)?;
        Ok(())
    }

    fn set_options(&mut self, name: &str, quota_bytes: u64) -> Answer<()> {
        let words = [encoded(name.as_bytes()), quota_bytes.to_string()];
        self.ask("options", &words)?;
        Ok(())
    }

    fn debug_string(&mut self) -> String {
        let answer = self.ask("debug", &[]).unwrap();
        String::from_utf8(decoded(&answer[0])).unwrap()
    }

    fn subscribe(&mut self) {
        self.ask("subscribe", &[]).unwrap();
    }

    fn notification(&mut self, timeout: Duration) -> Vec<Event> {
        let timeout = timeout.as_millis().to_string();
        let told = self.ask("notification", &[timeout]).unwrap().into_iter();
        told.map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let id = fields[0].parse().unwrap();
            match (fields[1].parse(), fields[2].parse()) {
                (Ok(data_size), Ok(meta_size)) => Event::Sealed(id, data_size, meta_size),
                _ => {
                    assert_eq!(fields[1..], ["-1", "-1"], "what a deletion looks like");
                    Event::Deleted(id)
                }
            }
        })
        .collect()
    }

    fn capacity(&mut self) -> u64 {
        self.number("capacity")
    }

    fn digest(&mut self, id: ObjectId) -> Digest {
        let answer = self.ask("digest", &[id.to_hex()]).unwrap();
        decoded(&answer[0]).try_into().unwrap()
    }
}

/// Bytes as one word.
fn encoded(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let hex = |bytes: &[u8]| -> String {
        let digits = bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]));
        String::from_utf8(digits.collect()).unwrap()
    };
    match bytes {
        [] => "-".into(),
        [first, rest @ ..] if rest.len() >= 32 && rest == &bytes[..rest.len()] => {
            format!("{}*{}", hex(&[*first]), bytes.len())
        }
        _ => hex(bytes),
    }
}

fn decoded(word: &str) -> Vec<u8> {
    if word == "-" {
        return Vec::new();
    }
    let (digits, count) = match word.split_once('*') {
        Some((digits, count)) => (digits, count.parse().unwrap()),
        None => (word, 1),
    };
    let digit = |digit: u8| (digit as char).to_digit(16).unwrap() as u8;
    let bytes: Vec<u8> = digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect();
    bytes.repeat(count)
}
