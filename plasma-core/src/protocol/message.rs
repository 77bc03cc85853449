//! Requests and replies as Rust values, encoded to and decoded from flatbuffers.
//!
//! Decoding verifies: no bytes from a peer can make it panic or read out of bounds. Every reply is
//! encoded complete, because Arrow's C++ client reads each field of one before it looks at the
//! error.

use std::borrow::Cow;
use std::fmt;

use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, Vector, VerifierOptions, WIPOffset};

use super::frame::{HEADER_LEN, Header, MessageType};
use super::r#gen::wire;
use crate::ObjectId;
use crate::shm::page::Shape;
use crate::shm::{self, Offer};

/// The most objects that one request may name. Past it, the answer would be more than is good for a
/// store that serves others too.
pub const MAX_IDS: usize = 1 << 20;

/// Eight bytes that stand for an object's content; all zero where nobody computed them.
pub type Digest = [u8; 8];

/// The size that stands for "not there" in a get's reply and in a deletion's notification.
const ABSENT: u64 = u64::MAX;

/// An object that travels inline, to be made and sealed in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct NewObject<'a> {
    pub id: ObjectId,
    pub data: &'a [u8],
    pub metadata: &'a [u8],
    pub digest: Digest,
}

/// What a client asks of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Request<'a> {
    /// What this client can do beyond Arrow's protocol, a bit each; 0 for Arrow's own clients.
    Connect {
        capabilities: u64,
    },
    Create {
        id: ObjectId,
        evict_if_full: bool,
        data_size: u64,
        metadata_size: u64,
        device_num: i32,
    },
    CreateAndSeal {
        object: NewObject<'a>,
        evict_if_full: bool,
    },
    CreateAndSealBatch {
        objects: Cow<'a, [NewObject<'a>]>,
        evict_if_full: bool,
    },
    Abort(ObjectId),
    Seal {
        id: ObjectId,
        digest: Digest,
    },
    /// A timeout of 0 does not wait, a negative one waits for ever.
    Get {
        ids: Cow<'a, [ObjectId]>,
        timeout_ms: i64,
    },
    Release(ObjectId),
    Delete(Cow<'a, [ObjectId]>),
    Contains(ObjectId),
    List,
    Evict {
        num_bytes: u64,
    },
    /// Followed by one descriptor: the stream that notifications are to be written to.
    Subscribe,
    SetOptions {
        client_name: Cow<'a, str>,
        quota_bytes: i64,
    },
    GetDebugString,
    RefreshLru(Cow<'a, [ObjectId]>),
    Disconnect,
}

/// The errors that the protocol has numbers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum ErrorCode {
    ObjectExists = 1,
    ObjectNotFound = 2,
    OutOfMemory = 3,
    ObjectNotSealed = 4,
    ObjectInUse = 5,
}

impl ErrorCode {
    /// The error of this number, if it is one.
    pub fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            1 => Self::ObjectExists,
            2 => Self::ObjectNotFound,
            3 => Self::OutOfMemory,
            4 => Self::ObjectNotSealed,
            5 => Self::ObjectInUse,
            _ => return None,
        })
    }
}

/// Success, or one of the protocol's errors.
pub type Outcome = Result<(), ErrorCode>;

/// Where an object lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectSpec {
    /// The segment's number, the same for every connection.
    pub segment: i32,
    /// Offset of the data from the segment's start, in bytes.
    pub data_offset: u64,
    /// Bytes of data.
    pub data_size: u64,
    /// Offset of the metadata from the segment's start, in bytes.
    pub metadata_offset: u64,
    /// Bytes of metadata.
    pub metadata_size: u64,
    /// 0 is the host's memory.
    pub device_num: i32,
}

/// A segment that a reply names; its descriptor follows the first time a connection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentRef {
    /// The segment's number.
    pub segment: i32,
    /// The segment's length plus [`MMAP_GAP`], in bytes.
    pub mmap_size: i64,
}

/// Arrow's store announces every mapping this much longer than it is.
pub const MMAP_GAP: u64 = 8;

/// One object as a list or a notification tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// The object's id.
    pub id: ObjectId,
    /// Bytes of data.
    pub data_size: u64,
    /// Bytes of metadata.
    pub metadata_size: u64,
    /// How many clients hold the object.
    pub ref_count: u32,
    /// When the object was created, in seconds since the Unix epoch.
    pub create_time_s: i64,
    /// Seconds from create to seal; `None` for an object that is not sealed.
    pub construct_duration_s: Option<i64>,
    /// The digest the sealing client gave; `None` for an object that is not sealed.
    pub digest: Option<Digest>,
}

/// What subscribers are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// An object was sealed (or was there when the subscription began).
    Sealed(ObjectInfo),
    /// An object was deleted or evicted.
    Deleted(ObjectId),
}

/// What the store answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub enum Reply<'a> {
    /// What is offered is for a client that has asked for it. The descriptors of the segments and then
    /// of the offer follow.
    Connect {
        memory_capacity: i64,
        offer: Option<(Offer, Vec<SegmentRef>)>,
    },
    Create {
        id: ObjectId,
        result: Result<(ObjectSpec, SegmentRef), ErrorCode>,
    },
    CreateAndSeal(Outcome),
    CreateAndSealBatch(Outcome),
    Abort(ObjectId),
    Seal {
        id: ObjectId,
        result: Outcome,
    },
    /// One entry for each requested id, in the request's order.
    Get {
        objects: Cow<'a, [(ObjectId, Option<ObjectSpec>)]>,
        segments: Vec<SegmentRef>,
    },
    Delete(Cow<'a, [(ObjectId, Outcome)]>),
    Contains {
        id: ObjectId,
        has_object: bool,
    },
    List(Vec<ObjectInfo>),
    Evict {
        num_bytes: u64,
    },
    SetOptions(Outcome),
    GetDebugString(Cow<'a, str>),
    RefreshLru,
}

/// Why a body is not the message that its header announced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MalformedMessage {
    /// The flatbuffer's own structure is broken.
    #[error("{0:?}: {1}")]
    Flatbuffer(MessageType, Box<flatbuffers::InvalidFlatbuffer>),
    /// A field is missing or has a value that no peer may send.
    #[error("{0:?}: {1}")]
    Field(MessageType, &'static str),
    /// A message that has no business in this direction.
    #[error("unexpected {0:?}")]
    Unexpected(MessageType),
}

// ---------------------------------------------------------------------------------------------
// Encoding

/// Encodes messages, reusing one buffer.
#[derive(Default)]
pub struct Encoder {
    builder: FlatBufferBuilder<'static>,
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encoder").finish_non_exhaustive()
    }
}

/// A message ready to be sent: the header, then the body.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The 24 bytes in front.
    pub header: [u8; HEADER_LEN],
    /// The flatbuffer.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the whole message.
    pub fn wire_len(&self) -> usize {
        HEADER_LEN + self.body.len()
    }
}

/// A body that grew past this is not kept for reuse.
const KEEP_CAPACITY: usize = 1 << 20;

impl Encoder {
    /// An encoder with an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    fn start(&mut self) -> &mut FlatBufferBuilder<'static> {
        if self.builder.mut_finished_buffer().0.len() > KEEP_CAPACITY {
            self.builder = FlatBufferBuilder::new();
        } else {
            self.builder.reset();
        }
        &mut self.builder
    }

    /// Encodes what a client asks.
    pub fn request(&mut self, request: &Request<'_>) -> Frame<'_> {
        let b = self.start();
        let kind = match request {
            Request::Connect { capabilities } => {
                let args = wire::ConnectRequestArgs {
                    capabilities: *capabilities,
                };
                let root = wire::ConnectRequest::create(b, &args);
                b.finish_minimal(root);
                MessageType::ConnectRequest
            }
            Request::Create {
                id,
                evict_if_full,
                data_size,
                metadata_size,
                device_num,
            } => {
                let object_id = id_bytes(b, id);
                let root = wire::CreateRequest::create(
                    b,
                    &wire::CreateRequestArgs {
                        object_id,
                        evict_if_full: *evict_if_full,
                        data_size: *data_size,
                        metadata_size: *metadata_size,
                        device_num: *device_num,
                    },
                );
                b.finish_minimal(root);
                MessageType::CreateRequest
            }
            Request::CreateAndSeal {
                object,
                evict_if_full,
            } => {
                let object_id = id_bytes(b, &object.id);
                let data = bytes(b, object.data);
                let metadata = bytes(b, object.metadata);
                let digest = bytes(b, &object.digest);
                let root = wire::CreateAndSealRequest::create(
                    b,
                    &wire::CreateAndSealRequestArgs {
                        object_id,
                        evict_if_full: *evict_if_full,
                        data,
                        metadata,
                        digest,
                    },
                );
                b.finish_minimal(root);
                MessageType::CreateAndSealRequest
            }
            Request::CreateAndSealBatch {
                objects,
                evict_if_full,
            } => {
                let object_ids = byte_list(b, objects.iter().map(|o| &o.id.as_bytes()[..]));
                let data = byte_list(b, objects.iter().map(|o| o.data));
                let metadata = byte_list(b, objects.iter().map(|o| o.metadata));
                let digest = byte_list(b, objects.iter().map(|o| &o.digest[..]));
                let root = wire::CreateAndSealBatchRequest::create(
                    b,
                    &wire::CreateAndSealBatchRequestArgs {
                        object_ids,
                        evict_if_full: *evict_if_full,
                        data,
                        metadata,
                        digest,
                    },
                );
                b.finish_minimal(root);
                MessageType::CreateAndSealBatchRequest
            }
            Request::Abort(id) => {
                let object_id = id_bytes(b, id);
                let root = wire::AbortRequest::create(b, &wire::AbortRequestArgs { object_id });
                b.finish_minimal(root);
                MessageType::AbortRequest
            }
            Request::Seal { id, digest } => {
                let object_id = id_bytes(b, id);
                let digest = bytes(b, digest);
                let root =
                    wire::SealRequest::create(b, &wire::SealRequestArgs { object_id, digest });
                b.finish_minimal(root);
                MessageType::SealRequest
            }
            Request::Get { ids, timeout_ms } => {
                let object_ids = id_list(b, ids);
                let root = wire::GetRequest::create(
                    b,
                    &wire::GetRequestArgs {
                        object_ids,
                        timeout_ms: *timeout_ms,
                    },
                );
                b.finish_minimal(root);
                MessageType::GetRequest
            }
            Request::Release(id) => {
                let object_id = id_bytes(b, id);
                let root = wire::ReleaseRequest::create(b, &wire::ReleaseRequestArgs { object_id });
                b.finish_minimal(root);
                MessageType::ReleaseRequest
            }
            Request::Delete(ids) => {
                let object_ids = id_list(b, ids);
                let root = wire::DeleteRequest::create(
                    b,
                    &wire::DeleteRequestArgs {
                        count: i32::try_from(ids.len()).unwrap_or(i32::MAX),
                        object_ids,
                    },
                );
                b.finish_minimal(root);
                MessageType::DeleteRequest
            }
            Request::Contains(id) => {
                let object_id = id_bytes(b, id);
                let root =
                    wire::ContainsRequest::create(b, &wire::ContainsRequestArgs { object_id });
                b.finish_minimal(root);
                MessageType::ContainsRequest
            }
            Request::List => {
                let root = wire::ListRequest::create(b, &wire::ListRequestArgs {});
                b.finish_minimal(root);
                MessageType::ListRequest
            }
            Request::Evict { num_bytes } => {
                let args = wire::EvictRequestArgs {
                    num_bytes: *num_bytes,
                };
                let root = wire::EvictRequest::create(b, &args);
                b.finish_minimal(root);
                MessageType::EvictRequest
            }
            Request::Subscribe => {
                let root = wire::SubscribeRequest::create(b, &wire::SubscribeRequestArgs {});
                b.finish_minimal(root);
                MessageType::SubscribeRequest
            }
            Request::SetOptions {
                client_name,
                quota_bytes,
            } => {
                let client_name = bytes(b, client_name.as_bytes());
                let root = wire::SetOptionsRequest::create(
                    b,
                    &wire::SetOptionsRequestArgs {
                        client_name,
                        output_memory_quota: *quota_bytes,
                    },
                );
                b.finish_minimal(root);
                MessageType::SetOptionsRequest
            }
            Request::GetDebugString => {
                let root =
                    wire::GetDebugStringRequest::create(b, &wire::GetDebugStringRequestArgs {});
                b.finish_minimal(root);
                MessageType::GetDebugStringRequest
            }
            Request::RefreshLru(ids) => {
                let object_ids = id_list(b, ids);
                let root =
                    wire::RefreshLruRequest::create(b, &wire::RefreshLruRequestArgs { object_ids });
                b.finish_minimal(root);
                MessageType::RefreshLruRequest
            }
            Request::Disconnect => {
                let args = wire::ConnectRequestArgs::default();
                let root = wire::ConnectRequest::create(b, &args);
                b.finish_minimal(root);
                MessageType::DisconnectClient
            }
        };
        self.frame(kind)
    }

    /// Encodes what the store answers.
    pub fn reply(&mut self, reply: &Reply<'_>) -> Frame<'_> {
        let b = self.start();
        let kind = match reply {
            Reply::Connect {
                memory_capacity,
                offer,
            } => {
                let mut args = wire::ConnectReplyArgs {
                    memory_capacity: *memory_capacity,
                    ..Default::default()
                };
                // Without an offer these are the bytes that Arrow's store sends.
                if let Some((offer, segments)) = offer {
                    args.features = shm::CAPABILITY;
                    args.index_bytes = offer.index_len;
                    args.pins = offer.shape.pins;
                    args.requests = offer.shape.requests;
                    args.content_bytes = offer.shape.content_bytes;
                    args.segments =
                        Some(b.create_vector_from_iter(segments.iter().map(|s| s.segment)));
                    args.mmap_sizes =
                        Some(b.create_vector_from_iter(segments.iter().map(|s| s.mmap_size)));
                }
                let root = wire::ConnectReply::create(b, &args);
                b.finish_minimal(root);
                MessageType::ConnectReply
            }
            Reply::Create { id, result } => {
                let object_id = id_bytes(b, id);
                let handle = b.create_vector::<u8>(&[]);
                let ipc_handle = wire::CudaHandle::create(
                    b,
                    &wire::CudaHandleArgs {
                        handle: Some(handle),
                    },
                );
                let spec = wire_spec(result.as_ref().ok().map(|(spec, _)| spec));
                let segment = result.as_ref().ok().map(|(_, segment)| *segment);
                let root = wire::CreateReply::create(
                    b,
                    &wire::CreateReplyArgs {
                        object_id,
                        plasma_object: Some(&spec),
                        error: result.as_ref().err().map_or(0, |code| *code as i32),
                        store_fd: segment.map_or(-1, |s| s.segment),
                        mmap_size: segment.map_or(0, |s| s.mmap_size),
                        ipc_handle: Some(ipc_handle),
                    },
                );
                b.finish_minimal(root);
                MessageType::CreateReply
            }
            Reply::CreateAndSeal(outcome) => {
                let error = wire_error(*outcome);
                let root =
                    wire::CreateAndSealReply::create(b, &wire::CreateAndSealReplyArgs { error });
                b.finish_minimal(root);
                MessageType::CreateAndSealReply
            }
            Reply::CreateAndSealBatch(outcome) => {
                let error = wire_error(*outcome);
                let root = wire::CreateAndSealBatchReply::create(
                    b,
                    &wire::CreateAndSealBatchReplyArgs { error },
                );
                b.finish_minimal(root);
                MessageType::CreateAndSealBatchReply
            }
            Reply::Abort(id) => {
                let object_id = id_bytes(b, id);
                let root = wire::AbortReply::create(b, &wire::AbortReplyArgs { object_id });
                b.finish_minimal(root);
                MessageType::AbortReply
            }
            Reply::Seal { id, result } => {
                let object_id = id_bytes(b, id);
                let error = wire_error(*result);
                let root = wire::SealReply::create(b, &wire::SealReplyArgs { object_id, error });
                b.finish_minimal(root);
                MessageType::SealReply
            }
            Reply::Get { objects, segments } => {
                let object_ids = byte_list(b, objects.iter().map(|(id, _)| &id.as_bytes()[..]));
                let specs = objects.iter().map(|(_, spec)| wire_spec(spec.as_ref()));
                let plasma_objects = Some(b.create_vector_from_iter(specs));
                let store_fds = Some(b.create_vector_from_iter(segments.iter().map(|s| s.segment)));
                let mmap_sizes =
                    Some(b.create_vector_from_iter(segments.iter().map(|s| s.mmap_size)));
                // One (empty) handle for each object, as Arrow's store writes them; they share
                // one table.
                let handle = b.create_vector::<u8>(&[]);
                let handle = wire::CudaHandle::create(
                    b,
                    &wire::CudaHandleArgs {
                        handle: Some(handle),
                    },
                );
                let handles = Some(b.create_vector_from_iter(objects.iter().map(|_| handle)));
                let root = wire::GetReply::create(
                    b,
                    &wire::GetReplyArgs {
                        object_ids,
                        plasma_objects,
                        store_fds,
                        mmap_sizes,
                        handles,
                    },
                );
                b.finish_minimal(root);
                MessageType::GetReply
            }
            Reply::Delete(objects) => {
                let object_ids = byte_list(b, objects.iter().map(|(id, _)| &id.as_bytes()[..]));
                let errors = objects.iter().map(|(_, outcome)| wire_error(*outcome));
                let errors = Some(b.create_vector_from_iter(errors));
                let root = wire::DeleteReply::create(
                    b,
                    &wire::DeleteReplyArgs {
                        count: i32::try_from(objects.len()).unwrap_or(i32::MAX),
                        object_ids,
                        errors,
                    },
                );
                b.finish_minimal(root);
                MessageType::DeleteReply
            }
            Reply::Contains { id, has_object } => {
                let object_id = id_bytes(b, id);
                let root = wire::ContainsReply::create(
                    b,
                    &wire::ContainsReplyArgs {
                        object_id,
                        has_object: i32::from(*has_object),
                    },
                );
                b.finish_minimal(root);
                MessageType::ContainsReply
            }
            Reply::List(infos) => {
                let objects: Vec<_> = infos.iter().map(|info| wire_info(b, info)).collect();
                let objects = Some(b.create_vector(&objects));
                let root = wire::ListReply::create(b, &wire::ListReplyArgs { objects });
                b.finish_minimal(root);
                MessageType::ListReply
            }
            Reply::Evict { num_bytes } => {
                let args = wire::EvictReplyArgs {
                    num_bytes: *num_bytes,
                };
                let root = wire::EvictReply::create(b, &args);
                b.finish_minimal(root);
                MessageType::EvictReply
            }
            Reply::SetOptions(outcome) => {
                let error = wire_error(*outcome);
                let root = wire::SetOptionsReply::create(b, &wire::SetOptionsReplyArgs { error });
                b.finish_minimal(root);
                MessageType::SetOptionsReply
            }
            Reply::GetDebugString(text) => {
                let debug_string = bytes(b, text.as_bytes());
                let root = wire::GetDebugStringReply::create(
                    b,
                    &wire::GetDebugStringReplyArgs { debug_string },
                );
                b.finish_minimal(root);
                MessageType::GetDebugStringReply
            }
            Reply::RefreshLru => {
                let root = wire::RefreshLruReply::create(b, &wire::RefreshLruReplyArgs {});
                b.finish_minimal(root);
                MessageType::RefreshLruReply
            }
        };
        self.frame(kind)
    }

    /// Encodes one notification, as it stands on a subscriber's stream: its length as an `i64`,
    /// then the flatbuffer.
    pub fn notification(&mut self, notices: &[Notification]) -> ([u8; 8], &[u8]) {
        let b = self.start();
        let infos: Vec<_> = notices
            .iter()
            .map(|notice| match notice {
                Notification::Sealed(info) => wire_info(b, info),
                Notification::Deleted(id) => {
                    let object_id = id_bytes(b, id);
                    let digest = bytes(b, &[]);
                    wire::ObjectInfo::create(
                        b,
                        &wire::ObjectInfoArgs {
                            object_id,
                            digest,
                            is_deletion: true,
                            ..Default::default()
                        },
                    )
                }
            })
            .collect();
        let object_info = Some(b.create_vector(&infos));
        let root = wire::Notification::create(b, &wire::NotificationArgs { object_info });
        b.finish_minimal(root);
        let body = self.builder.finished_data();
        ((body.len() as i64).to_le_bytes(), body)
    }

    fn frame(&self, kind: MessageType) -> Frame<'_> {
        let body = self.builder.finished_data();
        let header = Header {
            kind,
            body_len: body.len(),
        };
        Frame {
            header: header.to_bytes(),
            body,
        }
    }
}

type Bytes<'b> = Option<WIPOffset<Vector<'b, u8>>>;
type ByteList<'b> = Option<WIPOffset<Vector<'b, ForwardsUOffset<Vector<'b, u8>>>>>;

fn byte_string<'b>(b: &mut FlatBufferBuilder<'b>, value: &[u8]) -> WIPOffset<Vector<'b, u8>> {
    // A byte string is a byte vector with a zero behind it, which C++ readers rely on.
    WIPOffset::new(b.create_byte_string(value).value())
}

fn bytes<'b>(b: &mut FlatBufferBuilder<'b>, value: &[u8]) -> Bytes<'b> {
    Some(byte_string(b, value))
}

fn id_bytes<'b>(b: &mut FlatBufferBuilder<'b>, id: &ObjectId) -> Bytes<'b> {
    bytes(b, id.as_bytes())
}

fn byte_list<'b, 'v>(
    b: &mut FlatBufferBuilder<'b>,
    values: impl Iterator<Item = &'v [u8]>,
) -> ByteList<'b> {
    let strings: Vec<_> = values.map(|value| byte_string(b, value)).collect();
    Some(b.create_vector(&strings))
}

fn id_list<'b>(b: &mut FlatBufferBuilder<'b>, ids: &[ObjectId]) -> ByteList<'b> {
    byte_list(b, ids.iter().map(|id| &id.as_bytes()[..]))
}

fn wire_error(outcome: Outcome) -> i32 {
    outcome.err().map_or(0, |code| code as i32)
}

fn wire_spec(spec: Option<&ObjectSpec>) -> wire::ObjectSpec {
    match spec {
        Some(spec) => wire::ObjectSpec::new(
            spec.segment,
            spec.data_offset,
            spec.data_size,
            spec.metadata_offset,
            spec.metadata_size,
            spec.device_num,
        ),
        None => wire::ObjectSpec::new(-1, 0, ABSENT, 0, ABSENT, 0),
    }
}

fn wire_info<'b>(
    b: &mut FlatBufferBuilder<'b>,
    info: &ObjectInfo,
) -> WIPOffset<wire::ObjectInfo<'b>> {
    let object_id = id_bytes(b, &info.id);
    let digest = bytes(b, info.digest.as_ref().map_or(&[], |digest| &digest[..]));
    wire::ObjectInfo::create(
        b,
        &wire::ObjectInfoArgs {
            object_id,
            data_size: info.data_size as i64,
            metadata_size: info.metadata_size as i64,
            ref_count: i32::try_from(info.ref_count).unwrap_or(i32::MAX),
            create_time: info.create_time_s,
            construct_duration: info.construct_duration_s.unwrap_or(-1),
            digest,
            is_deletion: false,
        },
    )
}

// ---------------------------------------------------------------------------------------------
// Decoding

fn root<'a, T>(kind: MessageType, body: &'a [u8]) -> Result<T::Inner, MalformedMessage>
where
    T: flatbuffers::Follow<'a> + flatbuffers::Verifiable + 'a,
{
    // The limits keep what is verified, and what is made of it, linear in the body, however its
    // offsets overlap. Honest lists of tables share what tells their fields, and nothing else.
    let shared = match kind {
        MessageType::ListReply | MessageType::Notification | MessageType::GetReply => 4,
        _ => 1,
    };
    let options = VerifierOptions {
        max_depth: 8,
        max_tables: body.len() / 4 + 16,
        max_apparent_size: body.len().saturating_mul(shared).saturating_add(4096),
        ignore_missing_null_terminator: true,
    };
    flatbuffers::root_with_opts::<T>(&options, body)
        .map_err(|error| MalformedMessage::Flatbuffer(kind, Box::new(error)))
}

/// Reads the fields of one message, naming it in errors.
#[derive(Clone, Copy)]
struct Fields(MessageType);

impl Fields {
    fn bad(self, what: &'static str) -> MalformedMessage {
        MalformedMessage::Field(self.0, what)
    }

    fn bytes<'a>(self, field: Option<Vector<'a, u8>>) -> &'a [u8] {
        field.map_or(&[], |bytes| bytes.bytes())
    }

    fn text<'a>(self, field: Option<Vector<'a, u8>>) -> Cow<'a, str> {
        String::from_utf8_lossy(self.bytes(field))
    }

    fn id(self, field: Option<Vector<'_, u8>>) -> Result<ObjectId, MalformedMessage> {
        self.id_from(self.bytes(field))
    }

    fn id_from(self, bytes: &[u8]) -> Result<ObjectId, MalformedMessage> {
        <[u8; 20]>::try_from(bytes)
            .map(ObjectId::new)
            .map_err(|_| self.bad("an object id that is not 20 bytes"))
    }

    fn ids(
        self,
        field: Option<Vector<'_, ForwardsUOffset<Vector<'_, u8>>>>,
    ) -> Result<Vec<ObjectId>, MalformedMessage> {
        let Some(list) = field else {
            return Ok(Vec::new());
        };
        if list.len() > MAX_IDS {
            return Err(self.bad("more objects than one message may name"));
        }
        list.iter().map(|id| self.id_from(id.bytes())).collect()
    }

    /// A digest of another length than Arrow's is cut or filled with zeros.
    fn digest(self, bytes: &[u8]) -> Digest {
        std::array::from_fn(|index| bytes.get(index).copied().unwrap_or_default())
    }

    fn size(self, size: i64) -> Result<u64, MalformedMessage> {
        u64::try_from(size).map_err(|_| self.bad("a negative size"))
    }

    fn outcome(self, error: i32) -> Result<Outcome, MalformedMessage> {
        match (error, ErrorCode::from_number(error)) {
            (0, _) => Ok(Ok(())),
            (_, Some(code)) => Ok(Err(code)),
            (_, None) => Err(self.bad("an unknown error code")),
        }
    }

    /// The segments that two lists name.
    fn segments(
        self,
        numbers: Option<Vector<'_, i32>>,
        sizes: Option<Vector<'_, i64>>,
    ) -> Result<Vec<SegmentRef>, MalformedMessage> {
        let (numbers, sizes) = (numbers.unwrap_or_default(), sizes.unwrap_or_default());
        if numbers.len() != sizes.len() {
            return Err(self.bad("lists of different lengths"));
        }
        let segments = numbers.iter().zip(sizes.iter());
        Ok(segments
            .map(|(segment, mmap_size)| SegmentRef { segment, mmap_size })
            .collect())
    }

    /// What a connect's reply offers, as far as this version knows of it.
    fn offer(
        self,
        reply: &wire::ConnectReply<'_>,
    ) -> Result<Option<(Offer, Vec<SegmentRef>)>, MalformedMessage> {
        if reply.features() & shm::CAPABILITY == 0 {
            return Ok(None);
        }
        let shape = Shape {
            pins: reply.pins(),
            requests: reply.requests(),
            content_bytes: reply.content_bytes(),
        };
        if !shape.is_valid() {
            return Err(self.bad("pages of a shape that there is not"));
        }
        let offer = Offer {
            index_len: reply.index_bytes(),
            shape,
        };
        let segments = self.segments(reply.segments(), reply.mmap_sizes())?;
        Ok(Some((offer, segments)))
    }

    fn info(self, info: wire::ObjectInfo<'_>) -> Result<ObjectInfo, MalformedMessage> {
        let digest = self.bytes(info.digest());
        Ok(ObjectInfo {
            id: self.id(info.object_id())?,
            data_size: self.size(info.data_size())?,
            metadata_size: self.size(info.metadata_size())?,
            ref_count: u32::try_from(info.ref_count())
                .map_err(|_| self.bad("a negative reference count"))?,
            create_time_s: info.create_time(),
            construct_duration_s: Some(info.construct_duration()).filter(|s| *s >= 0),
            digest: (!digest.is_empty()).then(|| self.digest(digest)),
        })
    }
}

fn spec(object: &wire::ObjectSpec) -> Option<ObjectSpec> {
    (object.data_size() != ABSENT).then(|| ObjectSpec {
        segment: object.segment_index(),
        data_offset: object.data_offset(),
        data_size: object.data_size(),
        metadata_offset: object.metadata_offset(),
        metadata_size: object.metadata_size(),
        device_num: object.device_num(),
    })
}

impl<'a> Request<'a> {
    /// Reads the body of a message that a client sent.
    ///
    /// # Errors
    /// The body is not a valid `kind`, or `kind` is not a request. The rest of the connection
    /// cannot be trusted then.
    pub fn decode(kind: MessageType, body: &'a [u8]) -> Result<Self, MalformedMessage> {
        let fields = Fields(kind);
        Ok(match kind {
            MessageType::DisconnectClient => Self::Disconnect,
            MessageType::ConnectRequest => {
                let m = root::<wire::ConnectRequest<'_>>(kind, body)?;
                Self::Connect {
                    capabilities: m.capabilities(),
                }
            }
            MessageType::CreateRequest => {
                let m = root::<wire::CreateRequest<'_>>(kind, body)?;
                Self::Create {
                    id: fields.id(m.object_id())?,
                    evict_if_full: m.evict_if_full(),
                    data_size: m.data_size(),
                    metadata_size: m.metadata_size(),
                    device_num: m.device_num(),
                }
            }
            MessageType::CreateAndSealRequest => {
                let m = root::<wire::CreateAndSealRequest<'_>>(kind, body)?;
                Self::CreateAndSeal {
                    object: NewObject {
                        id: fields.id(m.object_id())?,
                        data: fields.bytes(m.data()),
                        metadata: fields.bytes(m.metadata()),
                        digest: fields.digest(fields.bytes(m.digest())),
                    },
                    evict_if_full: m.evict_if_full(),
                }
            }
            MessageType::CreateAndSealBatchRequest => {
                let m = root::<wire::CreateAndSealBatchRequest<'_>>(kind, body)?;
                let ids = m.object_ids().unwrap_or_default();
                let data = m.data().unwrap_or_default();
                let metadata = m.metadata().unwrap_or_default();
                let digests = m.digest().unwrap_or_default();
                if ids.len() > MAX_IDS {
                    return Err(fields.bad("more objects than one message may name"));
                }
                if [data.len(), metadata.len(), digests.len()] != [ids.len(); 3] {
                    return Err(fields.bad("lists of different lengths"));
                }
                let objects = ids
                    .iter()
                    .zip(data.iter().zip(metadata.iter().zip(digests.iter())))
                    .map(|(id, (data, (metadata, digest)))| {
                        Ok(NewObject {
                            id: fields.id_from(id.bytes())?,
                            data: data.bytes(),
                            metadata: metadata.bytes(),
                            digest: fields.digest(digest.bytes()),
                        })
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                Self::CreateAndSealBatch {
                    objects: Cow::Owned(objects),
                    evict_if_full: m.evict_if_full(),
                }
            }
            MessageType::AbortRequest => {
                let m = root::<wire::AbortRequest<'_>>(kind, body)?;
                Self::Abort(fields.id(m.object_id())?)
            }
            MessageType::SealRequest => {
                let m = root::<wire::SealRequest<'_>>(kind, body)?;
                Self::Seal {
                    id: fields.id(m.object_id())?,
                    digest: fields.digest(fields.bytes(m.digest())),
                }
            }
            MessageType::GetRequest => {
                let m = root::<wire::GetRequest<'_>>(kind, body)?;
                Self::Get {
                    ids: fields.ids(m.object_ids())?.into(),
                    timeout_ms: m.timeout_ms(),
                }
            }
            MessageType::ReleaseRequest => {
                let m = root::<wire::ReleaseRequest<'_>>(kind, body)?;
                Self::Release(fields.id(m.object_id())?)
            }
            MessageType::DeleteRequest => {
                let m = root::<wire::DeleteRequest<'_>>(kind, body)?;
                Self::Delete(fields.ids(m.object_ids())?.into())
            }
            MessageType::ContainsRequest => {
                let m = root::<wire::ContainsRequest<'_>>(kind, body)?;
                Self::Contains(fields.id(m.object_id())?)
            }
            MessageType::ListRequest => {
                root::<wire::ListRequest<'_>>(kind, body)?;
                Self::List
            }
            MessageType::EvictRequest => {
                let m = root::<wire::EvictRequest<'_>>(kind, body)?;
                Self::Evict {
                    num_bytes: m.num_bytes(),
                }
            }
            MessageType::SubscribeRequest => {
                root::<wire::SubscribeRequest<'_>>(kind, body)?;
                Self::Subscribe
            }
            MessageType::SetOptionsRequest => {
                let m = root::<wire::SetOptionsRequest<'_>>(kind, body)?;
                Self::SetOptions {
                    client_name: fields.text(m.client_name()),
                    quota_bytes: m.output_memory_quota(),
                }
            }
            MessageType::GetDebugStringRequest => {
                root::<wire::GetDebugStringRequest<'_>>(kind, body)?;
                Self::GetDebugString
            }
            MessageType::RefreshLruRequest => {
                let m = root::<wire::RefreshLruRequest<'_>>(kind, body)?;
                Self::RefreshLru(fields.ids(m.object_ids())?.into())
            }
            _ => return Err(MalformedMessage::Unexpected(kind)),
        })
    }
}

impl Reply<'static> {
    /// Reads the body of a message that a store sent.
    ///
    /// # Errors
    /// The body is not a valid `kind`, or `kind` is not a reply.
    pub fn decode(kind: MessageType, body: &[u8]) -> Result<Self, MalformedMessage> {
        let fields = Fields(kind);
        Ok(match kind {
            MessageType::ConnectReply => {
                let m = root::<wire::ConnectReply<'_>>(kind, body)?;
                Self::Connect {
                    memory_capacity: m.memory_capacity(),
                    offer: fields.offer(&m)?,
                }
            }
            MessageType::CreateReply => {
                let m = root::<wire::CreateReply<'_>>(kind, body)?;
                let result = match fields.outcome(m.error())? {
                    Err(code) => Err(code),
                    Ok(()) => {
                        let object = m.plasma_object().and_then(spec);
                        let object = object.ok_or_else(|| fields.bad("no object"))?;
                        let segment = SegmentRef {
                            segment: m.store_fd(),
                            mmap_size: m.mmap_size(),
                        };
                        Ok((object, segment))
                    }
                };
                Self::Create {
                    id: fields.id(m.object_id())?,
                    result,
                }
            }
            MessageType::CreateAndSealReply => {
                let m = root::<wire::CreateAndSealReply<'_>>(kind, body)?;
                Self::CreateAndSeal(fields.outcome(m.error())?)
            }
            MessageType::CreateAndSealBatchReply => {
                let m = root::<wire::CreateAndSealBatchReply<'_>>(kind, body)?;
                Self::CreateAndSealBatch(fields.outcome(m.error())?)
            }
            MessageType::AbortReply => {
                let m = root::<wire::AbortReply<'_>>(kind, body)?;
                Self::Abort(fields.id(m.object_id())?)
            }
            MessageType::SealReply => {
                let m = root::<wire::SealReply<'_>>(kind, body)?;
                Self::Seal {
                    id: fields.id(m.object_id())?,
                    result: fields.outcome(m.error())?,
                }
            }
            MessageType::GetReply => {
                let m = root::<wire::GetReply<'_>>(kind, body)?;
                let ids = fields.ids(m.object_ids())?;
                let specs = m.plasma_objects().unwrap_or_default();
                if specs.len() != ids.len() {
                    return Err(fields.bad("lists of different lengths"));
                }
                let objects = ids.into_iter().zip(specs.iter().map(spec)).collect();
                let segments = fields.segments(m.store_fds(), m.mmap_sizes())?;
                Self::Get {
                    objects: Cow::Owned(objects),
                    segments,
                }
            }
            MessageType::DeleteReply => {
                let m = root::<wire::DeleteReply<'_>>(kind, body)?;
                let ids = fields.ids(m.object_ids())?;
                let errors = m.errors().unwrap_or_default();
                if errors.len() != ids.len() {
                    return Err(fields.bad("lists of different lengths"));
                }
                let objects = ids
                    .into_iter()
                    .zip(errors.iter())
                    .map(|(id, error)| Ok((id, fields.outcome(error)?)))
                    .collect::<Result<Vec<_>, _>>()?;
                Self::Delete(objects.into())
            }
            MessageType::ContainsReply => {
                let m = root::<wire::ContainsReply<'_>>(kind, body)?;
                Self::Contains {
                    id: fields.id(m.object_id())?,
                    has_object: m.has_object() != 0,
                }
            }
            MessageType::ListReply => {
                let m = root::<wire::ListReply<'_>>(kind, body)?;
                let objects = m.objects().unwrap_or_default();
                let infos = objects.iter().map(|info| fields.info(info));
                Self::List(infos.collect::<Result<_, _>>()?)
            }
            MessageType::EvictReply => {
                let m = root::<wire::EvictReply<'_>>(kind, body)?;
                Self::Evict {
                    num_bytes: m.num_bytes(),
                }
            }
            MessageType::SetOptionsReply => {
                let m = root::<wire::SetOptionsReply<'_>>(kind, body)?;
                Self::SetOptions(fields.outcome(m.error())?)
            }
            MessageType::GetDebugStringReply => {
                let m = root::<wire::GetDebugStringReply<'_>>(kind, body)?;
                Self::GetDebugString(fields.text(m.debug_string()).into_owned().into())
            }
            MessageType::RefreshLruReply => {
                root::<wire::RefreshLruReply<'_>>(kind, body)?;
                Self::RefreshLru
            }
            _ => return Err(MalformedMessage::Unexpected(kind)),
        })
    }
}

/// Reads one notification's flatbuffer.
///
/// # Errors
/// The body is not a valid notification.
pub fn decode_notification(body: &[u8]) -> Result<Vec<Notification>, MalformedMessage> {
    let kind = MessageType::Notification;
    let fields = Fields(kind);
    let m = root::<wire::Notification<'_>>(kind, body)?;
    let infos = m.object_info().unwrap_or_default();
    infos
        .iter()
        .map(|info| {
            Ok(if info.is_deletion() {
                Notification::Deleted(fields.id(info.object_id())?)
            } else {
                Notification::Sealed(fields.info(info)?)
            })
        })
        .collect()
}
