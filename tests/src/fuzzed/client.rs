//! A client, and a store that says anything: whatever that is, calls come to an end, what they give
//! can be read, and nothing faults.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use arbitrary::{Result, Unstructured};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use plasma_core::protocol::message::{
    Digest, Encoder, ErrorCode, Notification, ObjectInfo, ObjectSpec, Reply, SegmentRef,
};
use plasma_core::shm::Offer;
use plasma_core::shm::bell::{Bell, Waker};
use plasma_core::shm::index::FIRST_UID;
use plasma_core::shm::page::Shape;
use plasma_core::transport::{Inbox, Received, wait_ready};
use plasma_core::{ObjectBuffer, ObjectId, PlasmaClient, PlasmaError};

use crate::patience;
use crate::raw::send_with_descriptors;

/// Calls that are made of one client, replies on one connection, and connections, at most.
const MAX_CALLS: usize = 12;
const MAX_LIES: usize = 12;
const MAX_CONNECTIONS: usize = 4;

/// Length of the memory that descriptors stand for, most of the time.
const SEGMENT_LEN: u64 = 1 << 16;

/// What a store does on one connection: bytes, each perhaps with a descriptor behind it; then it
/// says no more.
type Lies = Vec<(Vec<u8>, Option<OwnedFd>)>;

/// What a store does.
struct Script {
    connections: VecDeque<Lies>,
    notifications: Vec<u8>,
}

/// Has a client talk to a store that does what the first bytes say, in calls that the others say.
pub fn client(data: &[u8]) {
    // Where bytes run out, so does the script.
    let _ = play(&mut Unstructured::new(data));
}

fn play(bytes: &mut Unstructured<'_>) -> Result<()> {
    let script = script(bytes)?;
    let calls: Vec<_> = (0..MAX_CALLS)
        .map_while(|_| (!bytes.is_empty()).then(|| call(bytes)))
        .collect::<Result<_>>()?;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).expect("a listener");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| serve(&listener, script, &over));
        // If the calls panic, the store is to end all the same.
        let _end = OnDrop(|| {
            over.store(true, Ordering::SeqCst);
            let _ = UnixStream::connect(&path);
        });
        make_calls(&path, &calls);
    });
    Ok(())
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

// ---------------------------------------------------------------------------------------------
// The store

fn serve(listener: &UnixListener, script: Script, over: &AtomicBool) {
    let Script {
        mut connections,
        notifications,
    } = script;
    thread::scope(|scope| {
        loop {
            let (socket, _) = listener.accept().expect("somebody connects");
            if over.load(Ordering::SeqCst) {
                break;
            }
            let lies = connections.pop_front().unwrap_or_default();
            let notifications = &notifications;
            scope.spawn(move || lie(&socket, lies, notifications));
        }
    });
}

/// Says what there is to be said, and listens until the client has gone.
fn lie(mut socket: &UnixStream, lies: Lies, notifications: &[u8]) {
    for (bytes, descriptor) in lies {
        let said = socket.write_all(&bytes);
        let given = descriptor.map_or(Ok(0), |descriptor| {
            send_with_descriptors(socket, &[0], &[descriptor.as_fd()])
        });
        if said.is_err() || given.is_err() {
            break;
        }
    }
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut inbox = Inbox::new();
    loop {
        for descriptor in inbox.take_descriptors() {
            // The client may have gone already.
            let _ = UnixStream::from(descriptor).write_all(notifications);
        }
        let ready = wait_ready(socket.as_fd(), PollFlags::POLLIN, Some(patience()));
        assert!(ready.expect("a socket"), "the client does not leave");
        match inbox.receive(socket.as_fd()) {
            Ok(Received::Bytes(_)) => while let Ok(Some(_)) = inbox.next_message(1 << 30) {},
            Ok(Received::Nothing) => {}
            Ok(Received::End) | Err(_) => break,
        }
    }
}

fn script(bytes: &mut Unstructured<'_>) -> Result<Script> {
    let mut connections = VecDeque::new();
    for _ in 0..bytes.int_in_range(1..=MAX_CONNECTIONS)? {
        let mut lies = greeting(bytes)?;
        for _ in 0..bytes.int_in_range(0..=MAX_LIES)? {
            let bytes_said = said(bytes)?;
            let descriptor = match bytes.int_in_range(0..=3_u8)? {
                0 => Some(descriptor(bytes)?),
                _ => None,
            };
            lies.push((bytes_said, descriptor));
        }
        connections.push_back(lies);
    }
    let notices: Vec<_> = (0..bytes.int_in_range(0..=3_u8)?)
        .map(|_| {
            Ok(match bytes.arbitrary()? {
                true => Notification::Deleted(id(bytes)?),
                false => Notification::Sealed(info(bytes)?),
            })
        })
        .collect::<Result<_>>()?;
    let mut encoder = Encoder::new();
    let (length, body) = encoder.notification(&notices);
    let mut notifications = [&length, body].concat();
    poke(bytes, &mut notifications)?;
    notifications.extend(bytes.bytes(bytes.len().min(8))?);
    Ok(Script {
        connections,
        notifications,
    })
}

/// How a store introduces itself, with or without an offer.
fn greeting(bytes: &mut Unstructured<'_>) -> Result<Lies> {
    let mut lies = Lies::new();
    let memory_capacity = *bytes.choose(&[SEGMENT_LEN as i64, 0, -1, i64::MAX])?;
    let mut encoder = Encoder::new();
    if !bytes.arbitrary()? {
        let reply = Reply::Connect {
            memory_capacity,
            offer: None,
        };
        lies.push((encoded(&mut encoder, &reply), None));
        return Ok(lies);
    }
    let shape = Shape {
        pins: *bytes.choose(&[4, 1, 0, u32::MAX])?,
        requests: *bytes.choose(&[4, 0, 1, 3])?,
        content_bytes: *bytes.choose(&[4096, 0, 64, 65])?,
    };
    let index = index(bytes)?;
    let index_len = match bytes.int_in_range(0..=7_u8)? {
        0 => bytes.arbitrary()?,
        _ => index.len() as u64,
    };
    let segment = SegmentRef {
        segment: 1,
        mmap_size: mmap_size(bytes)?,
    };
    let reply = Reply::Connect {
        memory_capacity,
        offer: Some((Offer { index_len, shape }, vec![segment])),
    };
    lies.push((
        encoded(&mut encoder, &reply),
        Some(memory(&[], SEGMENT_LEN)),
    ));
    let shape = if shape.is_valid() {
        shape
    } else {
        Shape::default()
    };
    let mut answers = answers(shape);
    poke(bytes, &mut answers)?;
    let bell = Bell::new().expect("an event");
    // Once, and then nobody is there to do it again.
    let (waker, wakeup) = Waker::pair().expect("a pair of sockets");
    waker.wake();
    let mut descriptors = [
        memory(&index, index.len() as u64),
        memory(&[], shape.page_len() as u64),
        memory(&answers, answers.len() as u64),
        bell.as_fd().try_clone_to_owned().expect("a descriptor"),
        wakeup.into(),
    ];
    if bytes.ratio(1_u8, 8)? {
        let one = bytes.choose_index(descriptors.len())?;
        descriptors[one] = descriptor(bytes)?;
    }
    lies.extend(descriptors.map(|descriptor| (Vec::new(), Some(descriptor))));
    Ok(lies)
}

/// An index of a few homes that lists some objects, as `plasma_core::shm::index` lays it out; and
/// then not quite.
fn index(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    const WORDS_A_LINE: usize = 8;
    const ENTRIES: usize = 40;
    let mut words = vec![0_u64; WORDS_A_LINE * (2 + ENTRIES)];
    words[0] = u64::from_le_bytes(*b"PLASMAix");
    words[1] = 1;
    // Somebody keeps it, and it has eight homes.
    words[8] = 1;
    words[9] = 8;
    for (number, entry) in words[2 * WORDS_A_LINE..]
        .chunks_exact_mut(WORDS_A_LINE)
        .enumerate()
    {
        // Empty ones would end a search.
        entry[0] = 1;
        // These are in the windows of all homes.
        if let Some(which) = number.checked_sub(8).filter(|which| *which < 4) {
            entry[0] = FIRST_UID + 4 * which as u64;
            entry[1..3].fill(u64::from_ne_bytes([which as u8; 8]));
            entry[3] = u64::from_ne_bytes([
                which as u8,
                which as u8,
                which as u8,
                which as u8,
                1,
                0,
                0,
                0,
            ]);
            entry[4] = 64 * which as u64;
            entry[5] = 100;
        }
    }
    let mut index: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    poke(bytes, &mut index)?;
    Ok(index)
}

/// A page that answers requests before they are made.
fn answers(shape: Shape) -> Vec<u8> {
    let mut words = vec![0_u64; shape.answers_len() / 8];
    let answers = words.get_mut(8..).unwrap_or_default();
    for (number, answer) in (1..).zip(answers.chunks_exact_mut(4)) {
        answer.copy_from_slice(&[number << 8, FIRST_UID, 0, 0]);
    }
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Changes a few words or bytes.
fn poke(bytes: &mut Unstructured<'_>, content: &mut [u8]) -> Result<()> {
    for _ in 0..bytes.int_in_range(0..=4_u8)? {
        let at = usize::from(bytes.arbitrary::<u16>()?);
        if bytes.arbitrary()? {
            let word: u64 = bytes.arbitrary()?;
            if let Some(place) = content.as_chunks_mut().0.get_mut(at) {
                *place = word.to_le_bytes();
            }
        } else if let Some(place) = content.get_mut(at) {
            *place = bytes.arbitrary()?;
        }
    }
    Ok(())
}

fn encoded(encoder: &mut Encoder, reply: &Reply<'_>) -> Vec<u8> {
    let frame = encoder.reply(reply);
    [&frame.header, frame.body].concat()
}

/// A reply, right or not quite.
fn said(bytes: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let reply = reply(bytes)?;
    let mut said = encoded(&mut Encoder::new(), &reply);
    if bytes.ratio(1_u8, 4)? {
        poke(bytes, &mut said)?;
    }
    if bytes.ratio(1_u8, 16)? {
        said.truncate(usize::from(bytes.arbitrary::<u8>()?));
    }
    Ok(said)
}

fn reply(bytes: &mut Unstructured<'_>) -> Result<Reply<'static>> {
    Ok(match bytes.int_in_range(0..=13_u8)? {
        0 | 1 => {
            let mut objects = Vec::new();
            for _ in 0..bytes.int_in_range(0..=3_u8)? {
                let found = bytes.arbitrary::<bool>()?;
                objects.push((id(bytes)?, found.then(|| spec(bytes)).transpose()?));
            }
            let segments = (0..bytes.int_in_range(0..=2)?).map(|_| segment(bytes));
            Reply::Get {
                segments: segments.collect::<Result<_>>()?,
                objects: objects.into(),
            }
        }
        2 => Reply::Create {
            id: id(bytes)?,
            result: match bytes.arbitrary()? {
                true => Err(error(bytes)?),
                false => Ok((spec(bytes)?, segment(bytes)?)),
            },
        },
        3 => Reply::CreateAndSeal(outcome(bytes)?),
        4 => Reply::CreateAndSealBatch(outcome(bytes)?),
        5 => Reply::Abort(id(bytes)?),
        6 => Reply::Seal {
            id: id(bytes)?,
            result: outcome(bytes)?,
        },
        7 => Reply::Delete(vec![(id(bytes)?, outcome(bytes)?)].into()),
        8 => Reply::Contains {
            id: id(bytes)?,
            has_object: bytes.arbitrary()?,
        },
        9 => {
            let infos = (0..bytes.int_in_range(0..=3_u8)?).map(|_| info(bytes));
            Reply::List(infos.collect::<Result<_>>()?)
        }
        10 => Reply::Evict {
            num_bytes: bytes.arbitrary()?,
        },
        11 => Reply::SetOptions(outcome(bytes)?),
        12 => Reply::GetDebugString("x: 1\n".into()),
        _ => Reply::RefreshLru,
    })
}

fn id(bytes: &mut Unstructured<'_>) -> Result<ObjectId> {
    Ok(ObjectId::new([bytes.int_in_range(0..=3)?; ObjectId::LEN]))
}

fn error(bytes: &mut Unstructured<'_>) -> Result<ErrorCode> {
    let number = bytes.int_in_range(1..=5)?;
    Ok(ErrorCode::from_number(number).unwrap_or(ErrorCode::OutOfMemory))
}

fn outcome(bytes: &mut Unstructured<'_>) -> Result<std::result::Result<(), ErrorCode>> {
    Ok(match bytes.arbitrary()? {
        true => Err(error(bytes)?),
        false => Ok(()),
    })
}

fn segment(bytes: &mut Unstructured<'_>) -> Result<SegmentRef> {
    Ok(SegmentRef {
        segment: bytes.int_in_range(1..=2)?,
        mmap_size: mmap_size(bytes)?,
    })
}

fn mmap_size(bytes: &mut Unstructured<'_>) -> Result<i64> {
    Ok(match bytes.int_in_range(0..=7_u8)? {
        0 => bytes.arbitrary()?,
        1 => 8,
        _ => SEGMENT_LEN as i64 + 8,
    })
}

/// What calls here ask for, or anything else.
fn spec(bytes: &mut Unstructured<'_>) -> Result<ObjectSpec> {
    let mut number = |usual: u64| match bytes.int_in_range(0..=9_u8)? {
        0 => bytes.arbitrary(),
        1 => Ok(SEGMENT_LEN - usual),
        _ => Ok(usual),
    };
    Ok(ObjectSpec {
        segment: 1,
        data_offset: number(64)?,
        data_size: number(100)?,
        metadata_offset: number(164)?,
        metadata_size: number(1)?,
        device_num: bytes.ratio(1_u8, 10)?.into(),
    })
}

fn info(bytes: &mut Unstructured<'_>) -> Result<ObjectInfo> {
    let digest: Option<Digest> = bytes.arbitrary()?;
    Ok(ObjectInfo {
        id: id(bytes)?,
        data_size: bytes.arbitrary()?,
        metadata_size: bytes.arbitrary()?,
        ref_count: bytes.arbitrary()?,
        create_time_s: bytes.arbitrary()?,
        construct_duration_s: digest.is_some().then(|| bytes.arbitrary()).transpose()?,
        digest,
    })
}

/// A file in memory that nobody can make shorter.
fn memory(content: &[u8], len: u64) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(c"lie", flags).expect("a memfd"));
    file.set_len(len).expect("it can be sized");
    file.write_all_at(content, 0).expect("it can be written");
    let seals = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK);
    fcntl(&file, seals).expect("it can be sealed");
    file.into()
}

fn descriptor(bytes: &mut Unstructured<'_>) -> Result<OwnedFd> {
    Ok(match bytes.int_in_range(0..=9_u8)? {
        0 => File::open("/dev/null").expect("a device").into(),
        1 => File::open("/").expect("a folder").into(),
        2 => memory(&[], 0),
        3 => memory(&[], 4095),
        4 => UnixStream::pair().expect("a pair of sockets").0.into(),
        _ => memory(&[], SEGMENT_LEN),
    })
}

// ---------------------------------------------------------------------------------------------
// The client

#[derive(Clone, Copy, Debug)]
enum Call {
    Create(ObjectId, bool),
    Put(ObjectId),
    PutBatch(ObjectId, ObjectId),
    Write,
    Seal,
    Abort,
    Drop,
    Share,
    Get(ObjectId, i64),
    GetMany(ObjectId, ObjectId, i64),
    Contains(ObjectId),
    ContainsMany(ObjectId, ObjectId),
    Delete(ObjectId),
    DeleteMany(ObjectId, ObjectId),
    List,
    Evict,
    Refresh(ObjectId),
    SetOptions,
    DebugString,
    Subscribe,
}

fn call(bytes: &mut Unstructured<'_>) -> Result<Call> {
    let timeout = |bytes: &mut Unstructured<'_>| bytes.choose(&[0, -1, 1, i64::MAX]).copied();
    Ok(match bytes.int_in_range(0..=23_u8)? {
        0 => Call::Create(id(bytes)?, bytes.arbitrary()?),
        1 => Call::Put(id(bytes)?),
        2 => Call::PutBatch(id(bytes)?, id(bytes)?),
        3 => Call::Write,
        4 => Call::Seal,
        5 => Call::Abort,
        6 => Call::Drop,
        7 => Call::Share,
        8 => Call::GetMany(id(bytes)?, id(bytes)?, timeout(bytes)?),
        9 => Call::Contains(id(bytes)?),
        10 => Call::ContainsMany(id(bytes)?, id(bytes)?),
        11 => Call::Delete(id(bytes)?),
        12 => Call::DeleteMany(id(bytes)?, id(bytes)?),
        13 => Call::List,
        14 => Call::Evict,
        15 => Call::Refresh(id(bytes)?),
        16 => Call::SetOptions,
        17 => Call::DebugString,
        18 => Call::Subscribe,
        _ => Call::Get(id(bytes)?, timeout(bytes)?),
    })
}

fn make_calls(path: &Path, calls: &[Call]) {
    let client = PlasmaClient::builder().retries(0).connect(path);
    let Ok(client) = client else {
        return;
    };
    let mut held = VecDeque::new();
    for call in calls {
        if let Err(error) = make_call(&client, *call, &mut held) {
            assert!(!error.to_string().is_empty());
        }
        for buffer in &held {
            look_at(buffer);
        }
    }
    drop(client);
    held.iter().for_each(look_at);
}

/// Reads an object, or of a long one some of it.
fn look_at(buffer: &ObjectBuffer) {
    let some = |bytes: &[u8]| {
        let start = bytes
            .iter()
            .take(1000)
            .map(|byte| u64::from(*byte))
            .sum::<u64>();
        start + bytes.last().map_or(0, |byte| u64::from(*byte))
    };
    std::hint::black_box(some(buffer.data()) + some(buffer.meta()));
    assert_eq!(buffer.size(), buffer.data().len() + buffer.meta().len());
}

fn make_call(
    client: &PlasmaClient,
    call: Call,
    held: &mut VecDeque<ObjectBuffer>,
) -> std::result::Result<(), PlasmaError> {
    match call {
        Call::Create(id, large) => {
            let data_size = if large { SEGMENT_LEN as usize } else { 100 };
            held.push_back(client.create(id, data_size, b"m")?);
        }
        Call::Put(id) => client.create_and_seal(id, &[7; 100], b"m")?,
        Call::PutBatch(a, b) => {
            client.create_and_seal_batch(&[(a, &[7; 100], b"m"), (b, b"", b"")])?;
        }
        Call::Write => {
            if let Some(buffer) = held.iter_mut().find(|buffer| buffer.is_mutable()) {
                buffer.data_mut().fill(7);
            }
        }
        Call::Seal => {
            if let Some(buffer) = held.iter_mut().find(|buffer| buffer.is_mutable()) {
                buffer.seal()?;
            }
        }
        Call::Abort => held.pop_front().map_or(Ok(()), ObjectBuffer::abort)?,
        Call::Drop => drop(held.pop_front()),
        Call::Share => {
            let shared = held.iter().find(|buffer| !buffer.is_mutable());
            held.extend(shared.map(ObjectBuffer::share));
        }
        Call::Get(id, timeout_ms) => held.extend(client.get(id, timeout_ms)?),
        Call::GetMany(a, b, timeout_ms) => {
            held.extend(client.get_many(&[a, b], timeout_ms)?.into_iter().flatten());
        }
        Call::Contains(id) => _ = client.contains(&id)?,
        Call::ContainsMany(a, b) => _ = client.contains_many(&[a, b])?,
        Call::Delete(id) => client.delete(&id)?,
        Call::DeleteMany(a, b) => client.delete_many(&[a, b])?,
        Call::List => _ = client.list()?,
        Call::Evict => _ = client.evict(1000)?,
        Call::Refresh(id) => client.refresh(&[id])?,
        Call::SetOptions => client.set_options("ann", 100)?,
        Call::DebugString => _ = client.debug_string()?,
        Call::Subscribe => client
            .subscribe()?
            .try_for_each(|notice| notice.map(drop))?,
    }
    Ok(())
}
