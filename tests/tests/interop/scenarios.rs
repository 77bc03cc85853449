//! What a store and its clients do for one another, whoever made them.

use std::time::{Duration, Instant};

use plasma_core::ObjectId;
use tests::{eventually, within};

use crate::peer::{Answer, Content, Event, Listed, Peer, Refusal};
use crate::{CAPACITY, ClientKind, LIMIT, Pair, StoreKind, id};

const MB: usize = 1_000_000;
const MIB: usize = 1 << 20;

/// Long enough for a notification that is on its way.
const SOON: Duration = Duration::from_secs(20);
/// Long enough to see that none is.
const A_WHILE: Duration = Duration::from_millis(100);

/// Makes a test of each scenario for each pair of a client and a store.
///
/// `every` client runs the scenario, or `cpp_and_ours`, where Arrow's Python client does not have
/// the calls, or `arrows`, where only Arrow's clients can do such a thing.
macro_rules! scenarios {
    ($($who:ident: $scenario:ident;)*) => {
        mod our_client_on_our_store {
            $(scenarios!(@ours $who: $scenario on Ours);)*
        }
        mod our_client_on_arrows_store {
            $(scenarios!(@ours_foreign $who: $scenario on Arrows);)*
        }
        mod cpp_client_on_our_store {
            $(scenarios!(@test Cpp $scenario on Ours);)*
        }
        mod cpp_client_on_arrows_store {
            $(scenarios!(@test Cpp $scenario on Arrows);)*
        }
        mod python_client_on_our_store {
            $(scenarios!(@python $who: $scenario on Ours);)*
        }
        mod python_client_on_arrows_store {
            $(scenarios!(@python $who: $scenario on Arrows);)*
        }
    };
    (@ours arrows: $scenario:ident on $store:ident) => {};
    (@ours $who:ident: $scenario:ident on $store:ident) => {
        #[test]
        fn $scenario() {
            super::run(super::ClientKind::Ours, super::StoreKind::$store, super::$scenario);
        }
    };
    (@ours_foreign arrows: $scenario:ident on $store:ident) => {};
    (@ours_foreign $who:ident: $scenario:ident on $store:ident) => {
        scenarios!(@test Ours $scenario on $store);
    };
    (@python cpp_and_ours: $scenario:ident on $store:ident) => {};
    (@python $who:ident: $scenario:ident on $store:ident) => {
        scenarios!(@test Python $scenario on $store);
    };
    (@test $client:ident $scenario:ident on $store:ident) => {
        #[test]
        #[ignore = "needs Arrow's programs: see tests/README.md"]
        fn $scenario() {
            super::run(super::ClientKind::$client, super::StoreKind::$store, super::$scenario);
        }
    };
}

scenarios! {
    every: what_is_sealed_is_read;
    every: what_one_puts_every_other_reads;
    every: objects_without_data;
    every: the_same_object_twice_in_one_get;
    every: a_get_that_finds_nothing;
    every: a_get_that_waits_for_a_seal;
    every: an_id_is_used_once;
    every: sealing_what_cannot_be_sealed;
    arrows: sealed_after_the_buffer_is_gone;
    cpp_and_ours: aborted_as_if_never_created;
    every: larger_than_the_store;
    every: filled_to_the_last_byte;
    every: the_oldest_are_evicted;
    every: what_is_in_use_is_not_evicted;
    cpp_and_ours: what_is_refreshed_is_evicted_last;
    every: a_quota_is_set_apart;
    every: a_quota_is_refused;
    every: a_quota_is_enforced;
    every: a_quota_goes_back;
    every: in_the_way_but_in_use;
    every: deleted_while_in_use;
    every: deleted_before_it_is_sealed;
    every: notifications_in_order;
    cpp_and_ours: a_batch_is_told_in_one_message;
    cpp_and_ours: a_batch_is_all_or_nothing;
    every: evictions_are_told;
    every: digests_are_the_same;
    every: a_client_leaves_much_behind;
    every: evicted_objects_come_back;
}

fn run(client: ClientKind, store: StoreKind, scenario: fn(Pair)) {
    within(LIMIT, move || scenario(Pair { client, store }));
}

/// A few numbers of the debug string.
fn told(client: &mut dyn Peer, names: &[&str]) -> Vec<String> {
    let text = client.debug_string();
    let value = |name: &&str| {
        let line = text.lines().find_map(|line| line.strip_prefix(*name));
        let value = line.and_then(|line| line.strip_prefix(": "));
        value
            .unwrap_or_else(|| panic!("no {name} in {text}"))
            .to_owned()
    };
    names.iter().map(value).collect()
}

fn get_one(client: &mut dyn Peer, id: ObjectId) -> Option<Content> {
    let found = client.get(&[id], 0).unwrap();
    assert_eq!(found.len(), 1);
    found.into_iter().next().flatten()
}

/// Puts an object of `size` bytes that nobody holds then.
fn put(client: &mut dyn Peer, id: ObjectId, size: usize) -> Answer<()> {
    client.put(id, &Content::new(vec![b'x'; size], b""))?;
    client.release(id);
    Ok(())
}

fn present(client: &mut dyn Peer, ids: &[ObjectId]) -> Vec<bool> {
    ids.iter().map(|id| client.contains(*id)).collect()
}

fn ref_count(client: &mut dyn Peer, id: ObjectId) -> Option<u32> {
    let listed = client.list();
    let object = listed.into_iter().find(|object| object.id == id);
    object.map(|object| object.ref_count)
}

fn numbered(count: usize) -> Vec<ObjectId> {
    (0..count).map(id).collect()
}

// ---------------------------------------------------------------------------------------------
// Writing and reading

fn what_is_sealed_is_read(pair: Pair) {
    let meeting = pair.start();
    let (mut writer, mut reader) = (meeting.client(), meeting.client());
    assert_eq!(writer.capacity(), CAPACITY);
    let (first, second) = (id("first"), id("second"));
    writer.create(first, 5, b"about it").unwrap();
    writer.write(first, b"hello");
    assert!(!reader.contains(first));
    assert_eq!(get_one(&mut *reader, first), None);
    let creating = Listed {
        id: first,
        data_size: 5,
        meta_size: 8,
        ref_count: 1,
        sealed: false,
    };
    assert_eq!(reader.list(), [creating]);
    writer.seal(first).unwrap();
    assert!(reader.contains(first));
    let sealed = Content::new(b"hello", b"about it");
    assert_eq!(get_one(&mut *reader, first), Some(sealed.clone()));
    assert_eq!(get_one(&mut *writer, first), Some(sealed));
    writer
        .create_and_seal(second, b"all\0at\xff", b"\0")
        .unwrap();
    assert_eq!(
        get_one(&mut *reader, second),
        Some(Content::new(b"all\0at\xff", b"\0"))
    );
    let mut expected = vec![
        Listed {
            ref_count: 2,
            sealed: true,
            ..creating
        },
        Listed {
            id: second,
            data_size: 7,
            meta_size: 1,
            ref_count: 1,
            sealed: true,
        },
    ];
    expected.sort_unstable();
    assert_eq!(writer.list(), expected);
    reader.release(second);
    reader.release(first);
    writer.release(first);
    assert_eq!(ref_count(&mut *reader, first), Some(1));
    writer.release(first);
    assert_eq!(ref_count(&mut *reader, first), Some(0));
    assert_eq!(ref_count(&mut *reader, second), Some(0));
}

fn what_one_puts_every_other_reads(pair: Pair) {
    let meeting = pair.start();
    let mut writer = meeting.client();
    let content = |size: usize| {
        let data: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        Content::new(data, size.to_string())
    };
    let sizes = [0, 1, 63, 64, 65, 4096, 300_000, 2 * MIB];
    for size in sizes {
        writer.put(id(size), &content(size)).unwrap();
        let whole = content(size);
        writer
            .create_and_seal(id(-(size as i64) - 1), &whole.data, &whole.meta)
            .unwrap();
    }
    for kind in [ClientKind::Ours, ClientKind::Cpp, ClientKind::Python] {
        if kind != ClientKind::Ours && meeting.needs_nothing_installed() {
            // Here only this project's programs are to be had; the other pairs cover the rest.
            continue;
        }
        let mut reader = meeting.client_of(kind);
        for size in sizes {
            for id in [id(size), id(-(size as i64) - 1)] {
                assert!(
                    get_one(&mut *reader, id) == Some(content(size)),
                    "{kind:?} reads something else of {size} bytes"
                );
            }
        }
    }
}

fn objects_without_data(pair: Pair) {
    let meeting = pair.start();
    let (mut writer, mut reader) = (meeting.client(), meeting.client());
    let contents = [
        Content::new(b"", b""),
        Content::new(b"", b"metadata only"),
        Content::new(b"data only", b""),
    ];
    for (number, content) in contents.iter().enumerate() {
        writer.put(id(number), content).unwrap();
        writer
            .create_and_seal(id(number + 10), &content.data, &content.meta)
            .unwrap();
    }
    for (number, content) in contents.iter().enumerate() {
        for number in [number, number + 10] {
            let found = get_one(&mut *reader, id(number));
            assert_eq!(found.as_ref(), Some(content));
        }
    }
    assert_eq!(reader.list().len(), 6);
}

fn the_same_object_twice_in_one_get(pair: Pair) {
    let meeting = pair.start();
    let (mut client, mut watcher) = (meeting.client(), meeting.client());
    let (there, missing) = (id("there"), id("missing"));
    client.create_and_seal(there, b"1", b"2").unwrap();
    let found = client.get(&[there, missing, there, missing], 0).unwrap();
    let content = Some(Content::new(b"1", b"2"));
    assert_eq!(found, [content.clone(), None, content, None]);
    assert_eq!(ref_count(&mut *watcher, there), Some(1));
    client.release(there);
    assert_eq!(ref_count(&mut *watcher, there), Some(1));
    client.release(there);
    assert_eq!(ref_count(&mut *watcher, there), Some(0));
}

fn a_get_that_finds_nothing(pair: Pair) {
    let meeting = pair.start();
    let (mut client, mut other) = (meeting.client(), meeting.client());
    let (there, missing) = (id("there"), id("missing"));
    other.create_and_seal(there, b"1", b"").unwrap();
    other.create(id("unsealed"), 1, b"").unwrap();
    assert_eq!(client.get(&[missing], 0).unwrap(), [None]);
    let start = Instant::now();
    let found = client.get(&[missing, there, id("unsealed")], 80).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(79));
    assert_eq!(found, [None, Some(Content::new(b"1", b"")), None]);
    // What came is held, what did not come is not.
    eventually("the waiting get is over", || {
        ref_count(&mut *other, there) == Some(1)
    });
    assert_eq!(ref_count(&mut *other, id("unsealed")), Some(1));
}

fn a_get_that_waits_for_a_seal(pair: Pair) {
    let meeting = pair.start();
    let (mut waiter, mut writer) = (meeting.client(), meeting.client());
    let (there, awaited, last) = (id("there"), id("awaited"), id("last"));
    writer.create_and_seal(there, b"there", b"").unwrap();
    writer.create(last, 4, b"").unwrap();
    let found = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.get(&[last, there, awaited], -1));
        // It holds what is there already: so the store has its request.
        eventually("the get has come", || {
            ref_count(&mut *writer, there) == Some(1)
        });
        writer.create_and_seal(awaited, b"awaited", b"m").unwrap();
        writer.write(last, b"last");
        assert!(!waiting.is_finished());
        writer.seal(last).unwrap();
        waiting.join().unwrap().unwrap()
    });
    let contents = [
        (&b"last"[..], &b""[..]),
        (b"there", b""),
        (b"awaited", b"m"),
    ];
    let contents = contents.map(|(data, meta)| Some(Content::new(data, meta)));
    assert_eq!(found, contents);
}

fn digests_are_the_same(pair: Pair) {
    let meeting = pair.start();
    let (mut client, mut ours) = (meeting.client(), meeting.watcher());
    let sizes = [
        0,
        1,
        31,
        32,
        33,
        999,
        MIB - 1,
        MIB,
        MIB + 1,
        MIB + 511,
        2 * MIB + 513,
    ];
    for (number, size) in sizes.into_iter().enumerate() {
        let data: Vec<u8> = (0..size).map(|index| (index % 253) as u8).collect();
        let content = Content::new(data, vec![b'm'; number]);
        let (one, other, whole) = (id("one"), id("other"), id("whole"));
        // Small ones also as the client sends them through the socket.
        client.put(one, &content).unwrap();
        ours.put(other, &content).unwrap();
        client
            .create_and_seal(whole, &content.data, &content.meta)
            .unwrap();
        let kept = ours.kept_digests();
        let digest = client.digest(one);
        for id in [one, other, whole] {
            assert_eq!(kept[&id], Some(digest), "{size} bytes");
            assert_eq!(ours.digest(id), digest);
        }
        client.release(one);
        ours.release(other);
        client.delete(&[one, other, whole]).unwrap();
        assert!(ours.list().is_empty());
    }
}

// ---------------------------------------------------------------------------------------------
// Creating

fn an_id_is_used_once(pair: Pair) {
    let meeting = pair.start();
    let (mut one, mut other) = (meeting.client(), meeting.client());
    let (sealed, unsealed) = (id("sealed"), id("unsealed"));
    one.create_and_seal(sealed, b"first", b"").unwrap();
    one.create(unsealed, 1, b"").unwrap();
    for id in [sealed, unsealed] {
        assert_eq!(other.create(id, 1, b""), Err(Refusal::Exists));
        let second = other.create_and_seal(id, b"second", b"");
        assert_eq!(second, Err(Refusal::Exists));
    }
    assert_eq!(one.create(sealed, 1, b""), Err(Refusal::Exists));
    let content = get_one(&mut *other, sealed);
    assert_eq!(content, Some(Content::new(b"first", b"")));
    one.delete(&[sealed]).unwrap();
    other.release(sealed);
    // Free again.
    other.create_and_seal(sealed, b"second", b"").unwrap();
}

fn sealing_what_cannot_be_sealed(pair: Pair) {
    let meeting = pair.start();
    let (mut one, mut other) = (meeting.client(), meeting.client());
    assert_eq!(one.seal(id("missing")), Err(Refusal::NotFound));
    one.put(id("sealed"), &Content::new(b"1", b"")).unwrap();
    assert_eq!(one.seal(id("sealed")), Err(Refusal::Sealed));
    one.create(id("another's"), 1, b"").unwrap();
    assert_eq!(other.seal(id("another's")), Err(Refusal::NotFound));
    one.seal(id("another's")).unwrap();
}

fn sealed_after_the_buffer_is_gone(pair: Pair) {
    let meeting = pair.start();
    let (mut one, mut other) = (meeting.client(), meeting.client());
    one.create(id("object"), 3, b"m").unwrap();
    one.write(id("object"), b"abc");
    one.release(id("object"));
    assert!(!other.contains(id("object")));
    one.seal(id("object")).unwrap();
    let content = get_one(&mut *other, id("object"));
    assert_eq!(content, Some(Content::new(b"abc", b"m")));
    other.release(id("object"));
    eventually("nobody holds it", || {
        ref_count(&mut *other, id("object")) == Some(0)
    });
}

fn aborted_as_if_never_created(pair: Pair) {
    let meeting = pair.start();
    let (mut one, mut other) = (meeting.client(), meeting.client());
    let object = id("object");
    for _ in 0..3 {
        // Most of the store, so that it does not fit twice.
        one.create(object, 9 * MB, b"meta").unwrap();
        one.abort(object).unwrap();
        assert_eq!(other.list(), []);
        assert_eq!(told(&mut *other, &["allocated bytes"]), ["0"]);
    }
    let leaks = meeting.has_arrows_fault("what is aborted counts as pinned for ever");
    let pinned = if leaks { 3 * (9 * MB + 4) } else { 0 };
    let pinned = pinned.to_string();
    assert_eq!(told(&mut *other, &["pinned bytes"]), [pinned]);
    other.put(object, &Content::new(b"free", b"")).unwrap();
    if meeting.client_kind() == ClientKind::Ours {
        // Arrow's client ends its process over such a call.
        assert_eq!(one.abort(object), Err(Refusal::NotFound));
        let sealed = other.abort(object);
        assert!(matches!(sealed, Err(Refusal::Other(_))), "{sealed:?}");
    }
    assert!(one.contains(object));
}

// ---------------------------------------------------------------------------------------------
// Memory

fn larger_than_the_store(pair: Pair) {
    let meeting = pair.start();
    let mut client = meeting.client();
    put(&mut *client, id("before"), 1).unwrap();
    for size in [CAPACITY as usize + 1, 1 << 30, 1 << 40] {
        let refused = client.create(id("too large"), size, b"");
        assert_eq!(refused, Err(Refusal::Full), "{size} bytes");
    }
    assert_eq!(
        client.create(id("meta"), CAPACITY as usize, b"m"),
        Err(Refusal::Full)
    );
    assert!(!client.contains(id("too large")));
    // What was in the way is evicted only for what fits.
    put(&mut *client, id("after"), 1).unwrap();
    assert!(client.contains(id("after")));
}

fn filled_to_the_last_byte(pair: Pair) {
    let meeting = pair.start();
    let mut client = meeting.client();
    let ids = numbered(10);
    for id in &ids {
        client.create(*id, MB - 1, b"m").unwrap();
    }
    assert_eq!(
        told(&mut *client, &["allocated bytes", "pinned bytes"]),
        ["10000000", "10000000"]
    );
    assert_eq!(client.create(id("one more"), 1, b""), Err(Refusal::Full));
    for id in &ids {
        client.write(*id, &vec![b'x'; MB - 1]);
        client.seal(*id).unwrap();
    }
    assert_eq!(client.create(id("one more"), 0, b"m"), Err(Refusal::Full));
    client.release(ids[4]);
    client.create(id("one more"), MB, b"").unwrap();
    assert_eq!(client.create(id("and more"), 1, b""), Err(Refusal::Full));
    assert!(!client.contains(ids[4]));
}

fn the_oldest_are_evicted(pair: Pair) {
    let meeting = pair.start();
    let (mut client, mut other) = (meeting.client(), meeting.client());
    let ids = numbered(16);
    for id in &ids[..10] {
        put(&mut *client, *id, MB).unwrap();
    }
    assert_eq!(present(&mut *other, &ids[..10]), [true; 10]);
    // Used again, so the most recently used.
    assert!(get_one(&mut *other, ids[0]).is_some());
    other.release(ids[0]);
    // Needs one, evicts 20 %: two.
    put(&mut *client, ids[10], MB).unwrap();
    let expected = [
        true, false, false, true, true, true, true, true, true, true, true,
    ];
    assert_eq!(present(&mut *other, &ids[..11]), expected);
    let numbers = ["num objects", "num evictions", "bytes evicted"];
    let numbers = numbers.map(|name| format!("(global lru) {name}"));
    let numbers = numbers.each_ref().map(String::as_str);
    assert_eq!(told(&mut *client, &numbers), ["9", "2", "2000000"]);
    // There is room for one more now; and for the next, two more go.
    put(&mut *client, ids[11], MB).unwrap();
    assert_eq!(told(&mut *client, &numbers), ["10", "2", "2000000"]);
    put(&mut *client, ids[12], MB).unwrap();
    assert_eq!(told(&mut *client, &numbers), ["9", "4", "4000000"]);
    assert_eq!(present(&mut *other, &ids[3..6]), [false, false, true]);
    // On request, whole objects.
    assert_eq!(client.evict(1), MB as u64);
    assert!(!other.contains(ids[5]));
    assert_eq!(other.evict(2 * MB as u64 + 1), 3 * MB as u64);
    assert_eq!(
        present(&mut *client, &ids[6..10]),
        [false, false, false, true]
    );
    assert_eq!(client.evict(u64::from(u32::MAX)), 5 * MB as u64);
    assert_eq!(client.evict(1), 0);
    assert_eq!(other.list(), []);
    assert_eq!(told(&mut *client, &["allocated bytes"]), ["0"]);
}

fn what_is_in_use_is_not_evicted(pair: Pair) {
    let meeting = pair.start();
    let (mut client, mut other) = (meeting.client(), meeting.client());
    let ids = numbered(4);
    for id in &ids[..2] {
        client
            .put(*id, &Content::new(vec![1; 3 * MB], b""))
            .unwrap();
    }
    put(&mut *client, ids[2], 3 * MB).unwrap();
    assert!(get_one(&mut *other, ids[0]).is_some());
    client.release(ids[0]);
    // The one object that nobody holds would not be enough.
    assert_eq!(client.create(ids[3], 5 * MB, b""), Err(Refusal::Full));
    assert_eq!(present(&mut *other, &ids[..2]), [true; 2]);
    if meeting.has_arrows_fault("it evicts for what does not fit even then") {
        assert!(!other.contains(ids[2]));
    }
    client.delete(&[ids[2]]).unwrap();
    assert_eq!(client.evict(1), 0);
    other.release(ids[0]);
    put(&mut *client, ids[3], 5 * MB).unwrap();
    assert_eq!(present(&mut *other, &ids), [false, true, false, true]);
}

fn what_is_refreshed_is_evicted_last(pair: Pair) {
    let meeting = pair.start();
    let mut client = meeting.client();
    let ids = numbered(12);
    for id in &ids[..10] {
        client.create_and_seal(*id, &[7; MB], b"").unwrap();
    }
    client
        .refresh(&[ids[0], id("unknown"), ids[2], ids[0]])
        .unwrap();
    client.create_and_seal(ids[10], &[7; MB], b"").unwrap();
    assert_eq!(
        present(&mut *client, &ids[..5]),
        [true, false, true, false, true]
    );
    // In use: nothing changes, and nothing breaks.
    assert!(get_one(&mut *client, ids[4]).is_some());
    client.refresh(&[ids[4]]).unwrap();
    client.release(ids[4]);
    assert_eq!(client.evict(5 * MB as u64), 5 * MB as u64);
    assert_eq!(
        present(&mut *client, &ids[..11]),
        [
            true, false, true, false, true, false, false, false, false, false, true
        ]
    );
    // In the order in which they were refreshed: 2 before 0.
    assert_eq!(client.evict(1), MB as u64);
    assert_eq!(present(&mut *client, &[ids[0], ids[2]]), [true, false]);
}

// ---------------------------------------------------------------------------------------------
// Quotas

fn a_quota_is_set_apart(pair: Pair) {
    let meeting = pair.start();
    let mut client = meeting.client();
    let nothing = "\
num clients with quota: 0
quota map size: 0
pinned quota map size: 0
allocated bytes: 0
allocation limit: 10000000
pinned bytes: 0
(global lru) capacity: 10000000
(global lru) used: 0%
(global lru) num objects: 0
(global lru) num evictions: 0
(global lru) bytes evicted: 0";
    assert_eq!(client.debug_string(), nothing);
    for number in 0..2 {
        let content = Content::new(vec![number; 2 * MIB], b"m");
        client.put(id(number), &content).unwrap();
        client.release(id(number));
    }
    assert_eq!(
        told(
            &mut *client,
            &["(global lru) used", "(global lru) num objects"]
        ),
        ["41.9431%", "2"]
    );
    client.delete(&[id(0), id(1)]).unwrap();
    client.set_options("somebody", 5 << 20).unwrap();
    let set_apart = "\
num clients with quota: 1
quota map size: 0
pinned quota map size: 0
allocated bytes: 0
allocation limit: 10000000
pinned bytes: 0
(global lru) capacity: 4757120
(global lru) used: 52.4288%
(global lru) num objects: 0
(global lru) num evictions: 0
(global lru) bytes evicted: 0
(somebody) capacity: 5242880
(somebody) used: 0%
(somebody) num objects: 0
(somebody) num evictions: 0
(somebody) bytes evicted: 0";
    assert_eq!(client.debug_string(), set_apart);
    client.create(id(2), MIB, b"").unwrap();
    let creating = set_apart
        .replace("quota map size: 0", "quota map size: 1")
        .replace("allocated bytes: 0", "allocated bytes: 1048576")
        .replace("pinned bytes: 0", "pinned bytes: 1048576")
        .replace("(somebody) used: 0%", "(somebody) used: 20%")
        .replace("(somebody) num objects: 0", "(somebody) num objects: 1");
    assert_eq!(client.debug_string(), creating);
    client.seal(id(2)).unwrap();
    client.release(id(2));
    let released = creating
        .replace("pinned quota map size: 1", "pinned quota map size: 0")
        .replace("pinned bytes: 1048576", "pinned bytes: 0");
    assert_eq!(client.debug_string(), released);
    client.delete(&[id(2)]).unwrap();
    assert_eq!(client.debug_string(), set_apart);
}

fn a_quota_is_refused(pair: Pair) {
    let meeting = pair.start();
    let (mut one, mut other) = (meeting.client(), meeting.client());
    // 30 % stay for everyone.
    assert_eq!(
        one.set_options("greedy", 7 * MB as u64 + 1),
        Err(Refusal::Full)
    );
    assert_eq!(told(&mut *one, &["num clients with quota"]), ["0"]);
    one.set_options("one", 5 << 20).unwrap();
    assert_eq!(one.set_options("again", 1000), Err(Refusal::Full));
    assert_eq!(other.set_options("other", 5 << 20), Err(Refusal::Full));
    // All that is left of the 70 %.
    other
        .set_options("other", 7 * MB as u64 - (5 << 20))
        .unwrap();
    assert_eq!(
        told(
            &mut *other,
            &[
                "num clients with quota",
                "(global lru) capacity",
                "(one) capacity",
                "(other) capacity"
            ]
        ),
        ["2", "3000000", "5242880", "1757120"]
    );
}

fn a_quota_is_enforced(pair: Pair) {
    let meeting = pair.start();
    let (mut one, mut other) = (meeting.client(), meeting.client());
    one.set_options("one", 5 << 20).unwrap();
    let (mine, others) = (numbered(8), [id("a"), id("b"), id("c"), id("d"), id("e")]);
    for id in &others[..4] {
        put(&mut *other, *id, MB).unwrap();
    }
    // Larger than the quota, though not than the store.
    assert_eq!(
        one.create(id("large"), (5 << 20) + 1, b""),
        Err(Refusal::Full)
    );
    for id in &mine[..5] {
        put(&mut *one, *id, MIB).unwrap();
    }
    assert_eq!(present(&mut *other, &mine[..5]), [true; 5]);
    // Its own oldest goes, only as many as needed, and nobody else's.
    put(&mut *one, mine[5], MIB).unwrap();
    assert_eq!(present(&mut *other, &mine[..3]), [false, true, true]);
    put(&mut *one, mine[6], MIB + MIB / 2).unwrap();
    assert_eq!(
        present(&mut *other, &mine[..4]),
        [false, false, false, true]
    );
    assert_eq!(present(&mut *one, &others[..4]), [true; 4]);
    let numbers = ["num objects", "num evictions", "bytes evicted", "used"];
    let numbers = numbers.map(|name| format!("(one) {name}"));
    let numbers = numbers.each_ref().map(String::as_str);
    assert_eq!(told(&mut *other, &numbers), ["4", "3", "3145728", "90%"]);
    // Nor are its objects evicted for others.
    assert_eq!(other.evict(u64::from(u32::MAX)), 4 * MB as u64);
    assert_eq!(present(&mut *other, &mine[3..7]), [true; 4]);
    let (five, six) = (5 * MB, 6 * MB);
    assert_eq!(other.create(others[4], six, b""), Err(Refusal::Full));
    put(&mut *other, others[4], five).unwrap();
    assert_eq!(present(&mut *other, &mine[3..7]), [true; 4]);
}

fn a_quota_goes_back(pair: Pair) {
    let meeting = pair.start();
    let mut other = meeting.client();
    let (released, held, theirs) = (id("released"), id("held"), id("theirs"));
    {
        let mut one = meeting.client();
        one.set_options("one", 5 << 20).unwrap();
        put(&mut *one, released, MB).unwrap();
        one.put(held, &Content::new(vec![1; MB], b"")).unwrap();
        put(&mut *one, theirs, MB).unwrap();
        assert!(get_one(&mut *other, theirs).is_some());
        assert_eq!(told(&mut *other, &["(global lru) num objects"]), ["0"]);
    }
    eventually("the client is gone", || {
        told(&mut *other, &["num clients with quota"]) == ["0"]
    });
    let names = [
        "quota map size",
        "pinned quota map size",
        "pinned bytes",
        "(global lru) capacity",
        "(global lru) num objects",
    ];
    assert_eq!(
        told(&mut *other, &names),
        ["0", "0", "1000000", "10000000", "2"]
    );
    other.release(theirs);
    assert_eq!(told(&mut *other, &["(global lru) num objects"]), ["3"]);
    assert_eq!(present(&mut *other, &[released, held, theirs]), [true; 3]);
    other.set_options("other", 7 * MB as u64).unwrap();
}

fn in_the_way_but_in_use(pair: Pair) {
    let meeting = pair.start();
    let (mut one, mut reader) = (meeting.client(), meeting.client());
    one.set_options("one", 5 << 20).unwrap();
    let ids = numbered(4);
    for id in &ids[..2] {
        put(&mut *one, *id, 2 * MIB).unwrap();
    }
    assert!(get_one(&mut *reader, ids[0]).is_some());
    let names = [
        "quota map size",
        "pinned quota map size",
        "(one) num objects",
        "(one) num evictions",
        "(global lru) num objects",
    ];
    assert_eq!(told(&mut *one, &names), ["2", "1", "2", "0", "0"]);
    // The first is in the way and in use: it leaves the quota and stays in the store.
    put(&mut *one, ids[2], 2 * MIB).unwrap();
    assert_eq!(present(&mut *one, &ids[..3]), [true; 3]);
    assert_eq!(told(&mut *one, &names), ["2", "0", "2", "1", "0"]);
    reader.release(ids[0]);
    assert_eq!(told(&mut *one, &names), ["2", "0", "2", "1", "1"]);
    // From now on it goes like anybody's.
    put(&mut *one, ids[3], 2 * MIB).unwrap();
    assert_eq!(present(&mut *one, &ids), [true, false, true, true]);
    assert_eq!(reader.evict(1), 2 * MIB as u64);
    assert_eq!(present(&mut *one, &ids), [false, false, true, true]);
}

// ---------------------------------------------------------------------------------------------
// Deleting

fn deleted_while_in_use(pair: Pair) {
    let meeting = pair.start();
    let (mut one, mut other) = (meeting.client(), meeting.client());
    let (object, idle) = (id("object"), id("idle"));
    one.put(object, &Content::new(b"in use", b"")).unwrap();
    one.create_and_seal(idle, b"idle", b"").unwrap();
    let content = get_one(&mut *other, object);
    // By a client that does not hold it, that does, and of what is not there.
    other.delete(&[idle, id("missing")]).unwrap();
    one.delete(&[object]).unwrap();
    other.delete(&[object]).unwrap();
    assert_eq!(present(&mut *one, &[object, idle]), [true, false]);
    assert_eq!(content, Some(Content::new(b"in use", b"")));
    one.release(object);
    assert!(one.contains(object));
    other.release(object);
    eventually("it is gone", || !other.contains(object));
    let leaks = meeting.has_arrows_fault("what goes at its last release counts as pinned for ever");
    let pinned = if leaks { "6" } else { "0" };
    let numbers = ["allocated bytes", "pinned bytes"];
    assert_eq!(told(&mut *one, &numbers), ["0", pinned]);
}

fn deleted_before_it_is_sealed(pair: Pair) {
    let meeting = pair.start();
    let (mut one, mut other) = (meeting.client(), meeting.client());
    let object = id("object");
    one.create(object, 1, b"").unwrap();
    other.delete(&[object]).unwrap();
    assert_eq!(other.list().len(), 1);
    one.seal(object).unwrap();
    assert!(other.contains(object));
    one.release(object);
    eventually("it is gone", || !other.contains(object));
    assert_eq!(other.list(), []);
}

fn a_client_leaves_much_behind(pair: Pair) {
    let meeting = pair.start();
    let mut other = meeting.client();
    let ids = numbered(300);
    {
        let mut leaver = meeting.client();
        for (number, id) in ids.iter().enumerate() {
            leaver.create(*id, 1000, b"").unwrap();
            if number % 3 > 0 {
                leaver.seal(*id).unwrap();
            }
            if number % 3 > 1 {
                leaver.release(*id);
            }
        }
        assert_eq!(other.list().len(), 300);
        assert!(get_one(&mut *other, ids[1]).is_some());
    }
    // What was not sealed goes, what was sealed stays.
    eventually("the client is gone", || other.list().len() == 200);
    for listed in other.list() {
        assert!(listed.sealed);
        assert_eq!(listed.ref_count, u32::from(listed.id == ids[1]));
    }
    let leaks = meeting.has_arrows_fault("what a client had not sealed counts as pinned for ever");
    let pinned = if leaks { 101_000 } else { 1000 }.to_string();
    let numbers = [
        "allocated bytes",
        "pinned bytes",
        "(global lru) num objects",
    ];
    let expected = ["200000", &pinned, "199"];
    assert_eq!(told(&mut *other, &numbers), expected);
    let content = get_one(&mut *other, ids[2]);
    assert_eq!(content.map(|content| content.data.len()), Some(1000));
    other.release(ids[2]);
    other.release(ids[1]);
    assert_eq!(other.evict(u64::from(u32::MAX)), 200_000);
}

// ---------------------------------------------------------------------------------------------
// Notifications

/// The next events, one by one, however they are packed.
fn events(subscriber: &mut dyn Peer, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let more = subscriber.notification(SOON);
        assert!(!more.is_empty(), "only {events:?} of {count} events came");
        events.extend(more);
    }
    events
}

fn notifications_in_order(pair: Pair) {
    let meeting = pair.start();
    let (mut subscriber, mut client) = (meeting.client(), meeting.client());
    let existing = numbered(5);
    for (number, id) in existing.iter().enumerate() {
        client.create_and_seal(*id, &vec![0; number], b"m").unwrap();
    }
    client.create(id("unsealed"), 1, b"").unwrap();
    subscriber.subscribe();
    let mut heard = events(&mut *subscriber, 5);
    if meeting.has_arrows_fault("existing objects are told in the order of a hash") {
        heard.sort_by_key(|event| {
            existing.iter().position(|id| match event {
                Event::Sealed(sealed, ..) => sealed == id,
                Event::Deleted(_) => false,
            })
        });
    }
    let expected = existing.iter().zip(0..);
    let expected: Vec<_> = expected
        .map(|(id, size)| Event::Sealed(*id, size, 1))
        .collect();
    assert_eq!(heard, expected);
    assert_eq!(subscriber.notification(A_WHILE), []);
    // Then everything as it happens.
    client.put(id("held"), &Content::new(b"held", b"")).unwrap();
    client.delete(&[existing[0]]).unwrap();
    client.seal(id("unsealed")).unwrap();
    client.delete(&[id("held")]).unwrap();
    client.create_and_seal(existing[0], b"again", b"").unwrap();
    client.release(id("held"));
    client.delete(&[existing[1], existing[2]]).unwrap();
    let heard = events(&mut *subscriber, 7);
    assert_eq!(
        heard,
        [
            Event::Sealed(id("held"), 4, 0),
            Event::Deleted(existing[0]),
            Event::Sealed(id("unsealed"), 1, 0),
            Event::Sealed(existing[0], 5, 0),
            Event::Deleted(id("held")),
            Event::Deleted(existing[1]),
            Event::Deleted(existing[2]),
        ]
    );
    assert_eq!(subscriber.notification(A_WHILE), []);
}

fn evictions_are_told(pair: Pair) {
    let meeting = pair.start();
    let (mut subscriber, mut client) = (meeting.client(), meeting.client());
    let ids = numbered(11);
    for id in &ids[..10] {
        put(&mut *client, *id, MB).unwrap();
    }
    subscriber.subscribe();
    events(&mut *subscriber, 10);
    put(&mut *client, ids[10], MB).unwrap();
    assert_eq!(client.evict(1), MB as u64);
    assert_eq!(
        events(&mut *subscriber, 4),
        [
            Event::Deleted(ids[0]),
            Event::Deleted(ids[1]),
            Event::Sealed(ids[10], MB as u64, 0),
            Event::Deleted(ids[2]),
        ]
    );
}

fn a_batch(names: &[&str]) -> Vec<(ObjectId, Vec<u8>, Vec<u8>)> {
    let object = |name: &&str| {
        (
            id(name),
            name.as_bytes().to_vec(),
            vec![b'm'; name.len() + 1],
        )
    };
    names.iter().map(object).collect()
}

fn a_batch_is_told_in_one_message(pair: Pair) {
    let meeting = pair.start();
    let (mut subscriber, mut client) = (meeting.client(), meeting.client());
    client.create_and_seal(id("marker"), b"", b"").unwrap();
    subscriber.subscribe();
    events(&mut *subscriber, 1);
    let names = ["a", "be", "cee"];
    client.batch(&a_batch(&names)).unwrap();
    let expected =
        names.map(|name| Event::Sealed(id(name), name.len() as u64, name.len() as u64 + 1));
    if meeting.client_kind() == ClientKind::Ours {
        // This client tells events one by one.
        assert_eq!(events(&mut *subscriber, 3), expected);
    } else {
        assert_eq!(subscriber.notification(SOON), expected);
    }
    assert_eq!(subscriber.notification(A_WHILE), []);
    for name in names {
        let content = Content::new(name, vec![b'm'; name.len() + 1]);
        assert_eq!(get_one(&mut *subscriber, id(name)), Some(content));
        assert_eq!(ref_count(&mut *client, id(name)), Some(1));
    }
}

fn a_batch_is_all_or_nothing(pair: Pair) {
    let meeting = pair.start();
    let (mut client, mut other) = (meeting.client(), meeting.client());
    other.create_and_seal(id("taken"), b"", b"").unwrap();
    let refused = client.batch(&a_batch(&["a", "b", "taken", "c"]));
    assert_eq!(refused, Err(Refusal::Exists));
    assert_eq!(other.list().len(), 1);
    let mut too_much = a_batch(&["a", "b"]);
    too_much[1].1 = vec![0; CAPACITY as usize + 1];
    assert_eq!(client.batch(&too_much), Err(Refusal::Full));
    assert!(!other.contains(id("a")));
    assert_eq!(told(&mut *other, &["allocated bytes"]), ["0"]);
    client.batch(&a_batch(&["a", "b", "c"])).unwrap();
    assert_eq!(
        present(&mut *other, &[id("a"), id("b"), id("c")]),
        [true; 3]
    );
}

// ---------------------------------------------------------------------------------------------
// The external store

fn evicted_objects_come_back(pair: Pair) {
    let meeting = pair.start_with(&["-e", "hashtable://test"]);
    let (mut client, mut reader) = (meeting.client(), meeting.client());
    let ids = numbered(20);
    let crashes = meeting.has_arrows_fault("it ends over evicted objects that have metadata");
    let content = |number: usize| {
        let meta = if crashes {
            String::new()
        } else {
            format!("number {number}")
        };
        Content::new(vec![number as u8; MB - meta.len()], meta)
    };
    for (number, id) in ids.iter().enumerate() {
        client.put(*id, &content(number)).unwrap();
        client.release(*id);
    }
    // Twice as much as there is room for, and all of it is there.
    assert_eq!(present(&mut *reader, &ids), [true; 20]);
    for (number, id) in ids.iter().enumerate() {
        let found = get_one(&mut *reader, *id);
        assert_eq!(found, Some(content(number)));
        reader.release(*id);
    }
    // Gone when it is deleted, in memory or not.
    reader.delete(&[ids[19], ids[0]]).unwrap();
    assert!(!client.contains(ids[19]));
    let forgets = meeting.has_arrows_fault("it does not delete what is evicted");
    assert_eq!(client.contains(ids[0]), forgets);
}
