//! A store, and clients that say anything: whatever that is, one who keeps the rules is served, its
//! objects stay as they are, and once the others have gone nothing of theirs is left.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Instant;

use arbitrary::{Result, Unstructured};
use plasma_core::protocol::message::{Digest, NewObject, Reply, Request};
use plasma_core::shm::bell::Bell;
use plasma_core::shm::{self, Offer};
use plasma_core::{ObjectBuffer, ObjectId, PlasmaClient};
use plasma_store::{Store, StoreHandle};

use crate::patience;
use crate::raw::{RawClient, message, send_with_descriptors};

const CAPACITY: u64 = 1 << 20;

/// Clients that break the rules, and what they do together, at most.
const HOSTILE: usize = 3;
const MAX_STEPS: usize = 40;

/// The bystander's object, which it holds and everybody may name.
const HELD: ObjectId = ObjectId::new([0; ObjectId::LEN]);

/// Has clients say what the bytes stand for to a store.
pub fn store(data: &[u8]) {
    let store = Store::builder().capacity(CAPACITY).spawn();
    let store = store.expect("a store starts");
    let bystander = PlasmaClient::builder().connect(store.socket());
    let bystander = bystander.expect("the store accepts a client");
    bystander
        .create_and_seal(HELD, &[7; 1000], b"m")
        .expect("there is room");
    let held = bystander.get(HELD, 0).expect("the store answers");
    let held = held.expect("it was sealed");

    // Where bytes run out, nothing more is said.
    let _ = say(&mut Unstructured::new(data), &store, &bystander, &held);

    // They have all gone, and the store has noticed or will.
    eventually(|| connected_beside(&bystander) == 0);
    is_intact(&held);
    drop(held);
    eventually(|| {
        bystander.evict(CAPACITY).expect("the store answers");
        let objects = bystander.list().expect("the store answers");
        objects.is_empty() && number(&bystander, "allocated bytes") == 0
    });
    store.shutdown().expect("the store has nothing to say");
}

fn say(
    bytes: &mut Unstructured<'_>,
    store: &StoreHandle,
    bystander: &PlasmaClient,
    held: &ObjectBuffer,
) -> Result<()> {
    let mut clients: [Option<Hostile>; HOSTILE] = Default::default();
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        let which = bytes.choose_index(HOSTILE)?;
        if let Some(client) = &mut clients[which] {
            if !client.act(bytes)? {
                clients[which] = None;
            }
        } else {
            clients[which] = Some(Hostile::connect(store.socket(), bytes.arbitrary()?));
        }
    }
    // While they are all there.
    bystander.contains(&HELD).expect("the store answers");
    let own = ObjectId::new([0xee; ObjectId::LEN]);
    if bystander.create_and_seal(own, &[9; 100], b"").is_ok() {
        let got = bystander.get(own, 0).expect("the store answers");
        if let Some(got) = got {
            assert_eq!(got.data(), [9; 100]);
        }
    }
    is_intact(held);
    Ok(())
}

fn is_intact(held: &ObjectBuffer) {
    assert_eq!((held.data(), held.meta()), (&[7; 1000][..], &b"m"[..]));
}

fn number(client: &PlasmaClient, name: &str) -> u64 {
    crate::debug_number(client, name)
}

/// What others hold of the store, as far as one client is told.
fn connected_beside(client: &PlasmaClient) -> usize {
    let objects = client.list().expect("the store answers");
    objects
        .iter()
        .filter(|info| info.id != HELD && (info.ref_count > 0 || info.digest.is_none()))
        .count()
}

/// Looks again and again until something is so.
fn eventually(mut so: impl FnMut() -> bool) {
    let end = Instant::now() + patience();
    while !so() {
        assert!(Instant::now() < end, "waited in vain");
        thread::yield_now();
    }
}

struct Hostile {
    socket: UnixStream,
    /// The page that it writes, and what wakes the store.
    page: Option<(File, Bell)>,
    /// Streams that the store may write notifications to.
    streams: Vec<UnixStream>,
}

impl Hostile {
    /// Connects; politely, to be given a page.
    fn connect(path: &Path, politely: bool) -> Self {
        let mut page = None;
        let raw = RawClient::connect(path);
        let socket = raw.socket().try_clone().expect("a descriptor");
        if politely {
            let mut raw = raw;
            let reply = raw.call(&Request::Connect {
                capabilities: shm::CAPABILITY,
            });
            if let Reply::Connect { offer: Some(_), .. } = reply {
                // The segment comes first.
                raw.descriptor();
                let given: [_; Offer::DESCRIPTORS] = std::array::from_fn(|_| raw.descriptor());
                let [_, own, _, bell, _] = given;
                let bell = Bell::from_peer(bell).expect("a bell");
                page = Some((File::from(own), bell));
            }
        }
        socket.set_nonblocking(true).expect("a socket");
        Self {
            socket,
            page,
            streams: Vec::new(),
        }
    }

    /// Does one thing; false if it was the last.
    fn act(&mut self, bytes: &mut Unstructured<'_>) -> Result<bool> {
        match bytes.int_in_range(0..=9_u8)? {
            0 => return Ok(false),
            1 => _ = (&self.socket).write(bytes.bytes(bytes.len().min(40))?),
            2 => {
                // It may read, and does not have to.
                let _ = (&self.socket).read(&mut [0; 1 << 14]);
            }
            3 | 4 => {
                let at = u64::from(bytes.arbitrary::<u16>()?) * 8;
                let word: u64 = match bytes.arbitrary()? {
                    true => bytes.arbitrary::<u8>()?.into(),
                    false => bytes.arbitrary()?,
                };
                if let Some((page, bell)) = &mut self.page {
                    // Beyond its end it cannot be written: it is sealed.
                    let _ = page.write_all_at(&word.to_le_bytes(), at);
                    if bytes.arbitrary()? {
                        bell.ring();
                    }
                }
            }
            5 => {
                let mut said = message(&request(bytes)?);
                let at = usize::from(bytes.arbitrary::<u8>()?);
                if let Some(byte) = said.get_mut(at) {
                    *byte = bytes.arbitrary()?;
                }
                said.truncate(usize::from(bytes.arbitrary::<u16>()?));
                let _ = (&self.socket).write(&said);
            }
            _ => {
                let request = request(bytes)?;
                let _ = (&self.socket).write(&message(&request));
                let subscribes = matches!(request, Request::Subscribe);
                if subscribes || bytes.ratio(1_u8, 16)? {
                    self.give(bytes)?;
                }
            }
        }
        Ok(true)
    }

    /// Sends descriptors, of the right kind or not.
    fn give(&mut self, bytes: &mut Unstructured<'_>) -> Result<()> {
        let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
        let (mut ours, mut theirs) = (Some(ours), OwnedFd::from(theirs));
        match bytes.int_in_range(0..=7_u8)? {
            0 => theirs = File::open("/dev/null").expect("a device").into(),
            1 => theirs = self.socket.try_clone().expect("a descriptor").into(),
            2 => ours = None,
            _ => {}
        }
        let count = bytes.int_in_range(0..=2)?;
        let all: Vec<BorrowedFd<'_>> = (0..=count).map(|_| theirs.as_fd()).collect();
        let _ = send_with_descriptors(&self.socket, &[0], &all);
        self.streams.extend(ours);
        Ok(())
    }
}

fn id(bytes: &mut Unstructured<'_>) -> Result<ObjectId> {
    Ok(ObjectId::new([bytes.int_in_range(0..=5)?; ObjectId::LEN]))
}

fn ids(bytes: &mut Unstructured<'_>) -> Result<Vec<ObjectId>> {
    (0..bytes.int_in_range(0..=4_u8)?)
        .map(|_| id(bytes))
        .collect()
}

fn object(bytes: &mut Unstructured<'_>) -> Result<NewObject<'static>> {
    const CONTENT: [u8; 5000] = [3; 5000];
    let len = *bytes.choose(&[0, 1, 64, 5000])?;
    Ok(NewObject {
        id: id(bytes)?,
        data: CONTENT.get(..len).unwrap_or(&CONTENT),
        metadata: if bytes.arbitrary()? { b"meta" } else { b"" },
        digest: bytes.arbitrary()?,
    })
}

fn request(bytes: &mut Unstructured<'_>) -> Result<Request<'static>> {
    let size = |bytes: &mut Unstructured<'_>| -> Result<u64> {
        Ok(match bytes.int_in_range(0..=7_u8)? {
            0 => bytes.arbitrary()?,
            1 => CAPACITY,
            2 => 0,
            _ => u64::from(bytes.arbitrary::<u16>()?) * 8,
        })
    };
    let digest: Digest = [5; 8];
    Ok(match bytes.int_in_range(0..=18_u8)? {
        0 => Request::Connect {
            capabilities: bytes.arbitrary::<u8>()?.into(),
        },
        1 | 2 => Request::Create {
            id: id(bytes)?,
            evict_if_full: bytes.arbitrary()?,
            data_size: size(bytes)?,
            metadata_size: size(bytes)?,
            device_num: bytes.ratio(1_u8, 16)?.into(),
        },
        3 => Request::CreateAndSeal {
            object: object(bytes)?,
            evict_if_full: bytes.arbitrary()?,
        },
        4 => {
            let objects = (0..bytes.int_in_range(0..=4_u8)?).map(|_| object(bytes));
            Request::CreateAndSealBatch {
                objects: objects.collect::<Result<Vec<_>>>()?.into(),
                evict_if_full: bytes.arbitrary()?,
            }
        }
        5 => Request::Abort(id(bytes)?),
        6 | 7 => Request::Seal {
            id: id(bytes)?,
            digest,
        },
        8 | 9 => Request::Get {
            ids: ids(bytes)?.into(),
            timeout_ms: *bytes.choose(&[0, -1, 1, i64::MAX, i64::MIN])?,
        },
        10 => Request::Release(id(bytes)?),
        11 => Request::Delete(ids(bytes)?.into()),
        12 => Request::Contains(id(bytes)?),
        13 => Request::List,
        14 => Request::Evict {
            num_bytes: size(bytes)?,
        },
        15 => Request::Subscribe,
        16 => Request::SetOptions {
            client_name: if bytes.arbitrary()? { "ann" } else { "" }.into(),
            quota_bytes: size(bytes)?.cast_signed(),
        },
        17 => Request::GetDebugString,
        _ => Request::RefreshLru(ids(bytes)?.into()),
    })
}
